"""What the tables of testbench and single are made of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import nalu_kernels
from nalu_kernels.experiments import load
from nalu_kernels.experiments.benchmark import Benchmark, duration, meet, rate_and_interval
from nalu_kernels.experiments.experiment import Outcome


def outcome(*rows: dict[str, Any]) -> Outcome:
    about = {"seeds": len(rows), "steps": 1000, "full": False, "options": {}}
    pair = {"model": "NAC", "task": "a + b", "seconds": 0.01}
    return Outcome({**about, "trials": [{**pair, **row} for row in rows]})


def row(status: str, outside: float, solved_at: float, sparsity: float) -> dict[str, Any]:
    return {"status": status, "outside": outside, "solved_at": solved_at, "sparsity": sparsity}


def test_a_cell_counts_what_is_solved_and_takes_medians_of_that() -> None:
    experiment = load("testbench")
    assert isinstance(experiment, Benchmark)
    found = outcome(
        row("solved", 1e-6, 2000, 0.1),
        row("solved", 1e-6, 4000, 0.3),
        row("out_of_steps", 5e-6, math.inf, 0.5),
        row("diverged", math.inf, math.inf, math.inf),
    )
    cell = experiment.cell(found, "NAC", "a + b")
    assert (cell.share, cell.flat, cell.step, cell.off) == ("2/4", 3, "3,000", "0.200")
    assert "trials that diverged, a weight became NaN: 1" in experiment.claims(found)
    cell = experiment.cell(outcome(row("out_of_steps", 1.0, math.inf, 0.5)), "NAC", "a + b")
    assert (cell.share, cell.flat, cell.step, cell.off) == ("0/1", 0, "-", "-")


def test_words_for_rates() -> None:
    # 14 of 100, as Madsen and Johansen print it
    assert rate_and_interval(14, 100) == "14 % (9 to 22)"
    assert [duration(s) for s in (1.5, 150.0, 9000.0, 1e6)] == [
        "1.50 s",
        "2.50 min",
        "2.50 h",
        "11.6 days",
    ]


def test_intervals_meet() -> None:
    assert meet((0, 0.2), (0.2, 0.4)) and meet((0, 1), (0.5, 0.6)) and meet((0.5, 0.6), (0, 1))
    assert not meet((0, 0.2), (0.3, 0.4)) and not meet((0.3, 0.4), (0, 0.2))


@pytest.mark.parametrize("name", ["reference", "triton"])
def test_a_back_end_without_a_trainer_is_not_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "triton":
        monkeypatch.setattr(
            "nalu_kernels.experiments.experiment.which_backend", lambda input: (name, "the best")
        )
        assert load("single").backend(torch.device("cpu")) == ("reference", "triton has no trainer")
        return
    with nalu_kernels.use_backend(name):
        assert load("single").backend(torch.device("cpu"))[0] == name
