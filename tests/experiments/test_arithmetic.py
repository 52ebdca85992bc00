"""Static and recurrent arithmetic: what NACs learn they extrapolate, and the scores say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from nalu_kernels.experiments import load
from nalu_kernels.experiments.arithmetic import OPERATIONS, UNTRAINED
from nalu_kernels.experiments.experiment import Outcome, Trial


@pytest.mark.parametrize(
    ("name", "task", "steps"),
    [
        ("static", "a + b", 1500),
        ("static", "a - b", 800),
        ("recurrent", "a + b", 800),
        ("recurrent", "a - b", 400),
    ],
)
def test_a_nac_extrapolates_sums(name: str, task: str, steps: int) -> None:
    scores = tiny.trained(name, Trial("NAC", task, 0), steps)
    untrained = tiny.trained(name, Trial(UNTRAINED, task, 0), steps)
    baseline = load(name).baselines[-1]
    other = tiny.trained(name, Trial(baseline, task, 0), steps)
    assert scores["inside"] < untrained["inside"] / 20
    assert scores["outside"] < untrained["outside"] / 20
    assert scores["outside"] < other["outside"] / 2


@pytest.mark.parametrize("name", ["static", "recurrent"])
@pytest.mark.parametrize("model", [0, 1])
def test_baselines_learn(name: str, model: int) -> None:
    experiment = load(name)
    trial = Trial(experiment.baselines[model], "sqrt(a)", 0)
    scores, start = (tiny.trained(name, trial, steps) for steps in (400, 1))
    assert scores["inside"] < start["inside"] / 5


@pytest.mark.parametrize("task", ["a + b", "sqrt(a)"])
def test_a_nalu_learns_inside(task: str) -> None:
    trial = Trial("NALU", task, 0)
    scores, start = (tiny.trained("static", trial, steps) for steps in (800, 1))
    assert scores["inside"] < start["inside"] / 5


def test_the_operands_are_sums_of_other_numbers_for_each_seed() -> None:
    experiment = load("static")
    x = torch.rand(4, 100)
    a, b = experiment.operands(x, 0)
    assert a.shape == b.shape == (4, 1)
    first, second = experiment.subsets(100, 25, 0)
    assert len({*first, *second}) == 50
    torch.testing.assert_close(a[:, 0], x[:, first].sum(1))
    assert experiment.subsets(100, 25, 1)[0] != first


def test_a_seed_means_the_same_however_many_there_are(tmp_path: Path) -> None:
    one, two = (tiny.run("static", tmp_path / str(n), seeds=n, steps=5) for n in (1, 2))
    of_first = [row for row in two.rows if row["seed"] == 0]
    assert tiny.numbers(one.rows) == tiny.numbers(of_first)


def outcome(errors: dict[str, float]) -> Outcome:
    """Of errors outside, for each model the same on every task; targets of 100."""
    rows = [
        {
            **{"model": model, "task": task, "seed": seed, "inside": 1.0, "outside": error},
            "outside_target": 100.0,
        }
        for task in OPERATIONS
        for model, error in errors.items()
        for seed in range(2)
    ]
    return Outcome({"seeds": 2, "steps": 1, "full": False, "options": {}, "trials": rows})


def test_the_claims_follow_the_numbers() -> None:
    experiment = load("static")
    failed = {"NAC": 9.0, "NALU": 9.0, "ReLU6": 9.0, "Linear": 9.0, UNTRAINED: 50.0}
    claims = experiment.claims(outcome({**failed, "NALU": 1.9}))
    assert "NALU extrapolates a / b: yes, on 2 of 2 seeds" in claims
    assert "NAC extrapolates a - b: no, on 0 of 2 seeds" in claims
    assert "ReLU6 extrapolates on some seed: nothing" in claims
    assert experiment.percent(outcome(failed), "outside", "NAC", "a + b") == [18.0, 18.0]
