"""The layers as functions, a file each; ``call.py`` is the way that all of them take."""

from .gnalu import gnalu
from .inalu import inalu
from .nac import nac
from .nalu import nalu
from .nau import nau
from .nmu import nmu
from .npu import npu, real_npu
from .nru import nmru, nru
from .snmu import snmu

__all__ = [
    "gnalu",
    "inalu",
    "nac",
    "nalu",
    "nau",
    "nmru",
    "nmu",
    "npu",
    "nru",
    "real_npu",
    "snmu",
]
