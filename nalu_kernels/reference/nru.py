"""NRU and NMRU in plain PyTorch: Mistry, Farrahi and Hare 2022, "Exploring the Learning Mechanisms
of Neural Division Modules"."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import linear

from .product import product


def nru(input: Tensor, W: Tensor, *, training: bool = False) -> Tensor:
    """:func:`nalu_kernels.nru`: the same mathematics, arguments and shapes, nothing checked."""
    part = torch.tanh(1000 * W) ** 2 if training else torch.abs(W)
    sign = torch.where(input < 0, -1, 1).to(input.dtype)
    # |x|, of slope 1 at 0; -0.0 becomes 0.0, whose reciprocal is positive.
    size = (input * sign + 0).unsqueeze(-2)
    return product(part * (sign.unsqueeze(-2) * torch.pow(size, W)) + (1 - part))


def nmru(input: Tensor, W: Tensor, *, eps: float = 0.0) -> Tensor:
    """:func:`nalu_kernels.nmru`: the same mathematics, arguments and shapes, nothing checked."""
    size, angle = nmru_paths(input, W, eps)
    return size * torch.cos(angle)


def nmru_paths(input: Tensor, W: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The product of the sizes, and pi times the weights of what is negative."""
    shifted = input + eps
    zero = shifted == 0  # whose reciprocal is infinite and has no slope
    reciprocal = torch.where(zero, torch.inf, 1 / torch.where(zero, 1, shifted))
    X = torch.cat((input, reciprocal), dim=-1)
    size = torch.abs(X).unsqueeze(-2)
    size = torch.where(
        torch.isinf(size) & (W == 0), 1, size
    )  # 1/0 matters to whom it is selected by
    factors = W * size + (1 - W)
    return product(factors), linear(math.pi * (X < 0).to(X.dtype), W)
