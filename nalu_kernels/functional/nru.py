"""nru() and nmru(): the NRU and the NMRU as functions."""

from __future__ import annotations

from torch import Tensor

from .. import reference


def nru(input: Tensor, W: Tensor, *, training: bool = False) -> Tensor:
    """The NRU, for now by the reference."""
    return reference.nru(input, W, training=training)


def nmru(input: Tensor, W: Tensor, *, eps: float = 0.0) -> Tensor:
    """The NMRU, for now by the reference."""
    return reference.nmru(input, W, eps=eps)
