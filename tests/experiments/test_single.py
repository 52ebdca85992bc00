"""The single module task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from nalu_kernels.__main__ import main
from nalu_kernels.experiments import load
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.ranges import RANGES
from nalu_kernels.experiments.report import finite
from nalu_kernels.experiments.single import CELLS, Single
from nalu_kernels.sweep.success import threshold

EXPERIMENT = load("single")


def trained(model: str, task: str, steps: int) -> dict[str, Any]:
    return tiny.trained("single", Trial(model, task, 0), steps)


def test_the_thresholds_are_the_published_ones() -> None:
    """In closed form, for the ranges of the revision; ours are means of 10,000 samples."""
    assert isinstance(EXPERIMENT, Single)
    wanted = {
        "[10, 20]": (3.667e-5, 0.03484, 4.666e-8),
        "[-2, 2]": (6.667e-7, 1.202e-5, 5.777e-8),
        "[-1.2, -1.1]": (5.729e-7, 9.391e-6, 8.372e-8),
        "[0.1, 0.2]": (5.380e-8, 8.761e-8, 1.480e-7),
    }
    for numbers, published in wanted.items():
        for operation, value in zip(("a - b", "a * b", "a / b"), published, strict=True):
            task = EXPERIMENT.arithmetic(operation)
            test = EXPERIMENT.columns("NALU", f"{operation} {numbers}")["test"]
            parts = test if isinstance(test[0], tuple) else (test,)
            ours = threshold(EXPERIMENT.success, task, parts, {})
            assert ours == pytest.approx(value, rel=0.05), (operation, numbers)


def test_it_learns() -> None:
    first, later = (trained("NAC", "a + b [1, 2]", steps) for steps in (64, 6000))
    assert later["inside"] < first["inside"] / 10
    first, later = (trained("NAC log", "a * b [1, 2]", steps) for steps in (64, 6000))
    assert later["inside"] < first["inside"] / 5


def test_layers_are_trained_as_published() -> None:
    assert isinstance(EXPERIMENT, Single)
    ramp = {"ramp_start": 20_000, "ramp_stop": 35_000}
    stairs = {"l1_last": 1e-5, "l1_every": 10_000}
    saturated = {"ramp_start": 10_000, "ramp_stop": 10_000, "regularizer_below": 1.0}
    for model, task, wanted in (
        ("NALU", "a - b", {"lr": 1e-3}),
        ("NMU", "a * b", {"lr": 1e-3, "regularizer": 10.0, **ramp}),
        ("NAU", "a - b", {"lr": 1e-3, "regularizer": 0.01, **ramp}),
        ("NPU", "a * b", {"lr": 5e-3, "l1": 1e-7, **stairs}),
        ("RealNPU", "a / b", {"lr": 5e-3, "l1": 1e-9, **stairs, "l1_last": 1e-7}),
        ("INALU", "a / b", {"lr": 1e-3, "regularizer": 0.05, "clip_value": 0.1, **saturated}),
    ):
        columns = EXPERIMENT.columns(model, f"{task} [1, 2]")
        assert columns == {"train": (1.0, 2.0), "test": (2.0, 6.0), **wanted}


def test_an_inalu_begins_as_the_ported_one_does() -> None:
    assert isinstance(EXPERIMENT, Single)
    trials = [Trial("INALU", "a + b [1, 2]", seed) for seed in range(1000)]
    state = EXPERIMENT.initial(trials)
    assert state is not None and state["M_hat_mul"].shape == (1000, 1, 2)
    for name, mean in (("W_hat", 0.88), ("W_hat_mul", 0.88), ("M_hat", 0.5), ("g", 0.0)):
        assert float(state[name].mean()) == pytest.approx(mean, abs=0.03)
        assert float(state[name].std()) == pytest.approx(0.2, abs=0.02)
    alone = EXPERIMENT.initial(trials[7:8])
    assert alone is not None and torch.equal(alone["g"][0], state["g"][7])


def test_a_trial_has_the_same_numbers_alone_and_among_all(tmp_path: Path) -> None:
    narrowed = {"ranges": ["[10, 20]"]}
    outcome = tiny.run("single", tmp_path, seeds=2, steps=7, jobs=2, narrowed=narrowed)
    rows = tiny.numbers(outcome.rows)
    assert rows[-1]["model"] == "INALU"
    with tiny.quick():
        for row in rows[19::10]:
            trial = Trial(row.pop("model"), row.pop("task"), row.pop("seed"))
            assert finite(tiny.trained("single", trial, 7)) == row


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("single", tmp_path, steps=3)
    recorded = json.loads((tmp_path / "results.json").read_text())
    assert len(recorded["trials"]) == len(RANGES) * len(CELLS)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    text = capsys.readouterr().out
    assert "NALU solves a / b in 0/9 trials over all ranges" in text
    assert re.search(r"below 1e-05 +./9 +./9", text)
    assert "our interval meets the published one for 2 of 20 rates; NAU, a + b on all" in text
    assert re.search(
        r"eager PyTorch would take one core about .* for that: a step of NAC .* µs,", text
    )
    rows = {row.what: row for row in EXPERIMENT.compare(outcome)}
    assert len(rows) == len(CELLS) + 2 * len(RANGES) and all(row.ours for row in rows.values())
    assert rows["a * b, NMU: success on [-1.2, -1.1]"].published == "68 % (48 to 83)"
    assert rows["a * b, NMU: success on 9 ranges"].published == "94 % (90 to 97)"
    assert not rows["a * b, NALU: success on 9 ranges"].published


def test_a_run_on_one_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    narrowed = {"models": ["NMU"], "ranges": ["[1, 2]"]}
    outcome = tiny.run("single", tmp_path, steps=3, narrowed=narrowed)
    assert "published one for 0 of 1 rates; NMU, a * b on [1, 2]: 0/1, not 25/25" in " ".join(
        capsys.readouterr().out.split()
    )
    assert [row.published for row in EXPERIMENT.compare(outcome)] == ["", "100 % (87 to 100)"]


def test_the_default_is_the_published_size() -> None:
    assert EXPERIMENT.small == EXPERIMENT.full == (25, 50_000)
    assert len(EXPERIMENT.trials(25)) == 25 * 9 * 23


def test_bad_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["single", "--seeds", "none"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
