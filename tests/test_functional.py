"""Parity: nac() and nalu(), their outputs and all their gradients, on fresh random layers."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Generator

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, KINDS, Kind, draw, outcome
from parity import Judge, check, threads
from selection import only, pairs, slow

pytestmark = pairs

PRIMES = (2, 3, 5, 7, 11, 13, 17, 31, 61, 97, 127, 211, 293)
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)

EDGES = [
    (0, 3, 2),
    (0, 300, 257),
    (2, 0, 3),
    (2, 3, 0),
    (0, 0, 0),
    (1, 1, 1),
    (300, 1, 1),
    (1, 300, 1),
    (1, 1, 300),
    (17, 1, 5),
    (17, 5, 1),
    (16, 16, 16),
    (33, 129, 49),
]
# Weights beyond what the CPU kernels multiply themselves (12288 of them), and to either side of it.
LARGE = [(3, 300, 257), (300, 257, 251), (64, 512, 512), (37, 96, 128), (37, 89, 137)]
# Many chunks of rows in the library's own products.
TALL = [(5000, 3, 2), (1031, 37, 61)]


def random_shape(rng: Generator) -> tuple[int, int, int]:
    """B, I, O: each up to 300, 1 and primes more often than others, and no large layer."""
    choose = random.Random(int(torch.randint(1 << 62, (), generator=rng)))
    while True:
        one = (lambda: 1, lambda: choose.choice(PRIMES), lambda: choose.randint(1, 300))
        B, I, O = (choose.choices(one, (1, 4, 5))[0]() for _ in range(3))  # noqa: E741
        if B * I * O <= 300_000:
            return B, I, O


@by_kind
def test_float32(kind: Kind, backend: Backend, rng: Generator) -> None:
    for _ in range(3 if backend.interpreted else 10):
        check(draw(rng, kind, random_shape(rng), device=backend.device))


@only(lambda backend, dtype: backend.computes(dtype))
@by_dtype
@by_kind
def test_other_dtypes(kind: Kind, dtype: torch.dtype, backend: Backend, rng: Generator) -> None:
    for _ in range(2 if backend.interpreted else 5):
        check(draw(rng, kind, random_shape(rng), dtype, backend.device))


@only(lambda backend, dtype: backend.computes(dtype))
@pytest.mark.parametrize("shape", EDGES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@by_kind
def test_edge_shapes(
    kind: Kind,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    backend: Backend,
    rng: Generator,
) -> None:
    check(draw(rng, kind, shape, dtype, backend.device))


# By the interpreter ten seconds each; test_triton_rows.py has large layers too.
@slow(lambda backend, shape: backend.interpreted and math.prod(shape) > 10**7)
@pytest.mark.parametrize("shape", LARGE + TALL, ids=str)
@by_kind
def test_large_layers(
    kind: Kind, shape: tuple[int, int, int], backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, shape, device=backend.device)
    judge = Judge(layer)
    with threads(2):
        found = outcome(nalu_kernels, layer)
    assert not judge.faults(found)


@only(lambda backend, dtype: backend.computes(dtype))
@by_dtype
@pytest.mark.parametrize(
    "kind", [BY_NAME["nac"], BY_NAME["nac_log_space"], FULLEST], ids=lambda kind: kind.name
)
def test_large_layers_of_other_dtypes(
    kind: Kind, dtype: torch.dtype, backend: Backend, rng: Generator
) -> None:
    for shape in (LARGE[0], TALL[0]):
        check(draw(rng, kind, shape, dtype, backend.device), backend.large_products(dtype))


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (2, 1, 3, 1), (2, 0, 3)], ids=str)
@by_kind
def test_leading_dimensions(
    kind: Kind, leading: tuple[int, ...], backend: Backend, rng: Generator
) -> None:
    rows = torch.Size(leading).numel()
    layer = draw(rng, kind, (rows, 5, 3), device=backend.device)
    check(
        layer.with_(
            input=layer.tensors["input"].reshape(*leading, 5),
            grad_output=layer.grad_output.reshape(*leading, 3),
        )
    )


@pytest.mark.parametrize("eps", [1e-30, 1e-7, 0.5, 1, 1e10])
@by_kind
def test_eps(kind: Kind, eps: float, backend: Backend, rng: Generator) -> None:
    layer = draw(rng, kind, (7, 3, 5), device=backend.device)
    layer.tensors["input"].clamp_(min=0.01)  # keeps the gradient with eps = 1e-30 finite
    layer.options["eps"] = eps
    check(layer)


@by_kind
def test_without_gradients(kind: Kind, backend: Backend, rng: Generator) -> None:
    for shape in ((7, 5, 3), LARGE[0]):
        layer = draw(rng, kind, shape, device=backend.device)
        judge = Judge(layer)
        plain = layer.call(nalu_kernels)
        assert not plain.requires_grad
        assert not judge.faults({"output": plain})
        recorded = outcome(nalu_kernels, layer)["output"]
        for guard in (torch.no_grad, torch.inference_mode):
            with guard():
                assert torch.equal(layer.call(nalu_kernels), recorded)
