"""NPU and RealNPU in plain PyTorch: Heim, Pevný and Šmídl 2020, "Neural Power Units"."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import linear


def npu(
    input: Tensor,
    W_re: Tensor,
    W_im: Tensor,
    g: Tensor,
    *,
    eps: float | None = None,
    straight_through: bool = True,
) -> Tensor:
    """:func:`nalu_kernels.npu`: the same mathematics, arguments and shapes, nothing checked."""
    log, angle = _polar(input, g, eps, straight_through)
    size = torch.exp(linear(log, W_re) - linear(angle, W_im))
    return size * torch.cos(linear(angle, W_re) + linear(log, W_im))


def real_npu(
    input: Tensor,
    W_re: Tensor,
    g: Tensor,
    *,
    eps: float | None = None,
    straight_through: bool = True,
) -> Tensor:
    """:func:`nalu_kernels.real_npu`: the same mathematics and arguments, nothing checked."""
    log, angle = _polar(input, g, eps, straight_through)
    return torch.exp(linear(log, W_re)) * torch.cos(linear(angle, W_re))


def _polar(
    input: Tensor, g: Tensor, eps: float | None, straight_through: bool
) -> tuple[Tensor, Tensor]:
    """The logarithm of the gated input's size, and its angle: pi where it is negative."""
    gate = torch.clamp(g, 0, 1)
    if straight_through:
        gate = gate.detach() + (g - g.detach())
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    log = torch.log(gate * (torch.abs(input) + eps) + (1 - gate))
    return log, math.pi * gate * (input < 0).to(input.dtype)
