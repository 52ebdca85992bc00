"""The single module task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from nalu_kernels.__main__ import main
from nalu_kernels.experiments import load, success
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.single import PAIRS, RANGES, TwoNumbers
from nalu_kernels.experiments.success import TASKS
from nalu_kernels.experiments.training import generator

EXPERIMENT = load("single")


def trained(model: str, task: str, steps: int) -> dict[str, Any]:
    return tiny.trained("single", Trial(model, task, 0), steps)


@pytest.mark.parametrize(("inside", "outside"), RANGES)
def test_the_ranges(inside: tuple[float, float], outside: tuple[float, float]) -> None:
    problem = TwoNumbers("a + b", inside)
    for ends, is_outside in ((inside, False), (outside, True)):
        x = problem.draw(generator("t"), (7, 500), outside=is_outside)
        assert x.shape == (7, 500, 2)
        if is_outside and inside == (-2.0, 2.0):
            assert 0.4 < (x < 0).float().mean() < 0.6
            x = x.abs()
        low, high = ends
        assert low <= x.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < x.max() <= high


def test_targets() -> None:
    x = torch.tensor([[6.0, -3.0]])
    answers = [TwoNumbers(task, (1.0, 2.0)).target(x).item() for task in TASKS]
    assert answers == [3, 9, -18, -2]


def test_it_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(success, "RATE", 0.01)  # sooner than the papers' rate does
    first, later = (trained("NAC", "a - b [1, 2]", steps) for steps in (64, 1500))
    assert later["inside"] < first["inside"] / 10
    assert later["off"] < first["off"] / 2
    first, later = (trained("NAC log", "a * b [1, 2]", steps) for steps in (64, 800))
    assert later["inside"] < first["inside"] / 5


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("single", tmp_path, steps=3)
    recorded = json.loads((tmp_path / "results.json").read_text())
    assert len(recorded["trials"]) == len(RANGES) * len(PAIRS) + 3
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert "some seed has solved 0 of 72 pairs" in capsys.readouterr().out
    assert all(not row.published and row.ours for row in EXPERIMENT.compare(outcome))


def test_bad_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["single", "--seeds", "none"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
