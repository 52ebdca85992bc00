"""The speed of each contender, as a pytest-benchmark each.

The measuring itself is `timing.interleave`: pytest-benchmark times one contender after the other,
and what the machine does meanwhile would decide their ratio. It gets the samples afterwards, by a
clock that replays them, so that its statistics, storage and comparisons between runs all work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .cases import Case
from .speed import Measured

# torch.compile's own imports.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

_now = 0.0


def replay_clock() -> float:
    return _now


def replay(benchmark: BenchmarkFixture, samples: Sequence[float]) -> None:
    """Makes each sample one round of ``benchmark``, whose timer has to be ``replay_clock``."""
    rounds = iter(samples)

    def advance() -> None:
        global _now
        _now += next(rounds)

    benchmark.pedantic(advance, rounds=len(samples))


@pytest.mark.benchmark(timer=replay_clock)
def test_speed(
    case: Case,
    contender: str,
    measured: Callable[[Case], Measured],
    benchmark: BenchmarkFixture,
) -> None:
    measurement = measured(case)
    if contender in measurement.skipped:
        pytest.skip(measurement.skipped[contender])
    benchmark.group = str(case)
    replay(benchmark, measurement.samples[contender])
