"""The same bits from every run, every number of threads and every caller."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from torch import Generator, Tensor

import nalu_kernels
from conftest import Backend
from layers import KINDS, Kind, draw, outcome
from parity import threads
from selection import only, pairs, slow

pytestmark = pairs

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
# Summed by the library's own code; the first ones by one thread, the last ones by several.
OWN = [
    (1, 1, 1),
    (7, 31, 5),
    (64, 2, 1),
    (128, 100, 100),
    (128, 100, 2),
    (5000, 3, 2),
    (811, 37, 61),
    (70001, 31, 1),
]
BLAS = [(3, 257, 256), (300, 257, 251)]


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@only(lambda backend: backend.name == "cpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@by_kind
def test_every_number_of_threads(
    kind: Kind, dtype: torch.dtype, backend: Backend, rng: Generator
) -> None:
    for shape in OWN:
        layer = draw(rng, kind, shape, dtype, backend.device)
        expected = outcome(nalu_kernels, layer)
        for count in (2, 3, 4):
            with threads(count):
                assert same_bits(outcome(nalu_kernels, layer), expected), (shape, count)


@slow(lambda backend, shape: backend.interpreted and shape in BLAS)
@pytest.mark.parametrize("shape", OWN[:5] + BLAS, ids=str)
@by_kind
def test_every_run(
    kind: Kind, shape: tuple[int, int, int], backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, shape, device=backend.device)
    expected = outcome(nalu_kernels, layer)
    for _ in range(1 if backend.interpreted else 3):
        # Elsewhere in memory, as in another run.
        again = layer.map(torch.clone)
        assert same_bits(outcome(nalu_kernels, again), expected)


@only(lambda backend: backend.own_sums)
@pytest.mark.parametrize("shape", [(37, 19, 21), (37, 19, 3), (37, 5, 2), (37, 2, 1)], ids=str)
@by_kind
def test_every_row_and_column_alike(
    kind: Kind, shape: tuple[int, int, int], backend: Backend, rng: Generator
) -> None:
    """Where in a batch a row stands, and in a layer an output, changes no bit of it."""
    B, _, O = shape  # noqa: E741
    layer = draw(rng, kind, shape, device=backend.device)
    output = layer.call(nalu_kernels)
    rows, columns = (torch.randperm(size, generator=rng).to(backend.device) for size in (B, O))
    new = {
        name: tensor[columns] if len(tensor) == O else tensor
        for name, tensor in layer.tensors.items()
    }
    new["input"] = layer.tensors["input"][rows]
    assert torch.equal(layer.call(nalu_kernels, **new), output[rows][:, columns])


@only(lambda backend: not backend.interpreted)
@by_kind
def test_callers_in_several_threads(kind: Kind, backend: Backend, rng: Generator) -> None:
    layers = [draw(rng, kind, shape, device=backend.device) for shape in OWN[:6] * 3]
    expected = [outcome(nalu_kernels, layer) for layer in layers]

    def work(layer: object) -> dict[str, Tensor]:
        # Both hold for the current thread alone. torch's BLAS may sum otherwise with more threads.
        alone = threads(1) if backend.name == "reference" else nullcontext()
        with nalu_kernels.use_backend(backend.name), alone:
            return outcome(nalu_kernels, layer)

    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(work, layers), expected, strict=True):
            assert same_bits(found, wanted)
