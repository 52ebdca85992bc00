"""The layers as torch.nn.Modules, a file each."""

from .cells import INALUCell, NACCell, NALUCell, NAUCell, NMUCell, RealNPUCell
from .gnalu import GNALU
from .inalu import INALU
from .keep import keep_weights
from .nac import NAC
from .nac_positive import NACNMU, NACSigma
from .nalu import NALU
from .nau import NAU
from .nmu import NMU
from .npu import NPU, RealNPU
from .nru import NMRU, NRU
from .rnn import NACRNN, NALURNN
from .snmu import SNMU
from .sparsity import sparsity_error
from .training import Ramp, Stairs, clamp_, clamp_after_step, input_regularizer, regularizer

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
    "clamp_",
    "clamp_after_step",
    "input_regularizer",
    "keep_weights",
    "regularizer",
    "sparsity_error",
]
