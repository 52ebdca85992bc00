"""snmu(): the stochastic NMU as a function."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference


def snmu(
    input: Tensor,
    W: Tensor,
    *,
    noise: tuple[float, float] | str = (1.0, 5.0),
    seed: int | None = None,
) -> Tensor:
    """The stochastic NMU, for now by the reference."""
    generator = None if seed is None else torch.Generator(input.device).manual_seed(seed)
    low, high = (1.0, 1 + float(1 / input.std())) if isinstance(noise, str) else noise
    drawn = torch.empty_like(input, requires_grad=False).uniform_(low, high, generator=generator)
    return reference.snmu(input, W, drawn)
