"""Division by one module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from nalu_kernels.experiments import load
from nalu_kernels.experiments.division import CELLS, Division
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.ranges import RANGES
from nalu_kernels.experiments.report import finite

EXPERIMENT = load("division")


def trained(model: str, task: str, steps: int) -> dict[str, Any]:
    return tiny.trained("division", Trial(model, task, 0), steps)


def test_it_learns() -> None:
    for task, steps in (("2 inputs [1, 2]", 2000), ("10 inputs [1, 2]", 3000)):
        assert trained("NMRU", task, 64)["status"] == "out_of_steps"
        assert trained("NMRU", task, steps)["outside"] < 0.1


def test_layers_are_trained_as_published() -> None:
    assert isinstance(EXPERIMENT, Division)
    l1 = {"lr": 5e-3, "l1": 1e-9, "l1_last": 1e-7, "l1_every": 10_000}
    short = {"regularizer": 10.0, "ramp_start": 20_000, "ramp_stop": 35_000}
    long = {"regularizer": 10.0, "ramp_start": 50_000, "ramp_stop": 75_000}
    modified = {**l1, "regularizer": 1.0}
    for model, columns in (
        ("RealNPU", (l1, l1)),
        (
            "RealNPU modified",
            (
                {**modified, "ramp_start": 40_000, "ramp_stop": 50_000},
                {**modified, "ramp_start": 50_000, "ramp_stop": 75_000},
            ),
        ),
        ("NRU", ({"lr": 1.0, **short}, {"lr": 1e-3, **long})),
        ("NMRU", ({"lr": 1e-2, "clip_norm": 1.0, **part} for part in (short, long))),
    ):
        for task, wanted in zip(("2 inputs", "10 inputs"), columns, strict=True):
            assert EXPERIMENT.training(model, task) == wanted


def test_of_ten_inputs_two_neighbours_count() -> None:
    assert isinstance(EXPERIMENT, Division)
    assert EXPERIMENT.arithmetic("10 inputs").lengths == (1, 0, 2)
    layer: Any = EXPERIMENT.network("RealNPU modified", "10 inputs")
    assert layer.modified and layer.in_features == 10 and layer.gate_gradient == "clamped"


def test_no_answer_is_infinite() -> None:
    """Uniform numbers on [-2, 2] have 0 among them once in 2**24, and so do a third of the runs."""
    assert isinstance(EXPERIMENT, Division)
    for task in ("2 inputs [-2, 2]", "10 inputs [-2, 2]"):
        low, high = EXPERIMENT.columns("NRU", task)["train"]
        assert low[0] == -2 and low[1] < 0 < high[0] and high[1] == 2
    single: Any = load("single")
    assert single.columns("NALU", "a / b [-2, 2]")["train"] == (low, high)
    assert single.columns("NALU", "a * b [-2, 2]")["train"] == (-2, 2)


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("division", tmp_path, steps=3)
    recorded = json.loads((tmp_path / "results.json").read_text())
    assert len(recorded["trials"]) == len(RANGES) * len(CELLS)
    # trained for twice as long, and tested so
    assert {row["step"] for row in outcome.rows if row["task"].startswith("10")} <= {3, 6}
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    text = " ".join(capsys.readouterr().out.split())
    assert "success: seeds whose mean squared error outside is below 1e-05; for all" in text
    assert "for 0 of 3 rates; RealNPU, 10 inputs on all ranges: 0/9, not 158/225;" in text
    rows = {row.what: row for row in EXPERIMENT.compare(outcome)}
    assert len(rows) == len(CELLS)
    assert rows["10 inputs, NMRU: success on 9 ranges"].published == "92 % (87 to 95)"


def test_a_trial_has_the_same_numbers_alone_and_among_all(tmp_path: Path) -> None:
    narrowed = {"ranges": ["[1, 2]"]}
    outcome = tiny.run("division", tmp_path, seeds=2, steps=7, jobs=2, narrowed=narrowed)
    row = tiny.numbers([outcome.rows[-1]])[0]
    trial = Trial(row.pop("model"), row.pop("task"), row.pop("seed"))
    with tiny.quick():
        assert finite(tiny.trained("division", trial, 7)) == row


def test_the_default_is_the_published_size() -> None:
    assert EXPERIMENT.small == EXPERIMENT.full == (25, 50_000)
    assert len(EXPERIMENT.trials(25)) == 1800
