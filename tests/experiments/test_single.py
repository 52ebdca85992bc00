"""The single module task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny

from nalu_kernels.__main__ import main
from nalu_kernels.experiments import load
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.report import finite
from nalu_kernels.experiments.single import PAIRS, RANGES, Single
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
            test = EXPERIMENT.columns(f"{operation} {numbers}")["test"]
            parts = test if isinstance(test[0], tuple) else (test,)
            ours = threshold(EXPERIMENT.success, task, parts, {})
            assert ours == pytest.approx(value, rel=0.05), (operation, numbers)


def test_it_learns() -> None:
    first, later = (trained("NAC", "a + b [1, 2]", steps) for steps in (64, 6000))
    assert later["inside"] < first["inside"] / 10
    first, later = (trained("NAC log", "a * b [1, 2]", steps) for steps in (64, 6000))
    assert later["inside"] < first["inside"] / 5


def test_a_trial_has_the_same_numbers_alone_and_among_all(tmp_path: Path) -> None:
    outcome = tiny.run("single", tmp_path, seeds=2, steps=7, jobs=2)
    row = tiny.numbers([outcome.rows[-1]])[0]
    trial = Trial(row.pop("model"), row.pop("task"), row.pop("seed"))
    with tiny.quick():
        assert finite(tiny.trained("single", trial, 7)) == row


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("single", tmp_path, steps=3)
    recorded = json.loads((tmp_path / "results.json").read_text())
    assert len(recorded["trials"]) == len(RANGES) * len(PAIRS)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    text = capsys.readouterr().out
    assert "NALU solves a / b in 0/9 trials over all ranges" in text
    assert "likewise with a mean squared error outside below 1e-05" in text
    assert re.search(
        r"eager PyTorch would take one core about .* for that: a step of NAC .* µs,", text
    )
    assert all(not row.published and row.ours for row in EXPERIMENT.compare(outcome))


def test_the_default_is_the_published_size() -> None:
    assert EXPERIMENT.small == EXPERIMENT.full == (25, 50_000)
    assert len(EXPERIMENT.trials(25)) == 1800


def test_bad_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["single", "--seeds", "none"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
