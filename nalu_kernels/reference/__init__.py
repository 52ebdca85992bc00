"""The definition of truth: NAC and NALU in plain PyTorch, differentiable any number of times.

Every kernel of this library is tested against these functions in float64. They are also the back
end of last resort: any device, any floating dtype, no compiled code.

Source: A. Trask, F. Hill, S. Reed, J. Rae, C. Dyer, P. Blunsom, "Neural Arithmetic Logic Units",
NeurIPS 2018, section 3 (https://arxiv.org/abs/1808.00508).
"""

from .nac import nac, weight
from .nalu import gate, nalu, paths

__all__ = ["gate", "nac", "nalu", "paths", "weight"]
