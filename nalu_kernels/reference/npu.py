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
    size, angle = power(input, W_re, g, W_im, eps, straight_through)
    return size * torch.cos(angle)


def real_npu(
    input: Tensor,
    W_re: Tensor,
    g: Tensor,
    *,
    eps: float | None = None,
    straight_through: bool = True,
) -> Tensor:
    """:func:`nalu_kernels.real_npu`: the same mathematics and arguments, nothing checked."""
    size, angle = power(input, W_re, g, None, eps, straight_through)
    return size * torch.cos(angle)


def power(
    input: Tensor,
    W_re: Tensor,
    g: Tensor,
    W_im: Tensor | None,
    eps: float | None,
    straight_through: bool,
) -> tuple[Tensor, Tensor]:
    """Size and angle of the complex product, whose real part is the output."""
    # Of the gated inputs: the logarithm of the size, and pi where one is negative.
    gate = torch.clamp(g, 0, 1)
    if straight_through:
        gate = gate.detach() + (g - g.detach()).nan_to_num()  # of an infinite one 0, without slope
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    log = torch.log(gate * (torch.abs(input) + eps) + (1 - gate))
    angle = math.pi * gate * (input < 0).to(input.dtype)
    if W_im is None:
        return torch.exp(linear(log, W_re)), linear(angle, W_re)
    size = torch.exp(linear(log, W_re) - linear(angle, W_im))
    return size, linear(angle, W_re) + linear(log, W_im)
