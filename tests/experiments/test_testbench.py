"""The arithmetic task with two overlapping subset sums."""

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
from nalu_kernels.experiments.success import EPSILON, TASKS, threshold
from nalu_kernels.experiments.testbench import MODELS, OUTSIDE, SubsetSums
from nalu_kernels.experiments.training import generator, uniform

EXPERIMENT = load("testbench")


def trained(model: str, task: str, seed: int, steps: int) -> dict[str, Any]:
    return tiny.trained("testbench", Trial(model, task, seed), steps)


def test_the_subsets() -> None:
    firsts = set()
    for seed in range(20):
        problem = SubsetSums("a - b", seed)
        a, b = (set(range(100)[subset]) for subset in (problem.a, problem.b))
        assert len(a) == len(b) == 25 and len(a & b) == 12 and max(b) <= 99
        firsts.add(min(a))
        x = torch.rand(3, 100, dtype=torch.float64)
        wanted = x[:, sorted(a)].sum(1) - x[:, sorted(b)].sum(1)
        torch.testing.assert_close(problem.target(x), wanted[:, None])
    assert len(firsts) > 10


@pytest.mark.parametrize("task", TASKS)
def test_the_threshold_is_the_error_of_a_first_layer_off_by_epsilon(task: str) -> None:
    problem = SubsetSums(task, 3)
    W = torch.full((2, 100), EPSILON, dtype=torch.float64)
    W[0, problem.a] = W[1, problem.b] = 1 - EPSILON
    x = uniform(generator("t"), (2000, 100), *OUTSIDE).double()
    a, b = (x @ W.T).unbind(1)
    wanted = {"a + b": a + b, "a - b": a - b, "a * b": a * b, "a / b": a / b}[task]
    torch.testing.assert_close(problem.nearly(x), wanted[:, None], rtol=1e-12, atol=1e-12)
    # What the authors simulated, with slightly larger subsets.
    theirs = {"a + b": 1.479e-5, "a - b": 1.384e-8, "a * b": 0.1600, "a / b": 4.938e-12}[task]
    assert threshold(problem, x) == pytest.approx(theirs, rel=0.25)


def test_it_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(success, "RATE", 0.01)  # sooner than the papers' rate does
    monkeypatch.setattr(success, "EVERY", 500)
    first, later = (trained("NAC", "a - b", 0, steps) for steps in (64, 800))
    assert later["inside"] < first["inside"] / 5
    assert later["outside"] < first["outside"] / 5
    assert later["off"] < first["off"] / 2
    assert later["step"] in (500, 800)
    assert trained("NAC", "a - b", 1, 64) != first


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("testbench", tmp_path, steps=3)
    recorded = json.loads((tmp_path / "results.json").read_text())
    assert len(recorded["trials"]) == len(MODELS) * (len(TASKS) + 1)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    text = capsys.readouterr().out
    assert "some seed has solved 0 of 12 pairs" in text and "steps per second" in text
    rows = {row.what: row for row in EXPERIMENT.compare(outcome)}
    row = rows["a * b, NAC log: success"]
    assert (row.ours, row.published) == ("0 % (0 to 79)", "31 % (23 to 41)")
    assert rows["a * b, NAC log: median step solved at"].ours == "not solved"


def test_bad_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["testbench", "--steps", "0"]) == 2
    assert main(["testbench", "--device", "nowhere"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and "--steps" in lines[0] and "nowhere" in lines[1]
