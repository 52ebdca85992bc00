"""iNALU in plain PyTorch: Schlör, Ring and Hotho 2020, "iNALU: Improved Neural Arithmetic Logic
Unit"."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from .nac import weight
from .product import product


def inalu(
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    g: Tensor,
    *,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
    eps: float = 1e-7,
    omega: float = 20.0,
    per_sample: bool = False,
) -> Tensor:
    """:func:`nalu_kernels.inalu`: the same mathematics, arguments and shapes, nothing checked."""
    a, m, s, gate = inalu_paths(
        input, W_hat, M_hat, g, W_hat_mul, M_hat_mul, eps, omega, per_sample
    )
    return gate * a + (1 - gate) * m * s


def inalu_paths(
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    g: Tensor,
    W_hat_mul: Tensor | None,
    M_hat_mul: Tensor | None,
    eps: float,
    omega: float,
    per_sample: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What an iNALU mixes: the sum a, the product's size m, its sign s and the gate."""
    W = weight(W_hat, M_hat)
    W_mul = W if W_hat_mul is None or M_hat_mul is None else weight(W_hat_mul, M_hat_mul)
    size = torch.abs(input)
    # As in the authors' code.
    log = torch.log(size + eps if per_sample else torch.clamp(size, min=eps))
    m = torch.exp(torch.clamp(linear(log, W_mul), max=omega))
    gate = torch.sigmoid(g if g.dim() == 1 else linear(size, g))
    return linear(input, W), m, signs(input, W_mul), gate


def signs(input: Tensor, W: Tensor) -> Tensor:
    """The sign of each product: of an input 1 where it is positive, 1 - 2|w| where negative."""
    part = torch.abs(W)
    return product(torch.sign(input).unsqueeze(-2) * part + (1 - part))
