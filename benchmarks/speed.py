"""Measures a case and says what it means: medians, ratios, and whether they suffice."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .cases import BACKWARD, NEEDED_ON_GRID, Case
from .contenders import COMPILED, EAGER, EMPTY, LIBRARY, LINEARS, Function, build
from .timing import Samples, interleave, quickest, ratio


class Measured(NamedTuple):
    case: Case
    samples: dict[str, list[float]]
    skipped: dict[str, str]
    saved_bytes: dict[str, int]


def measure(case: Case, *, budget_s: float, compile: Function = torch.compile) -> Measured:
    with torch.set_grad_enabled(case.what == BACKWARD):
        contenders = build(case, compile)
        samples = interleave(contenders.calls, budget_s=budget_s)
    return Measured(case, samples, contenders.skipped, contenders.saved_bytes)


def ratios(samples: Samples) -> dict[str, float]:
    """The library against each other contender, as rounds' medians.

    ``over_best``: times faster than the faster of eager and torch.compile. ``of_floor``: times as
    long as the higher of the two floors.
    """
    rivals = [name for name in (EAGER, COMPILED) if name in samples]
    floor = LINEARS if quickest(samples, (LINEARS, EMPTY)) == EMPTY else EMPTY
    found = {
        "over_eager": ratio(samples, EAGER, LIBRARY),
        "over_best": ratio(samples, quickest(samples, rivals), LIBRARY),
        "of_floor": ratio(samples, LIBRARY, floor),
    }
    if COMPILED in samples:
        found["over_compile"] = ratio(samples, COMPILED, LIBRARY)
    return found


def summary(samples: Sequence[float]) -> dict[str, float | int]:
    microseconds = sorted(sample * 1e6 for sample in samples)
    fifths = statistics.quantiles(microseconds, n=5, method="inclusive")
    return {
        "median_us": round(statistics.median(microseconds), 3),
        "p20_us": round(fifths[0], 3),
        "p80_us": round(fifths[3], 3),
        "rounds": len(microseconds),
    }


def _noisy(samples: Samples) -> bool:
    """Whether the library's or eager's samples scatter so much that their ratio says little."""
    fifths = (statistics.quantiles(samples[name], n=5) for name in (LIBRARY, EAGER))
    return any(last > 1.5 * first for first, *_, last in fifths)


def record(measured: Measured) -> dict[str, Any]:
    """A case's row in the results file."""
    case = measured.case
    found = ratios(measured.samples)
    missed = []
    if case.needed is not None and found["over_eager"] < case.needed:
        missed.append(f"{case.needed:g}× eager")
    if case.layer == "nalu" and case.what == BACKWARD and found["over_best"] < NEEDED_ON_GRID:
        missed.append(f"{NEEDED_ON_GRID:g}× best")
    return {
        "layer": case.layer,
        "shape": list(case.shape),
        "what": case.what,
        "inner": case.inner,
        "contenders": {name: summary(times) for name, times in measured.samples.items()},
        "skipped": measured.skipped,
        "ratios": {name: round(value, 4) for name, value in found.items()},
        "needed_over_eager": case.needed,
        "missed": missed,
        "noisy": _noisy(measured.samples),
        "saved_bytes": measured.saved_bytes,
    }
