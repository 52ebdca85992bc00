"""NALU in plain PyTorch: equations 1 and 2 of Trask et al. 2018."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from .nac import weight


def nalu(
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    *,
    gate_bias: Tensor | None = None,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """:func:`nalu_kernels.nalu`: the same mathematics, arguments and shapes, nothing checked."""
    a, m, g = paths(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps)
    return g * a + (1 - g) * m


def gate(input: Tensor, G: Tensor, gate_bias: Tensor | None = None) -> Tensor:
    """g = sigmoid(input G^T + gate_bias): near 1 the output is the sum, near 0 the product."""
    return torch.sigmoid(linear(input, G, gate_bias))


def paths(
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    gate_bias: Tensor | None,
    W_hat_mul: Tensor | None,
    M_hat_mul: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What a NALU mixes: the sum a, the product m and the gate g."""
    W = weight(W_hat, M_hat)
    W_mul = W if W_hat_mul is None or M_hat_mul is None else weight(W_hat_mul, M_hat_mul)
    a = linear(input, W)
    m = torch.exp(linear(torch.log(torch.abs(input) + eps), W_mul))
    return a, m, gate(input, G, gate_bias)
