"""NAC and NALU layers (Trask et al. 2018) as fused kernels for PyTorch."""

from .convert import convert
from .dispatch import BackendUnavailable, backends, use_backend, which_backend
from .functional import nac, nalu
from .layers import NAC, NALU, NACCell, NALUCell, sparsity_error

__version__ = "0.1.0"

__all__ = [
    "NAC",
    "NALU",
    "BackendUnavailable",
    "NACCell",
    "NALUCell",
    "backends",
    "convert",
    "nac",
    "nalu",
    "sparsity_error",
    "use_backend",
    "which_backend",
]
