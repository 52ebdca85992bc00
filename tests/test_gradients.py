"""Gradients beyond parity: which are asked for, of what order, and what they keep in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
import torch
from torch import Generator, Tensor

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import reference
from parity import Judge
from selection import covering, long, only, pairs, slow

pytestmark = pairs

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
OWN_PRODUCTS, BLAS = (5, 3, 2), (3, 257, 256)


# How many tensors, each of which is asked for or not, stand in every combination somewhere.
TOGETHER = [pytest.param(2, id="pairs"), pytest.param(3, id="triples", marks=long)]


def combinations_of(names: Iterable[str]) -> list[dict[str, bool]]:
    """Whether each gradient is wanted."""
    names = list(names)
    return [
        dict(zip(names, wanted, strict=True))
        for wanted in itertools.product((False, True), repeat=len(names))
    ]


# By the interpreter large ones would take minutes; test_triton_rows.py has larger layers.
@only(lambda backend, shape: not backend.interpreted or shape == OWN_PRODUCTS)
@pytest.mark.parametrize("together", TOGETHER)
@pytest.mark.parametrize("shape", [OWN_PRODUCTS, BLAS], ids=["small", "large"])
@pytest.mark.parametrize(
    "kind", [BY_NAME["nac"], BY_NAME["nac_log_space"], FULLEST], ids=lambda kind: kind.name
)
def test_combinations_of_wanted_gradients(
    kind: Kind, shape: tuple[int, int, int], together: int, backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, shape, device=backend.device)
    judge = Judge(layer)
    combinations = combinations_of(layer.tensors)
    for i in covering(combinations, [1] * len(combinations), together):
        wanted = {name for name, is_wanted in combinations[i].items() if is_wanted}
        found = outcome(nalu_kernels, layer, wanted)
        assert set(found) == {"output", *wanted}
        assert not judge.faults(found), wanted


@slow(lambda backend, shape: backend.interpreted and shape == BLAS)
@pytest.mark.parametrize("shape", [OWN_PRODUCTS, BLAS], ids=["small", "large"])
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.gates is not None], ids=lambda kind: kind.name
)
def test_each_gradient_alone(
    kind: Kind, shape: tuple[int, int, int], backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, shape, device=backend.device)
    judge = Judge(layer)
    for name in layer.tensors:
        assert not judge.faults(outcome(nalu_kernels, layer, {name})), name


def smooth(rng: Generator, kind: Kind, backend: Backend) -> tuple[Layer, list[Tensor]]:
    """A float64 layer away from x = 0, where the derivative jumps, and its leaves."""
    layer = draw(rng, kind, (3, 2, 2), torch.float64, backend.device)
    x = layer.tensors["input"]
    layer = layer.with_(input=torch.where(x < 0, x - 0.5, x + 0.5))
    return layer, [tensor.detach().requires_grad_() for tensor in layer.tensors.values()]


@by_kind
def test_gradcheck(kind: Kind, backend: Backend, rng: Generator) -> None:
    layer, leaves = smooth(rng, kind, backend)

    def function(*tensors: Tensor) -> Tensor:
        return layer.call(nalu_kernels, **dict(zip(layer.tensors, tensors, strict=True)))

    fast = backend.interpreted  # in one random direction
    assert torch.autograd.gradcheck(function, leaves, fast_mode=fast)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=fast)


@by_kind
def test_double_backward(kind: Kind, backend: Backend, rng: Generator) -> None:
    """A penalty on the input's gradient, as in WGAN-GP, against autograd's own."""

    def penalty_gradients(module: object, layer: Layer) -> tuple[Tensor, ...]:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in layer.tensors.items()}
        output = layer.call(module, **leaves)
        (grad,) = torch.autograd.grad(output, leaves["input"], layer.grad_output, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), leaves.values(), materialize_grads=True)

    layer, _ = smooth(rng, kind, backend)
    found, expected = penalty_gradients(nalu_kernels, layer), penalty_gradients(reference, layer)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@by_kind
def test_second_backward_of_one_graph(kind: Kind, backend: Backend, rng: Generator) -> None:
    layer = draw(rng, kind, (7, 5, 3), device=backend.device)
    leaves = {name: tensor.requires_grad_() for name, tensor in layer.tensors.items()}
    output = layer.call(nalu_kernels, **leaves)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            output, list(leaves.values()), layer.grad_output, retain_graph=True
        )

    for first, second in zip(gradients(), gradients(), strict=True):
        assert torch.equal(first, second)


@by_kind
def test_gradients_accumulate(kind: Kind, backend: Backend, rng: Generator) -> None:
    layer = draw(rng, kind, (7, 5, 3), device=backend.device)
    once = outcome(nalu_kernels, layer)
    for tensor in layer.tensors.values():
        tensor.requires_grad_()
    for _ in range(2):
        layer.call(nalu_kernels).backward(layer.grad_output)
    for name, tensor in layer.tensors.items():
        assert torch.equal(tensor.grad, 2 * once[name])


@only(lambda backend: backend.has_kernels)
@slow(lambda backend, shape: backend.interpreted and shape[0] == 300)
@pytest.mark.parametrize("shape", [(64, 100, 30), (300, 257, 251)], ids=["small", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@by_kind
def test_memory_kept_for_the_backward(
    kind: Kind, shape: tuple[int, int, int], dtype: torch.dtype, backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, shape, dtype, backend.device)
    leaves = {name: tensor.requires_grad_() for name, tensor in layer.tensors.items()}
    inputs = {tensor.data_ptr() for tensor in leaves.values()}
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        if tensor.data_ptr() not in inputs:
            kept += tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer.call(nalu_kernels, **leaves)
    assert kept <= 3 * layer.grad_output.numel()
