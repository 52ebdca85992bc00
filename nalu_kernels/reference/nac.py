"""NAC in plain PyTorch: equation 1 of Trask et al. 2018, and the log-space path of equation 2."""

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
