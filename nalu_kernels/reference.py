"""The definition of truth: NAC and NALU in plain PyTorch, differentiable any number of times.

Every kernel of this library is tested against these two functions in float64. They are also
the back end of last resort: any device, any floating dtype, no compiled code.

Source: A. Trask, F. Hill, S. Reed, J. Rae, C. Dyer, P. Blunsom, "Neural Arithmetic Logic Units",
NeurIPS 2018, section 3 (https://arxiv.org/abs/1808.00508).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear


def weight(W_hat: Tensor, M_hat: Tensor) -> Tensor:
    """W = tanh(W_hat) * sigmoid(M_hat), elementwise: each weight in (-1, 1), pulled to -1, 0, 1."""
    return torch.tanh(W_hat) * torch.sigmoid(M_hat)


def nac(
    input: Tensor, W_hat: Tensor, M_hat: Tensor, *, log_space: bool = False, eps: float = 1e-7
) -> Tensor:
    """:func:`nalu_kernels.nac`: the same mathematics, arguments and shapes, nothing checked."""
    W = weight(W_hat, M_hat)
    if log_space:
        return torch.exp(linear(torch.log(torch.abs(input) + eps), W))
    return linear(input, W)


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
    g = torch.sigmoid(linear(input, G, gate_bias))
    return a, m, g
