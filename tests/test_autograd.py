"""Gradients that can be differentiated again, of arguments that depend on one another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import nalu_kernels
from nalu_kernels import reference
from nalu_kernels.autograd import with_gradients

CASES: dict[str, Callable[[object, Tensor, Tensor], Tensor]] = {
    "M_hat is W_hat": lambda f, x, w: f.nac(x, w, w),
    "M_hat from W_hat": lambda f, x, w: f.nac(x, w, 2 * w),
    "W_hat from input": lambda f, x, w: f.nac(x, w + x.mean(0), w, log_space=True),
    "G is W_hat": lambda f, x, w: f.nalu(x, w, w * w, w),
    "all from one": lambda f, x, w: f.nalu(
        x, w, w.sin(), w.cos(), gate_bias=w.sum(1), W_hat_mul=w, M_hat_mul=2 * w
    ),
    "recurrent": lambda f, x, w: f.nac(f.nac(f.nac(x, w, w.cos()), w, w.cos()), w, w.cos()),
    "recurrent gate": lambda f, x, w: f.nalu(f.nalu(x, w, w, w), w, w, w),
}


@pytest.mark.parametrize("name", CASES)
def test_create_graph_of_related_arguments(name: str, backend: tuple[str, str]) -> None:
    """First and second order, against autograd through the reference alone."""
    torch.manual_seed(0)
    device = backend[1]
    start = (
        torch.randn(5, 4, dtype=torch.float64, device=device),
        torch.randn(4, 4, dtype=torch.float64, device=device) / 2,
    )

    def orders(module: object) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in start]
        first = torch.autograd.grad(
            CASES[name](module, *leaves).square().sum(), leaves, create_graph=True
        )
        second = torch.autograd.grad(sum(grad.square().sum() for grad in first), leaves)
        return [*first, *second]

    for found, wanted in zip(orders(nalu_kernels), orders(reference), strict=True):
        torch.testing.assert_close(found, wanted)


def test_nothing_is_saved_for_a_gradient_that_nobody_wants() -> None:
    saves = []

    class Recording:
        def forward(self, eps: float, save: bool, x: Tensor, *_: Tensor) -> tuple[Tensor, None]:
            saves.append(save)
            return x.new_empty(x.shape), None

    tensors = [torch.ones(2, 2) for _ in range(4)]
    with_gradients["nalu"](Recording(), 1e-7, *tensors)
    with_gradients["nalu"](Recording(), 1e-7, *tensors[:3], tensors[3].requires_grad_())
    assert saves == [False, True]
