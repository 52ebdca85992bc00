"""The definition of truth: the layers in plain PyTorch, differentiable any number of times.

Every kernel of this library is tested against these functions in float64. They are also the back
end of last resort: any device, any floating dtype, no compiled code. Each file names its source.
"""

from .gnalu import gnalu
from .inalu import inalu, inalu_paths
from .nac import nac, weight
from .nalu import gate, nalu, paths
from .nau import nau
from .nmu import nmu, snmu
from .npu import npu, power, real_npu
from .nru import nmru, nmru_paths, nru

__all__ = [
    "gate",
    "gnalu",
    "inalu",
    "inalu_paths",
    "nac",
    "nalu",
    "nau",
    "nmru",
    "nmru_paths",
    "nmu",
    "npu",
    "nru",
    "paths",
    "power",
    "real_npu",
    "snmu",
    "weight",
]
