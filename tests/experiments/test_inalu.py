"""An INALU's minimal task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from nalu_kernels import INALU, sparsity_error, sweep
from nalu_kernels.experiments import load
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.inalu import CELLS, SETS, Inalu
from nalu_kernels.experiments.report import finite
from nalu_kernels.sweep import Exponential, Normal

EXPERIMENT = load("inalu")


def test_layers_are_trained_as_published() -> None:
    assert isinstance(EXPERIMENT, Inalu) and EXPERIMENT.optimizer == "adam"
    columns = EXPERIMENT.columns("INALU", "a * b N(-2, 4)")
    assert columns["train"] == Normal(1, 1, -2, 4) and columns["test"] == Normal(9, 1 / 3, 8, 10)
    nalu = EXPERIMENT.columns("NALU", "a * b E(0.2)")
    assert nalu["train"] == Exponential(0.2) and nalu["test"] == Exponential(0.5)
    for trained in (columns, nalu):
        assert (trained["lr"], trained["saturation"], trained["clip_value"]) == (1e-3, 0.05, 0.1)
        assert (trained["saturation_start"], trained["saturation_below"]) == (10_999, 1.0)
        assert (trained["weight_steps"], trained["gate_steps"]) == (8, 2)
        assert (trained["restart_above"], trained["restart_after"]) == (1.0, 9_999)
    for model in ("INALU", "INALU tied", "NALU"):
        state = EXPERIMENT.initial([Trial(model, "a + b U(-1, 1)", seed) for seed in range(1000)])
        assert state is not None
        assert float(state["M_hat"].mean()) == pytest.approx(-1, abs=0.02)
        assert float(state["W_hat"].std()) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("name", SETS)
def test_no_quotient_is_of_zero(name: str) -> None:
    assert isinstance(EXPERIMENT, Inalu)
    task = EXPERIMENT.arithmetic("a / b")
    train: Any = EXPERIMENT.columns("INALU", f"a / b {name}")["train"]
    if isinstance(train, Normal):
        assert train.mean
        return
    x = task.batches(train, 0, torch.arange(20), 128, torch.float32)
    if isinstance(train, Exponential):
        assert float(x.min()) > 0
        return
    (low, below), (above, high) = train
    assert low == -high and below < 0 < above and float(x.min()) < 0 < float(x.max())


def test_a_trial_is_judged_by_its_last_test() -> None:
    """And not by the one with the least error inside."""
    assert isinstance(EXPERIMENT, Inalu)
    task, seeds = EXPERIMENT.arithmetic("a + b"), {"seed": [0, 1, 2]}
    result = sweep.run(INALU(2, 1), task, seeds, steps=30, test_every=10)
    curves = result._state.curves
    curves[:] = 1.0
    curves[0, 0] = curves[1, 2] = 1e-6
    judged = EXPERIMENT.judge(result)
    assert judged["status"] == ["out_of_steps", "solved", "out_of_steps"]
    assert judged["error_outside"] == judged["error_inside"] == [1.0, 1e-6, 1.0]
    assert judged["solved_at"][1] == judged["best_step"][1] == 30
    assert judged["sparsity"][1] == sparsity_error(result.module(1, "last"))


def test_it_learns() -> None:
    first, later = (
        tiny.trained("inalu", Trial("INALU", "a + b U(-1, 1)", 0), steps) for steps in (64, 8000)
    )
    assert later["outside"] < first["outside"] / 10


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("inalu", tmp_path, steps=3)
    recorded = json.loads((tmp_path / "results.json").read_text())
    assert len(recorded["trials"]) == len(SETS) * len(CELLS)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert "our interval meets the published one for" in capsys.readouterr().out
    rows = {row.what: row for row in EXPERIMENT.compare(outcome)}
    assert rows["a / b, INALU: success on N(-2, 4)"].published == "50 % (24 to 76)"
    row = tiny.numbers([outcome.rows[-1]])[0]
    trial = Trial(row.pop("model"), row.pop("task"), row.pop("seed"))
    with tiny.quick():
        assert finite(tiny.trained("inalu", trial, 3)) == row
