"""What docs/many_seeds.md says of a stack of seeds, and the benchmark of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Generator

from benchmarks import many_seeds
from benchmarks.many_seeds import SEEDS, SHAPES, loop_step, problem, saved_bytes, stack_step

PAGE = Path(__file__).parent.parent / "docs" / "many_seeds.md"


@pytest.mark.parametrize("shape", [(5, 2, 1), (4, 3, 6)], ids=str)
def test_a_stack_is_trained_as_a_loop_is(shape: tuple[int, int, int], rng: Generator) -> None:
    layers, x, target = problem(shape, seeds=3)
    x = 1 + torch.rand(x.shape, generator=rng)
    for layer in layers:
        layer.double()
    step, parameters = stack_step(layers, x.double(), target.double())
    loop = loop_step(layers, x.double(), target.double())
    for _ in range(5):
        step()
        loop()
    for name, stacked in parameters.items():
        for own, layer in zip(stacked, layers, strict=True):
            torch.testing.assert_close(own, layer.get_parameter(name), rtol=1e-9, atol=1e-12)


def test_a_seed_without_numbers_stays_alone() -> None:
    layers, x, target = problem((4, 2, 1), seeds=3)
    with torch.no_grad():
        layers[1].G.fill_(torch.nan)
    step, parameters = stack_step(layers, x, target)
    step()
    for stacked in parameters.values():
        assert stacked[[0, 2]].isfinite().all()
    assert parameters["G"][1].isnan().all()


@pytest.mark.parametrize("shape", [(64, 2, 1), (16, 30, 4)], ids=str)
def test_the_memory_that_the_page_states(shape: tuple[int, int, int]) -> None:
    B, _, O = shape  # noqa: E741
    S = 3
    assert "16·S·B·O bytes" in PAGE.read_text(encoding="utf-8")
    layers, x, target = problem(shape, S)
    step, parameters = stack_step(layers, x, target)
    found = saved_bytes(step, [*parameters.values(), x, target])
    assert found == 16 * S * B * O


def test_the_page_has_the_benchmarks_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = re.search(r"<!-- seeds table -->\n(.*?)\n<!-- end of seeds table -->", text, re.S)
    assert section
    head, _, *rows = [line.strip("| ").split(" | ") for line in section[1].splitlines()]
    assert head == many_seeds.HEAD
    assert [tuple(row[:2]) for row in rows] == [
        (many_seeds.shape_name(shape), str(seeds)) for shape in SHAPES for seeds in SEEDS
    ]


def test_a_row_of_the_table() -> None:
    row = many_seeds.row((4, 2, 1), seeds=2, budget_s=0)
    assert len(row) == len(many_seeds.HEAD) and row[:2] == ["4×2→1", "2"]
