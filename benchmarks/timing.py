"""Interleaved timing: all contenders in every round, so that a disturbance hits all alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

Call = Callable[[], object]
Clock = Callable[[Call, int], float]  # seconds of each of so many calls in a row
Samples = Mapping[str, Sequence[float]]  # seconds per call; one of each name in every round


def _seconds(call: Call, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def processor_seconds(call: Call, times: int) -> float:
    """As by the clock, but for the time that the process waits for a core."""
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def _calls_per_sample(call: Call, sample_s: float, seconds: Clock) -> int:
    """How many calls in a row take about sample_s, so that the clock's own cost vanishes."""
    for _ in range(3):
        call()
    times = 1
    while (elapsed := seconds(call, times) * times) < sample_s / 4:
        times *= 4
    return max(1, round(sample_s / (elapsed / times)))


def interleave(
    calls: Mapping[str, Call],
    *,
    budget_s: float,
    sample_s: float = 2e-3,
    min_rounds: int = 7,
    max_rounds: int = 201,
    seconds: Clock = _seconds,
) -> dict[str, list[float]]:
    """Seconds per call of each of ``calls``, sampled in turn until ``budget_s`` is spent.

    A round takes one sample of each in a random order. A sample is the mean of so many calls in a
    row that it lasts about ``sample_s``, after one call that is not counted and that brings the
    caches back to this contender. ``seconds`` times a sample.
    """
    times = {name: _calls_per_sample(call, sample_s, seconds) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + budget_s
        for round_number in range(max_rounds):
            if round_number >= min_rounds and time.perf_counter() > end:
                break
            shuffle(order)
            for name in order:
                calls[name]()
                samples[name].append(seconds(calls[name], times[name]))
    finally:
        if collecting:
            gc.enable()
    return samples


def ratio(samples: Samples, slow: str, fast: str) -> float:
    """How many times faster ``fast`` is: the median over the rounds of each round's own ratio."""
    return statistics.median(s / f for s, f in zip(samples[slow], samples[fast], strict=True))


def quickest(samples: Samples, names: Iterable[str]) -> str:
    """The one of ``names`` with the smallest median."""
    return min(names, key=lambda name: statistics.median(samples[name]))
