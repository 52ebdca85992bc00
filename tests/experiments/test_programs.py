"""Programs read a character at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tiny
import torch

from nalu_kernels.__main__ import main
from nalu_kernels.experiments import load
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.programs import (
    CHARACTERS,
    MODELS,
    OPERATORS,
    Interpreter,
    programs,
    values,
)
from nalu_kernels.experiments.training import build, generator

CPU = torch.device("cpu")


@pytest.mark.parametrize("task", OPERATORS)
def test_programs_and_their_values(task: str) -> None:
    drawn = programs(generator("t", task), task, (5, 20), 3)
    assert drawn.shape == (5, 20, 8)
    worth = values(task, drawn)
    assert worth.shape == (5, 20, 3)
    used = set()
    for program, results in zip(drawn.flatten(0, 1).tolist(), worth.flatten(0, 1), strict=True):
        text = "".join(CHARACTERS[place] for place in program)
        used |= set(text) - set("0123456789")
        assert [eval(text[: 3 * terms - 1]) for terms in (1, 2, 3)] == results.tolist(), text
    assert used == set(OPERATORS[task])


@pytest.mark.parametrize("task", OPERATORS)
@pytest.mark.parametrize("model", MODELS)
def test_an_answer_depends_on_what_has_been_read_only(model: str, task: str) -> None:
    network = build(lambda: Interpreter(model, task, 5.0, 3.0), CPU, "t")
    drawn = programs(generator("t", task), task, (6,), 5)
    answers, shorter = network(drawn), network(drawn[:, :8])
    assert (answers.shape, shorter.shape) == ((6, 5), (6, 3))
    torch.testing.assert_close(answers[:, :3], shorter)
    parameters = [parameter for group in network.groups() for parameter in group.parameters]
    assert {*map(id, parameters)} == {*map(id, network.parameters())}


@pytest.mark.parametrize("task", ["sums", "products"])
def test_a_saturated_cell_accumulates(task: str) -> None:
    network = build(lambda: Interpreter("LSTM + NAC", task, 0.0, 1.0), CPU, "t")
    assert network.cell is not None
    for parameter in network.cell.parameters():
        parameter.data.fill_(40.0)
    for parameter in network.features.parameters():
        parameter.data.zero_()
    network.features.bias.data[:] = 0.25
    assert network.keeps() == 1
    answers = network(programs(generator("t"), task, (2,), 3))
    # Four features a character; those of products are logarithms of factors, and bounded.
    each = 4 * (math.tanh(0.25) if task == "products" else 0.25)
    characters = torch.tensor([2.0, 5.0, 8.0]).expand(2, 3)  # that have been read
    torch.testing.assert_close(answers, characters * each)


@pytest.mark.parametrize(
    ("model", "task", "length", "steps"),
    [
        ("LSTM", "sums", "4", 300),
        ("LSTM + NAC", "sums and differences", "4", 400),
        ("LSTM + NAC", "products", "3", 1200),
    ],
)
def test_it_learns(model: str, task: str, length: str, steps: int) -> None:
    trial = Trial(model, task, 0)
    first, later = (tiny.trained("programs", trial, count) for count in (5, steps))
    assert later["error"][length] < first["error"][length] / 2


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("programs", tmp_path, steps=3)
    printed = capsys.readouterr().out
    assert all(f"\n{task}, trained on" in printed for task in OPERATORS)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    rows = json.loads((tmp_path / "results.json").read_text())["trials"]
    assert len(rows) == len(MODELS) * len(OPERATORS)
    assert all(row["error"].keys() == row["right"].keys() for row in rows)
    with tiny.quick():
        assert len(load("programs").compare(outcome)) == 2 * len(rows)


def test_a_bad_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["programs", "--device", "nowhere"]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
