"""npu() and real_npu(): the NPU and the RealNPU as functions."""

from __future__ import annotations

from torch import Tensor

from .. import reference


def npu(
    input: Tensor,
    W_re: Tensor,
    W_im: Tensor,
    g: Tensor,
    *,
    eps: float | None = None,
    straight_through: bool = True,
) -> Tensor:
    """The NPU, for now by the reference."""
    return reference.npu(input, W_re, W_im, g, eps=eps, straight_through=straight_through)


def real_npu(
    input: Tensor,
    W_re: Tensor,
    g: Tensor,
    *,
    eps: float | None = None,
    straight_through: bool = True,
) -> Tensor:
    """The RealNPU, for now by the reference."""
    return reference.real_npu(input, W_re, g, eps=eps, straight_through=straight_through)
