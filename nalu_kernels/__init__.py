"""Neural arithmetic layers, from NAC and NALU (Trask et al. 2018) on, for PyTorch."""

from typing import TYPE_CHECKING, Any

from . import published
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
from .layers import (
    GNALU,
    INALU,
    NAC,
    NACNMU,
    NACRNN,
    NALU,
    NALURNN,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    SNMU,
    INALUCell,
    NACCell,
    NACSigma,
    NALUCell,
    NAUCell,
    NMUCell,
    Ramp,
    RealNPU,
    RealNPUCell,
    Stairs,
    clamp_,
    clamp_after_step,
    input_regularizer,
    keep_weights,
    regularizer,
    sparsity_error,
)

if TYPE_CHECKING:
    from .formulas import Formula, formula

__version__ = "0.1.0"

__all__ = [
    "GNALU",
    "INALU",
    "NAC",
    "NACNMU",
    "NACRNN",
    "NALU",
    "NALURNN",
    "NAU",
    "NMRU",
    "NMU",
    "NPU",
    "NRU",
    "SNMU",
    "BackendUnavailable",
    "Formula",
    "INALUCell",
    "NACCell",
    "NACSigma",
    "NALUCell",
    "NAUCell",
    "NMUCell",
    "Ramp",
    "RealNPU",
    "RealNPUCell",
    "Stairs",
    "backends",
    "check_finite",
    "clamp_",
    "clamp_after_step",
    "convert",
    "formula",
    "gnalu",
    "inalu",
    "input_regularizer",
    "keep_weights",
    "nac",
    "nalu",
    "nau",
    "nmru",
    "nmu",
    "npu",
    "nru",
    "published",
    "real_npu",
    "regularizer",
    "snmu",
    "sparsity_error",
    "use_backend",
    "which_backend",
]


def __getattr__(name: str) -> Any:
    """What needs sympy, which is imported only then."""
    if name in ("Formula", "formula"):
        from . import formulas

        return getattr(formulas, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
