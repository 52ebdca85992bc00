"""What the tables of testbench and single are made of."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import nalu_kernels
from nalu_kernels.experiments import load
from nalu_kernels.experiments.benchmark import Benchmark, duration, meet, rate_and_interval
from nalu_kernels.experiments.experiment import Outcome, Settings, Trial


def outcome(*rows: dict[str, Any]) -> Outcome:
    about = {"seeds": len(rows), "steps": 1000, "full": False, "options": {}, "device": "cpu"}
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


def test_the_back_end_is_the_one_that_is_forced() -> None:
    with nalu_kernels.use_backend("reference"):
        assert load("single").backend(torch.device("cpu"))[0] == "reference"


class Stopped(Exception):
    """In the middle of it."""


@pytest.mark.parametrize("stops", [False, True])
def test_on_a_gpu_all_cells_are_trained_at_once(
    stops: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As far as a CPU shows it: without the streams."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    experiment = load("testbench")
    assert isinstance(experiment, Benchmark)
    settings = Settings(torch.device("cpu"), 2, 30, tmp_path, backend="reference")
    cells = [[Trial(model, "a + b", seed) for seed in range(2)] for model in ("NAC", "NALU")]
    networks = [experiment.network(cell[0].model, "a + b") for cell in cells]
    whole, backends = experiment._sweep, []

    def sweep(network: Any, trials: Any, *given: Any, **options: Any) -> Any:
        if stops and trials[0].model == "NALU":
            raise Stopped
        result = whole(network, trials, *given, **options)
        backends.extend(result.columns()["backend"])
        return result

    monkeypatch.setattr(experiment, "_sweep", sweep)
    found: list[Any] = []
    with pytest.raises(Stopped) if stops else nullcontext():
        for done in experiment._all_at_once(networks, cells, settings):
            found += done
    if not stops:
        assert sorted(trial.model for trial, _, _ in found) == ["NAC"] * 2 + ["NALU"] * 2
    assert all(numbers["status"] == "out_of_steps" for _, _, numbers in found)
    assert set(backends) <= {"reference"}
