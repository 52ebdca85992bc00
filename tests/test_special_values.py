"""Zeros, subnormals, huge numbers, infinities and NaNs leave what eager PyTorch leaves."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

import nalu_kernels
from conftest import Backend
from layers import KINDS, Kind, Layer, draw, outcome
from parity import Judge, check
from selection import only, pairs

pytestmark = pairs

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
inf, nan = torch.inf, torch.nan

# tiny, subnormal, huge
SCALES = {
    torch.float32: (1e-30, 1e-40, 1e30),
    torch.float64: (1e-250, 1e-310, 1e250),
    torch.bfloat16: (1e-30, 1e-39, 1e30),
}


def specials(dtype: torch.dtype) -> tuple[float, ...]:
    return 0.0, -0.0, inf, -inf, nan, *(s * v for v in SCALES[dtype] for s in (1, -1))


def sprinkle(rng: Generator, tensor: Tensor, values: tuple[float, ...]) -> Tensor:
    """``tensor`` with few or many of its elements, at random, replaced by some of ``values``."""
    share = torch.tensor([0.05, 0.2, 0.6])[torch.randint(3, (), generator=rng)]
    chosen = torch.randint(len(values), tensor.shape, generator=rng)
    replaced = torch.rand(tensor.shape, generator=rng) < share
    return torch.where(replaced, torch.tensor(values, dtype=torch.float64)[chosen], tensor)


def judged(layer: Layer) -> bool:
    """Whether the rule can judge this layer; if so, it must obey it."""
    judge = Judge(layer)
    if judge.near_cliff:
        return False
    faults = judge.faults(outcome(nalu_kernels, layer))
    assert not faults, "\n".join([*faults, str(layer)])
    return True


def check_sprinkled(
    rng: Generator, kind: Kind, dtype: torch.dtype, backend: Backend, *places: str
) -> None:
    """Small layers with special values in ``places``; every weight is one."""
    wanted, tries = 5 if backend.interpreted else 20, 0
    while wanted:
        tries += 1
        assert tries < 2000, "hardly any layer that the rule can judge"
        B, I, O = torch.randint(1, 7, (3,), generator=rng).tolist()  # noqa: E741
        layer = draw(rng, kind, (B, I, O), torch.float64)
        names = {"input", "grad_output"} & set(places)
        if "parameters" in places:
            names |= set(layer.tensors) - {"input"}
        new = {}
        for name in sorted(names):
            tensor = layer.grad_output if name == "grad_output" else layer.tensors[name]
            values = specials(dtype) if name in places else (0.0, 30.0, -30.0, inf, -inf, nan)
            new[name] = sprinkle(rng, tensor, values)
        layer = layer.with_(**new)
        wanted -= judged(layer.map(lambda tensor: tensor.to(dtype).to(backend.device)))


@only(lambda backend, dtype: backend.computes(dtype))
@by_dtype
@by_kind
def test_special_inputs(kind: Kind, dtype: torch.dtype, backend: Backend, rng: Generator) -> None:
    check_sprinkled(rng, kind, dtype, backend, "input")


@only(lambda backend, dtype: backend.computes(dtype))
@by_dtype
@by_kind
def test_special_parameters(
    kind: Kind, dtype: torch.dtype, backend: Backend, rng: Generator
) -> None:
    check_sprinkled(rng, kind, dtype, backend, "parameters")


@only(lambda backend, dtype: backend.computes(dtype))
@by_dtype
@by_kind
def test_special_output_gradients(
    kind: Kind, dtype: torch.dtype, backend: Backend, rng: Generator
) -> None:
    check_sprinkled(rng, kind, dtype, backend, "grad_output")


@by_kind
def test_special_values_everywhere(kind: Kind, backend: Backend, rng: Generator) -> None:
    check_sprinkled(rng, kind, torch.float32, backend, "input", "parameters", "grad_output")


@by_kind
def test_negative_inputs(kind: Kind, backend: Backend, rng: Generator) -> None:
    layer = draw(rng, kind, (31, 7, 5), device=backend.device)
    check(layer.with_(input=-layer.tensors["input"].abs()))


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30, 1e-40, 1e30])
@by_kind
def test_constant_inputs(kind: Kind, value: float, backend: Backend, rng: Generator) -> None:
    """Every lane of a vector and what is left of it, in small layers and in large ones."""

    def constant(shape: tuple[int, int, int]) -> Layer:
        layer = draw(rng, kind, shape, device=backend.device)
        layer.tensors["input"].fill_(value)
        for name in {"W_hat", "W_hat_mul"} & set(layer.tensors):
            layer.tensors[name].div_(100)  # the product of hundreds of factors stays finite
        return layer

    for shape in ((3, 37, 2), (2, 257, 256)):
        # One in a hundred comes too near the largest number to be judged.
        assert any(judged(constant(shape)) for _ in range(5))


@pytest.mark.parametrize("out_features", [1, 3, 5])
@by_kind
def test_one_bad_row_spoils_no_other(
    kind: Kind, out_features: int, backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, (40, 7, out_features), device=backend.device)
    clean = outcome(nalu_kernels, layer)
    layer.tensors["input"][17] = nan
    spoilt = outcome(nalu_kernels, layer)
    assert spoilt["output"][17].isnan().all()
    for name in ("output", "input"):
        for rows in (slice(17), slice(18, None)):
            assert torch.equal(clean[name][rows], spoilt[name][rows])


@only(lambda backend: backend.has_kernels)
@by_kind
def test_an_eps_that_float32_rounds_to_zero(kind: Kind, backend: Backend, rng: Generator) -> None:
    """The logarithm of what is not 0 does not need it."""
    layer = draw(rng, kind, (7, 5, 3), torch.float32, backend.device)
    layer = layer.with_(input=torch.where(layer.tensors["input"] == 0, 1, layer.tensors["input"]))
    layer.options["eps"] = 1e-60
    check(layer)
    assert all(found.isfinite().all() for found in outcome(nalu_kernels, layer).values())
