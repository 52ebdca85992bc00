"""torch.func and forward-mode AD: the reference runs, whichever back end is chosen.
And what calls a backward in unusual ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, func
from torch.autograd import forward_ad

import nalu_kernels
from conftest import Backend
from layers import KINDS, Kind, Layer, draw, outcome
from nalu_kernels import NAC, NALU, reference
from selection import pairs

pytestmark = pairs

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture
def layer(kind: Kind, backend: Backend, rng: Generator) -> Layer:
    return draw(rng, kind, (5, 4, 3), torch.float64, backend.device)


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])


@by_kind
def test_grad(layer: Layer) -> None:
    def loss(tensors: dict[str, Tensor]) -> Tensor:
        return (layer.call(nalu_kernels, **tensors) * layer.grad_output).sum()

    expected = outcome(reference, layer)
    del expected["output"]
    close(func.grad(loss)(layer.tensors), expected)


@by_kind
def test_vmap(layer: Layer) -> None:
    def one(row: Tensor) -> Tensor:
        return layer.call(nalu_kernels, input=row)

    torch.testing.assert_close(func.vmap(one)(layer.tensors["input"]), layer.call(reference))


@by_kind
def test_vmap_over_parameters(layer: Layer) -> None:
    def one(W_hat: Tensor) -> Tensor:
        return layer.call(nalu_kernels, W_hat=W_hat)

    W_hats = torch.stack([layer.tensors["W_hat"], layer.tensors["M_hat"]])
    expected = torch.stack([layer.call(reference, W_hat=W_hat) for W_hat in W_hats])
    torch.testing.assert_close(func.vmap(one)(W_hats), expected)


@by_kind
def test_jvp(layer: Layer) -> None:
    names, tensors = list(layer.tensors), tuple(layer.tensors.values())
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)

    def through(module: object) -> tuple[Tensor, Tensor]:
        def function(*given: Tensor) -> Tensor:
            return layer.call(module, **dict(zip(names, given, strict=True)))

        return func.jvp(function, tensors, tangents)

    for found, expected in zip(through(nalu_kernels), through(reference), strict=True):
        torch.testing.assert_close(found, expected)


@by_kind
def test_forward_mode(layer: Layer) -> None:
    x, tangent = layer.tensors["input"], torch.randn_like(layer.tensors["input"])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        found, expected = (
            forward_ad.unpack_dual(layer.call(module, input=dual))
            for module in (nalu_kernels, reference)
        )
    torch.testing.assert_close(found.primal, expected.primal)
    torch.testing.assert_close(found.tangent, expected.tangent)


@by_kind
def test_hessian(layer: Layer) -> None:
    def through(module: object) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return (layer.call(module, input=x) * layer.grad_output[0]).sum()

        return func.hessian(loss)(layer.tensors["input"][0] + 20)

    torch.testing.assert_close(through(nalu_kernels), through(reference))


@by_kind
@pytest.mark.parametrize("jacobian", [func.jacrev, func.jacfwd], ids=["jacrev", "jacfwd"])
def test_jacobians(layer: Layer, jacobian: Any) -> None:
    """Of every tensor at once."""
    names, tensors = list(layer.tensors), tuple(layer.tensors.values())

    def through(module: object) -> tuple[Tensor, ...]:
        def function(*given: Tensor) -> Tensor:
            return layer.call(module, **dict(zip(names, given, strict=True)))

        return jacobian(function, argnums=tuple(range(len(names))))(*tensors)

    for found, expected in zip(through(nalu_kernels), through(reference), strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_of_each_sample(backend: Backend, rng: Generator) -> None:
    """By functional_call and vmap(grad), against one backward for each sample."""
    model = torch.nn.Sequential(NALU(4, 3, gate_bias=True), NAC(3, 1)).to(backend.device).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x = torch.rand(5, 4, generator=rng, dtype=torch.float64).to(backend.device)

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return func.functional_call(model, parameters, (row,)).square().sum()

    found = func.vmap(func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i, row in enumerate(x):
        model.zero_grad()
        model(row).square().sum().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found[name][i], parameter.grad)


@by_kind
def test_batched_output_gradients(layer: Layer) -> None:
    """As in a vectorised Jacobian: the backward alone runs under vmap."""
    x = layer.tensors["input"].requires_grad_()
    grads = torch.randn(6, *layer.grad_output.shape, dtype=x.dtype, device=x.device)
    found, expected = (
        torch.autograd.grad(layer.call(module), x, grads, is_grads_batched=True)[0]
        for module in (nalu_kernels, reference)
    )
    torch.testing.assert_close(found, expected)
