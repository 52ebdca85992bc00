"""The step ``benchmarks``: hands the units to a worker, and to another where one was lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from . import worker
from .cases import DRY_GROUPS, GROUPS, Unit, units
from .children import Lines, lines, python
from .results import OUT_OF_TIME, Clock, Results
from .table import progress
from .verdict import merge

STEP = "benchmarks"
START_S = 60.0  # until a worker's first line
UNIT_S = 60.0
AUTOTUNE_S = 150.0


class _OutOfTime(Exception):
    """The whole run's time is over."""


class _NoWorker(Exception):
    """Not even the first line came; the message says what did."""


def choose(pattern: str | None, dry_run: bool) -> dict[str, Unit | None]:
    """By id, in order; what is not a unit of its own stands for the accuracy tasks."""
    found: dict[str, Unit | None] = {worker.ACCURACY: None}
    found |= {unit.id: unit for unit in units(DRY_GROUPS if dry_run else GROUPS)}
    return {
        name: unit
        for name, unit in found.items()
        if pattern is None or fnmatchcase(name, f"*{pattern}*")
    }


def limit(unit: Unit | None) -> float:
    return AUTOTUNE_S if unit is not None and unit.autotune else UNIT_S


def keep(results: Results, unit: Unit | None, found: Any) -> None:
    """Puts a unit's result where it belongs in the results."""
    if unit is None:
        results.data["accuracy"] = found
    else:
        for provider, why in found["failed"].items():
            results.fail(f"{unit.id}, {provider}", why)
        rows = results.data["cases"]
        known = rows.get(unit.case.id)
        rows[unit.case.id] = found if known is None else merge(known, found)
        print(progress(unit.id, found), flush=True)
    results.save()


def _serve(
    stream: Lines,
    chosen: dict[str, Unit | None],
    left: list[str],
    results: Results,
    clock: Clock,
) -> None:
    """Takes what one worker sends, striking off ``left`` what is done, until it ends or is late."""
    running: str | None = None
    answered = False
    while True:
        allowed = START_S if running is None else limit(chosen[running])
        try:
            line = stream.next(min(allowed, clock.left))
        except TimeoutError:
            if clock.left <= 0:
                raise _OutOfTime from None
            if not answered:
                raise _NoWorker(f"no answer within {allowed:g} s") from None
            if running is not None:
                results.fail(running, f"not done within {allowed:g} s")
                left.remove(running)
            return
        if line is None:
            ended = stream.ended()
            if left and not answered:
                raise _NoWorker(f"{ended}: {ended.output.strip()}")
            if running is not None:
                results.fail(running, f"the worker was lost: {ended}: {ended.output.strip()}")
                left.remove(running)
            return
        answered = True
        event = json.loads(line)
        if "begin" in event:
            running = event["begin"]
            continue
        if "failed" in event:
            results.fail(event["failed"], event["why"])
            results.save()
        else:
            keep(results, chosen[event["done"]], event["result"])
        left.remove(event.get("failed") or event["done"])
        running = None


def run(
    results: Results,
    clock: Clock,
    environment: dict[str, str],
    dry_run: bool,
    pattern: str | None = None,
    command: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> None:
    chosen = choose(pattern, dry_run)
    dry = ["--dry-run"] if dry_run else []
    left = list(chosen)
    if not left:
        results.fail(STEP, f"no case matches {pattern!r}")
    command = command or (lambda ids: python("-m", "benchmarks.gpu.worker", *dry, *ids))
    try:
        while left:
            if clock.left <= 0:
                raise _OutOfTime
            with lines(command(left), environment) as stream:
                _serve(stream, chosen, left, results, clock)
    except _OutOfTime:
        for name in left:
            results.skip(name, OUT_OF_TIME)
        print(f"benchmarks: out of time, {len(left)} of {len(chosen)} not measured", flush=True)
    except _NoWorker as error:
        results.fail(STEP, f"the worker did not start: {error}")
    out_of_time = sum(name in results.data["skipped"] for name in chosen)
    results.step(STEP, chosen=len(chosen), out_of_time=out_of_time)
