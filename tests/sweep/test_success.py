"""Thresholds against the published ones (Madsen and Johansen's and Mistry's, from their files)."""

from __future__ import annotations

from typing import Any

import pytest

from nalu_kernels import sweep
from nalu_kernels.sweep.success import check_success, off_by, threshold, wilson
from nalu_kernels.sweep.tasks import check_range


@pytest.mark.parametrize(
    ("operation", "options", "published"),
    [
        ("a + b", {}, 1.47862e-5),
        ("a - b", {}, 1.38437e-8),
        ("a * b", {}, 0.160011),
        ("a / b", {}, 4.955e-12),
        ("a^2", {}, 0.159474),
        ("sqrt(a)", {}, 8.95526e-9),
        ("a * b", {"in_features": 4}, 7.104e-8),
        ("a * b", {"in_features": 10}, 1.510e-5),
        ("a * b", {"in_features": 300}, 12.97),
        ("a * b", {"subset": 0.05}, 0.02885),
        ("a * b", {"subset": 0.5}, 0.002221),
        ("a * b", {"overlap": 0.0}, 0.16053),
        ("a * b", {"overlap": 1.0}, 0.15949),
        ("a * b", {"test": ((-6, -2), (2, 6))}, 2.308e-4),
        ("a * b", {"test": (0.2, 2)}, 9.204e-4),
        ("a * b", {"test": (20, 40)}, 505.5),
    ],
)
def test_hidden_sums(operation: str, options: dict[str, Any], published: float) -> None:
    task = sweep.Arithmetic(operation, **options)
    found = off_by(1e-5, task, check_range("test", task.test))
    assert found == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(
    ("operation", "test", "published"),
    [
        ("a + b", (20, 40), 3.667e-5),
        ("a - b", ((-6, -2), (2, 6)), 6.667e-7),
        ("a * b", (-40, -20), 0.03484),
        ("a * b", (-6.1, -1.2), 9.391e-6),
        ("a / b", (0.2, 2), 1.480e-7),
        ("a / b", (1.2, 6), 8.265e-8),
    ],
)
def test_two_numbers(operation: str, test: Any, published: float) -> None:
    task = sweep.Arithmetic(operation, in_features=2, test=test)
    found = off_by(1e-4, task, check_range("test", test))
    assert found == pytest.approx(published, rel=0.03)
    # the error grows with the square of what the weights are off by
    ten_times_nearer = off_by(1e-5, task, check_range("test", test))
    assert ten_times_nearer == pytest.approx(found / 100, rel=0.001)


def test_the_rules() -> None:
    task = sweep.Arithmetic("+", in_features=2)
    test = check_range("test", task.test)
    assert check_success(None, task) == "weights_1e-5"
    assert threshold("weights_1e-4", task, test, {}) == off_by(1e-4, task, test)
    assert threshold(0.5, task, test, {}) == 0.5
    assert threshold(lambda task, row: row["lr"] * 2, task, test, {"lr": 3.0}) == 6.0
    own = sweep.Function(lambda x: x.sum(1), 2, (1, 2), (2, 3))
    assert check_success(None, own) == 1e-5


@pytest.mark.parametrize(
    ("success", "error", "words"),
    [
        ("weights", ValueError, "expected one of weights_1e-5, weights_1e-4"),
        (True, TypeError, "got bool"),
        ([1], TypeError, "got list"),
    ],
)
def test_what_is_no_rule_is_refused(success: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"success: .*{words}"):
        check_success(success, sweep.Arithmetic("+"))


def test_weights_have_no_meaning_for_a_function_of_ones_own() -> None:
    own = sweep.Function(lambda x: x.sum(1), 2, (1, 2), (2, 3))
    with pytest.raises(ValueError, match=r"weights_1e-5.* is for Arithmetic; Function takes"):
        check_success("weights_1e-5", own)
    with pytest.raises(ValueError, match="above 0, got 0"):
        threshold(0, own, None, {})


def test_wilson() -> None:
    """Of 31 in 100, as published with Madsen and Johansen's NAC in log space."""
    assert wilson(31, 100) == pytest.approx((0.2278, 0.4063), abs=5e-5)
    assert wilson(0, 10)[0] == pytest.approx(0) and wilson(10, 10)[1] == pytest.approx(1)
