"""NAU in plain PyTorch: Madsen and Johansen 2020, "Neural Arithmetic Units", section 2.2."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear


def nau(input: Tensor, W: Tensor) -> Tensor:
    """:func:`nalu_kernels.nau`: the same mathematics, arguments and shapes, nothing checked."""
    return linear(input, torch.clamp(W, -1, 1))
