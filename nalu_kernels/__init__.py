"""NAC and NALU layers (Trask et al. 2018) as fused kernels for PyTorch."""

from .convert import convert
from .dispatch import BackendUnavailable, backends, use_backend, which_backend
from .finite import check_finite
from .functional import (
    gnalu,
    inalu,
    nac,
    nalu,
    nau,
    nmru,
    nmu,
    npu,
    nru,
    real_npu,
    snmu,
)
from .layers import NAC, NALU, NACCell, NALUCell, keep_weights, sparsity_error

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
    "gnalu",
    "inalu",
    "keep_weights",
    "nac",
    "nalu",
    "nau",
    "nmru",
    "nmu",
    "npu",
    "nru",
    "real_npu",
    "snmu",
    "sparsity_error",
    "use_backend",
    "which_backend",
]
