"""The rule of shaken.py passes the reference itself and catches small faults."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from layers import Layer, numbers, outcome
from nalu_kernels import reference
from shaken import Shaken

SHAPES = {"input": (6, 3), "W": (2, 3)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", ["nau", "nmu", "nru"])
def test_small_faults_are_caught(function: str, dtype: torch.dtype, rng: Generator) -> None:
    tensors = {name: t.to(dtype) for name, t in numbers(rng, function, SHAPES).items()}
    dy = torch.randn(6, 2, generator=rng, dtype=torch.float64).to(dtype)
    layer, every = Layer(function, tensors, {}, dy), set(tensors)
    judge = Shaken(layer, {"input": 1, "W": 1}, every, rng)
    found = outcome(reference, layer)
    assert not judge.faults(found)
    for name, tensor in found.items():

        def wrong(value: Tensor, name: str = name, tensor: Tensor = tensor) -> list[str]:
            place = tensor.abs().argmax()
            return judge.faults(
                {name: tensor.flatten().index_fill(0, place, value).view_as(tensor)}
            )

        largest = tensor.flatten()[tensor.abs().argmax()]
        assert wrong(largest * (1 + 1e4 * torch.finfo(dtype).eps)), name
        assert wrong(largest * torch.nan) and wrong(largest * torch.inf), name


def test_what_hangs_on_the_order_of_a_product_is_not_judged(rng: Generator) -> None:
    """1e30 1e30 1e-30 is 1e30, or infinite."""
    x = torch.tensor([[1e30] * 8 + [1e-30] * 8])
    layer = Layer("nmu", {"input": x, "W": torch.ones(1, 16)}, {}, torch.ones(1, 1))
    judge = Shaken(layer, {"input": 1, "W": 1}, set(), rng)
    assert not judge.faults({"output": torch.tensor([[torch.inf]])})
