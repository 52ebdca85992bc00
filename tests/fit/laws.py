"""Tables that obey a law."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from nalu_kernels.fit import Table


def drawn(
    rng: Generator,
    law: Callable[..., Tensor],
    *,
    inputs: int = 3,
    rows: int = 120,
    low: float = 1.0,
    high: float = 4.0,
) -> Table:
    """``law`` of the columns a, b, c and so on, uniform from ``low`` to ``high``; it takes as many
    of them as it has arguments."""
    x = low + (high - low) * torch.rand(rows, inputs, generator=rng, dtype=torch.float64)
    y = law(*x.unbind(1)[: law.__code__.co_argcount])
    return Table(tuple("abcdefgh"[:inputs]), "y", x, y)
