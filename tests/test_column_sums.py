"""The gradient of the gate's bias, the one plain sum over the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

import nalu_kernels
from conftest import Backend
from selection import only


# A few draws of the other back ends, which are emulated, would tell nothing.
@only(lambda backend: backend.name == "cpu")
@pytest.mark.parametrize("gates", [1, 2, 5, 100])
@pytest.mark.parametrize("rows", [64, 128, 1000, 5000])
def test_errs_no_more_than_torch_sum(
    rows: int, gates: int, backend: Backend, rng: Generator
) -> None:
    """At most 1.1 times as much, as the root mean square over many draws.

    With weights and gate of 0 the paths give a = 0 and m = 1 and the gate is 1/2, all exactly, so
    that the bias receives -sum(grad_output) / 4 and nothing but the sum can err.
    """
    zeros = torch.zeros(gates, 1)
    bias = torch.zeros(gates, requires_grad=True)
    y = nalu_kernels.nalu(torch.ones(rows, 1), zeros, zeros, zeros, gate_bias=bias)
    ours, eager = torch.zeros(2, dtype=torch.float64)
    for _ in range(2000 // gates):
        grad_output = torch.randn(rows, gates, generator=rng)
        (found,) = torch.autograd.grad(y, bias, grad_output, retain_graph=True)
        truth = grad_output.double().sum(0) / -4
        ours += (found - truth).square().sum()
        eager += ((grad_output / -4).sum(0) - truth).square().sum()
    assert ours.sqrt() <= 1.1 * eager.sqrt()
