"""The product over the last dimension, whose gradients are right where factors are 0."""

from __future__ import annotations

import torch
from torch import Tensor


def product(factors: Tensor) -> Tensor:
    """Pairs of halves are multiplied until one is left: autograd passes on the product of the
    others, and never divides by a factor. An empty product is 1."""
    count = factors.shape[-1]
    if count == 0:
        return factors.sum(-1) + 1  # not ones, which would have no gradient to pass on
    while count > 1:
        half = count // 2
        pairs = factors[..., :half] * factors[..., half : 2 * half]
        odd = factors[..., 2 * half :]
        factors = torch.cat((pairs, odd), dim=-1) if count % 2 else pairs
        count -= half
    return factors.squeeze(-1)
