"""The criterion of testbench and single, and the measurement of speed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nalu_kernels import NAC, NALU
from nalu_kernels.experiments import load
from nalu_kernels.experiments.experiment import Settings, Trial
from nalu_kernels.experiments.single import TwoNumbers
from nalu_kernels.experiments.success import (
    EPSILON,
    EVERY,
    SPEED,
    Benchmark,
    Checks,
    duration,
    off_by,
    rate_and_interval,
    sparsity_error,
    threshold,
    wilson,
)
from nalu_kernels.experiments.training import Training, generator

CPU = torch.device("cpu")


def adder(first: float, second: float) -> NAC:
    """A NAC with these weights, as W = tanh(W_hat) when M_hat is large."""
    layer = NAC(2, 1).double()
    with torch.no_grad():
        layer.W_hat.copy_(torch.tensor([[first, second]], dtype=torch.float64).atanh())
        layer.M_hat.fill_(100.0)
    return layer


def checks_of(network: NAC) -> Checks:
    class InDouble(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(x.double()).float()

    checks = Checks(InDouble(), TwoNumbers("a + b", (1.0, 2.0)), generator("t"), CPU)
    return checks


def test_the_interval_is_wilsons() -> None:
    # 31 of 100, as Madsen and Johansen print it
    assert wilson(31, 100) == pytest.approx((0.2278, 0.4063), abs=5e-5)
    low, high = wilson(0, 100)
    assert low == 0 and high == pytest.approx(0.037, abs=1e-3)
    assert wilson(100, 100) == pytest.approx((1 - high, 1.0))
    assert rate_and_interval(14, 100) == "14 % (9 to 22)"
    for total in (1, 3, 25):
        for successes in range(total + 1):
            low, high = wilson(successes, total)
            assert 0 <= low <= successes / total <= high <= 1


@pytest.mark.parametrize(("wrong_by", "solved"), [(0.9, True), (1.1, False), (30, False)])
def test_success_is_to_be_nearer_than_weights_off_by_epsilon(wrong_by: float, solved: bool) -> None:
    weight = 1 - wrong_by * EPSILON
    checks = checks_of(adder(weight, weight))
    checks.check(7)
    numbers = checks.numbers()
    assert numbers["solved"] is solved
    assert numbers["solved_at"] == (7 if solved else math.inf)
    assert numbers["off"] == pytest.approx(wrong_by * EPSILON, rel=0.05)


def test_the_threshold_of_two_numbers() -> None:
    x = torch.tensor([[2.0, -3.0], [4.0, 5.0]])
    errors = {
        "a + b": [5e-5, 9e-5],
        "a - b": [5e-5, 9e-5],
        "a * b": [6 * 2e-5, 20 * 2e-5],
        "a / b": [2 / 3 * 2e-5, 4 / 5 * 2e-5],
    }
    for task, of in errors.items():
        wanted = sum(error**2 for error in of) / 2
        assert threshold(TwoNumbers(task, (1.0, 2.0)), x) == pytest.approx(wanted, rel=1e-4)


def test_judged_where_the_error_inside_was_least() -> None:
    network = adder(1 - 1e-7, 1 - 1e-7)
    checks = checks_of(network)
    checks.check(1000)
    checks.load_state_dict(checks.state_dict())
    with torch.no_grad():
        network.M_hat.fill_(0.0)  # halves the weights
    for step in range(1001, 3 * EVERY):
        checks.after(step)
    numbers = checks.numbers()
    assert numbers["solved"] and numbers["step"] == numbers["solved_at"] == 1000


def test_the_sparsity_error_is_that_of_the_worst_weight() -> None:
    layers = torch.nn.Sequential(adder(0.9, -0.98), NALU(1, 1))
    with torch.no_grad():
        layers[1].W_hat.fill_(0.2)
        layers[1].M_hat.fill_(100.0)
    assert sparsity_error(layers) == pytest.approx(math.tanh(0.2), rel=1e-5)
    assert sparsity_error(layers[0]) == pytest.approx(0.1)


def test_words_for_numbers() -> None:
    assert [duration(s) for s in (1.5, 150.0, 9000.0, 1e6)] == [
        "1.50 s",
        "2.50 min",
        "2.50 h",
        "11.6 days",
    ]
    assert off_by(0.25) == "0.250" and off_by(1.0) == off_by(math.inf) == "1 or more"


def test_speed_is_measured_with_both_back_ends(tmp_path: Path) -> None:
    experiment = load("single")
    assert isinstance(experiment, Benchmark)
    settings = Settings(CPU, seeds=1, steps=1, out=tmp_path, backend="reference")
    numbers = experiment.run(Trial("NAC", SPEED, 0), settings, Training(CPU))
    for name in ("eager", "library"):
        rounds = numbers["rounds"][name]
        assert min(rounds) <= numbers[name] <= max(rounds) and min(rounds) > 0
