"""The layers as functions, a file each; ``call.py`` is the way that all of them take."""

from .nac import nac
from .nalu import nalu

__all__ = ["nac", "nalu"]
