"""``python -m benchmarks.gpu``: everything that needs a GPU, in one run."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import benchmarks, parity, sanitizer, sequences, sweeps
from .children import ROOT, python, run_all
from .results import OUT_OF_TIME, Clock, Results
from .table import text

RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
STEPS = (parity.STEP, sanitizer.STEP, sweeps.STEP, sequences.STEP, benchmarks.STEP)
ABOUT_S = 120.0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--dry-run", action="store_true", help="on a CPU, with small shapes: proves the script"
    )
    parser.add_argument(
        "--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP", help=", ".join(STEPS)
    )
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        help="of the benchmarks, those with PATTERN in their names (*, ? and [] as in a shell), "
        "such as 64x2-1-forward+backward-highest",
    )
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="for everything together (default: 9)"
    )
    parser.add_argument(
        "--output", type=Path, help=f"default: {RESULTS.relative_to(ROOT)} for a whole run on a GPU"
    )
    chosen = parser.parse_args(arguments)
    if chosen.minutes <= 0:
        parser.error("--minutes has to be positive")
    return chosen


def _path(chosen: argparse.Namespace) -> Path | None:
    """Neither a part of a run nor a dry one may take the place of a whole one."""
    whole = not chosen.dry_run and chosen.only is None and set(chosen.steps) == set(STEPS)
    return chosen.output or (RESULTS if whole else None)


def _about(environment: dict[str, str], dry_run: bool) -> dict[str, Any]:
    command = python("-m", "benchmarks.gpu.about", *["--dry-run"] * dry_run)
    (ended,) = run_all({"about": command}, environment, ABOUT_S).values()
    if ended.status == 2:
        print("No GPU: nothing was measured. On a CPU, --dry-run proves this script.")
        sys.exit(2)
    if ended.status != 0:
        print(f"The GPU could not be asked what it is: {ended}\n{ended.output}")
        sys.exit(1)
    about: dict[str, Any] = json.loads(ended.output.splitlines()[-1])
    return about


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 if anything failed, 2 without a GPU."""
    chosen = _options(arguments)
    # So that the processes which were started are ended in this case too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    clock = Clock(chosen.minutes)
    dry_run = chosen.dry_run
    environment = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if dry_run else {}
    results = Results(
        _path(chosen),
        dry_run=dry_run,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        minutes=chosen.minutes,
        only=chosen.only,
        machine=_about(environment, dry_run),
    )
    results.save()
    run = {
        parity.STEP: lambda: parity.run(results, clock, environment, dry_run),
        sanitizer.STEP: lambda: sanitizer.run(results, clock, environment, dry_run),
        sweeps.STEP: lambda: sweeps.run(results, clock, environment, dry_run),
        sequences.STEP: lambda: sequences.run(results, clock, environment, dry_run),
        benchmarks.STEP: lambda: benchmarks.run(results, clock, environment, dry_run, chosen.only),
    }
    for step in STEPS:
        if step not in chosen.steps:
            continue
        if clock.left <= 0 and step != benchmarks.STEP:  # that one names each case
            results.skip(step, OUT_OF_TIME)
            continue
        print(f"{step}: {clock.left:.0f} s are left", flush=True)
        try:
            run[step]()
        except Exception as error:  # recorded, and the next step goes on
            results.fail(step, f"{type(error).__name__}: {error}")
    results.data["seconds"] = round(clock.spent, 1)
    results.save()
    print(text(results.data))
    print(f"Written to {results.path}" if results.path else "Not written (--output PATH writes it)")
    return 1 if results.data["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
