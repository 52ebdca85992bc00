"""Errors and verdicts."""

from __future__ import annotations

import math

import pytest
import torch

from nalu_kernels.formulas.verdict import EXACT, Error, Errors, error_of, verdict


def error(predicted: list[float], targets: list[float]) -> Error:
    columns = (torch.tensor(of, dtype=torch.float64).unsqueeze(1) for of in (predicted, targets))
    return error_of(*columns)


def test_errors_are_relative_to_the_target_or_to_the_median() -> None:
    found = error([1.01, 2.0, 4.0, 0.5], [1.0, 2.0, 4.0, 0.0])
    assert found.largest == pytest.approx(0.5)  # of the median, 1, and not of 0
    spread = torch.tensor([1.0, 2, 4, 0]).std(correction=0).item()
    assert found.spread == pytest.approx(math.sqrt((0.01**2 + 0.5**2) / 4) / spread)


def test_one_large_target_hides_nothing() -> None:
    assert error([1e9, 1.0, 1.0, 1.1], [1e9, 1.0, 1.0, 1.0]).largest == pytest.approx(0.1)


def test_the_worst_output_counts() -> None:
    targets = torch.ones(3, 2, dtype=torch.float64)
    assert error_of(targets * torch.tensor([1.0, 1.5]), targets).largest == 0.5


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_infinitely_wrong(wrong: float) -> None:
    assert error([wrong, 1.0], [1.0, 1.0]) == (math.inf, math.inf)


def test_targets_of_0() -> None:
    assert error([0.0, 0.0], [0.0, 0.0]) == (0, 0)
    assert error([1.0, 0.0], [0.0, 0.0]).largest == math.inf


RIGHT, NEAR, WRONG = Error(EXACT, 1e-6), Error(0.2, 0.05), Error(3.0, 0.5)
VERDICTS = [
    (True, RIGHT, RIGHT, "exact"),
    (True, RIGHT, None, "exact"),
    (True, Error(2 * EXACT, 1e-6), RIGHT, "approximate"),
    (True, Error(EXACT, 2e-3), RIGHT, "approximate"),  # of an offset that hides what is missing
    (True, Error(3.0, 0.11), RIGHT, "not a formula"),
    (True, RIGHT, NEAR, "approximate"),
    (True, NEAR, RIGHT, "approximate"),
    (True, NEAR, WRONG, "not a formula"),
    (True, WRONG, RIGHT, "not a formula"),
    (False, RIGHT, RIGHT, "not a formula"),
]


@pytest.mark.parametrize(("readable", "inside", "outside", "expected"), VERDICTS)
def test_verdicts(readable: bool, inside: Error, outside: Error | None, expected: str) -> None:
    of_inside = Errors(WRONG, inside, 10)
    of_outside = None if outside is None else Errors(WRONG, outside, 10)
    assert verdict(readable, of_inside, of_outside) == expected


def test_targets_that_do_not_vary() -> None:
    """But for rounding errors."""
    assert error([3.0, 3.0 + 4e-16], [3.0, 3.0]).spread < 1e-15
    assert error([1.1, 1.1], [1.0, 1.0]).spread == pytest.approx(0.1)
