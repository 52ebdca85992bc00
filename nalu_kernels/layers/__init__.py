"""The layers as torch.nn.Modules, a file each."""

from .cells import NACCell, NALUCell
from .nac import NAC
from .nalu import NALU
from .sparsity import sparsity_error

__all__ = ["NAC", "NALU", "NACCell", "NALUCell", "sparsity_error"]
