"""Every experiment at a size of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nalu_kernels.experiments import load, runner
from nalu_kernels.experiments.experiment import Outcome

# Options of an experiment's own; every one has to be there.
OPTIONS: dict[str, dict[str, Any]] = {"digits": {"data": None}}


def run(name: str, out: Path, *, seeds: int = 1, steps: int = 20, **more: Any) -> Outcome:
    options = {**OPTIONS.get(name, {}), **more.pop("options", {})}
    return runner.run(
        load(name),
        seeds=seeds,
        steps=steps,
        out=str(out),
        jobs=more.pop("jobs", 1),
        options=options,
        **more,
    )


def numbers(outcome: Outcome) -> list[dict[str, Any]]:
    """What has to be the same when a run is repeated: all but times."""
    return [
        {key: value for key, value in row.items() if "second" not in key} for row in outcome.rows
    ]
