"""NAC and NALU layers (Trask et al. 2018) as fused kernels for PyTorch."""

from .cells import NACCell, NALUCell
from .convert import convert
from .dispatch import BackendUnavailable, backends, use_backend, which_backend
from .finite import check_finite
from .functional import nac, nalu
from .modules import NAC, NALU

__version__ = "0.1.0"

__all__ = [
    "NAC",
    "NALU",
    "BackendUnavailable",
    "NACCell",
    "NALUCell",
    "backends",
    "check_finite",
    "convert",
    "nac",
    "nalu",
    "use_backend",
    "which_backend",
]
