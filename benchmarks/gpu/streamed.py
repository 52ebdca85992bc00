"""A step whose process prints a line of JSON for each row that it has measured."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, TextIO

from .children import lines, python
from .results import OUT_OF_TIME, Clock, Results

ROW_S = 60.0


def run(
    step: str,
    share: float,
    name: Callable[[dict[str, Any]], str],
    results: Results,
    clock: Clock,
    environment: dict[str, str],
    dry_run: bool,
) -> None:
    """Runs ``benchmarks.gpu.<step>`` within its share of the time, and keeps its rows by the name
    of the step. ``name`` is a row's, for failures."""
    deadline = time.monotonic() + clock.part(share)
    dry = ["--dry-run"] if dry_run else []
    rows = results.data[step] = []
    with lines(python("-m", f"benchmarks.gpu.{step}", *dry), environment) as stream:
        while True:
            try:
                line = stream.next(min(ROW_S, deadline - time.monotonic()))
            except TimeoutError:
                results.skip(f"{step}, what is missing", OUT_OF_TIME)
                break
            if line is None:
                ended = stream.ended()
                if ended.status != 0:
                    results.fail(step, f"{ended}: {ended.output.strip()}")
                break
            row = json.loads(line)
            rows.append(row)
            print(step, line.strip(), flush=True)
            for which, why in row["failed"].items():
                results.fail(f"{step}: {name(row)}, {which}", why)
            results.save()
    results.step(step, rows=len(rows))


def output() -> TextIO:
    """Where the rows go: whatever else prints must not come between them."""
    written = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return written
