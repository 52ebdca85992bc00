"""gnalu(): the G-NALU as a function."""

from __future__ import annotations

from torch import Tensor

from ..reference.gnalu import LOG_GOLDEN_RATIO
from .nalu import nalu


def gnalu(input: Tensor, W_hat: Tensor, M_hat: Tensor, G: Tensor, *, eps: float = 1e-7) -> Tensor:
    """The G-NALU: a NALU of scaled parameters."""
    scaled = (LOG_GOLDEN_RATIO * tensor for tensor in (W_hat, M_hat, G))
    return nalu(input, *scaled, eps=eps)
