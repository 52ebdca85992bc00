"""G-NALU in plain PyTorch: a NALU whose tanh and sigmoids have the golden ratio for a base."""

from __future__ import annotations

import math

from torch import Tensor

from .nalu import nalu

# tanh and sigmoid to the base of the golden ratio are those of e of this times their argument.
LOG_GOLDEN_RATIO = math.log((1 + math.sqrt(5)) / 2)


def gnalu(input: Tensor, W_hat: Tensor, M_hat: Tensor, G: Tensor, *, eps: float = 1e-7) -> Tensor:
    """:func:`nalu_kernels.gnalu`: the same mathematics, arguments and shapes, nothing checked."""
    scaled = (LOG_GOLDEN_RATIO * tensor for tensor in (W_hat, M_hat, G))
    return nalu(input, *scaled, eps=eps)
