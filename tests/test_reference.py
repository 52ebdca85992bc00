"""The definition of truth against numpy, scalar loops and numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from layers import FULLEST, KINDS, Kind, draw
from nalu_kernels import reference


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def weight(W_hat: np.ndarray, M_hat: np.ndarray) -> np.ndarray:
    return np.tanh(W_hat) / (1 + np.exp(-M_hat))


def by_loops(kind: Kind, eps: float, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """The formulas of Trask et al. for one output at a time."""
    x, W = tensors["input"], weight(tensors["W_hat"], tensors["M_hat"])
    W_mul = weight(tensors["W_hat_mul"], tensors["M_hat_mul"]) if kind.untied else W
    y = np.empty((len(x), len(W)))
    for b, o in itertools.product(range(len(x)), range(len(W))):
        a = math.fsum(x[b] * W[o])
        logs = [math.log(abs(v) + eps) for v in x[b]]
        m = math.exp(math.fsum(logs * W_mul[o]))
        if kind.function == "nac":
            y[b, o] = m if kind.log_space else a
            continue
        gate = o if kind.gates == "output" else 0
        z = math.fsum(x[b] * tensors["G"][gate])
        g = sigmoid(z + (tensors["gate_bias"][gate] if kind.bias else 0))
        y[b, o] = g * a + (1 - g) * m
    return y


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_against_loops(kind: Kind, rng: Generator) -> None:
    layer = draw(rng, kind, (7, 5, 3), torch.float64)
    arrays = {name: tensor.numpy() for name, tensor in layer.tensors.items()}
    expected = by_loops(kind, layer.options["eps"], arrays)
    np.testing.assert_allclose(layer.call(reference).numpy(), expected, rtol=1e-11, atol=1e-13)


# W = tanh(40) sigmoid(40) is 1 to the last bit.
ONE = 40.0
A, B, C = [3.0, 4.0], [5.0, -2.0], [-0.5, 8.0]


def row(*signs: int) -> tuple[Tensor, Tensor]:
    """W_hat and M_hat of one output whose weights are -1, 0 or 1."""
    W_hat = ONE * torch.tensor([signs], dtype=torch.float64)
    return W_hat, torch.full_like(W_hat, ONE)


@pytest.mark.parametrize(
    ("signs", "expected"),
    [((1, 1), [7, 3, 7.5]), ((1, -1), [-1, 7, -8.5]), ((0, 1), [4, -2, 8]), ((0, 0), [0, 0, 0])],
)
def test_sums_by_hand(signs: tuple[int, int], expected: list[float]) -> None:
    x = torch.tensor([A, B, C], dtype=torch.float64)
    assert reference.nac(x, *row(*signs)).flatten().tolist() == expected


@pytest.mark.parametrize(
    ("signs", "expected"),
    [((1, 1), [12, 10, 4]), ((1, -1), [0.75, 2.5, 0.0625]), ((0, 1), [4, 2, 8]), ((0, 0), [1] * 3)],
)
def test_products_by_hand(signs: tuple[int, int], expected: list[float]) -> None:
    """Of magnitudes: the sign of a factor is lost in log |x|."""
    x = torch.tensor([A, B, C], dtype=torch.float64)
    found = reference.nac(x, *row(*signs), log_space=True, eps=1e-15)
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [(ONE, [7, 3, 7.5]), (-ONE, [12, 10, 4]), (0.0, [9.5, 6.5, 5.75])],
)
def test_gate_by_hand(bias: float, expected: list[float]) -> None:
    """Open, shut, and half open."""
    x = torch.tensor([A, B, C], dtype=torch.float64)
    G, gate_bias = torch.zeros(1, 2).double(), torch.tensor([bias]).double()
    found = reference.nalu(x, *row(1, 1), G, gate_bias=gate_bias, eps=1e-15)
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_weights_of_the_product_alone() -> None:
    x = torch.tensor([A], dtype=torch.float64)
    W_hat_mul, M_hat_mul = row(1, -1)
    tensors = (x, *row(1, 1), torch.zeros(1, 2).double())
    found = reference.nalu(*tensors, W_hat_mul=W_hat_mul, M_hat_mul=M_hat_mul, eps=1e-15)
    assert found.item() == pytest.approx((7 + 0.75) / 2, rel=1e-12)


def test_zero_input_is_a_power_of_eps() -> None:
    x = torch.zeros(1, 2, dtype=torch.float64)
    found = reference.nac(x, *row(1, 1), log_space=True, eps=1e-3)
    assert found.item() == pytest.approx(1e-6, rel=1e-12)


def test_gradient_at_zero_takes_the_sign_to_be_zero() -> None:
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    reference.nac(x, *row(1, 1), log_space=True).sum().backward()
    assert x.grad.tolist() == [[0, 0]]


def test_gradients_by_hand() -> None:
    """One factor: y = w x with w = tanh(0.5) sigmoid(0.25), and its derivatives."""
    tensors = [torch.tensor([[v]], dtype=torch.float64) for v in (3.0, 0.5, 0.25)]
    x, W_hat, M_hat = (tensor.requires_grad_() for tensor in tensors)
    reference.nac(x, W_hat, M_hat).backward()
    t, s = math.tanh(0.5), sigmoid(0.25)
    assert x.grad.item() == pytest.approx(t * s, rel=1e-14)
    assert W_hat.grad.item() == pytest.approx(3 * s * (1 - t * t), rel=1e-14)
    assert M_hat.grad.item() == pytest.approx(3 * t * s * (1 - s), rel=1e-14)


def test_any_number_of_derivatives(rng: Generator) -> None:
    layer = draw(rng, FULLEST, (2, 2, 2), torch.float64)
    x = (layer.tensors["input"].abs() + 1).requires_grad_()
    value = layer.call(reference, input=x).sum()
    for _ in range(3):
        (grad,) = torch.autograd.grad(value, x, create_graph=True)
        value = grad.sum()
    assert value.isfinite() and value.item() != 0
