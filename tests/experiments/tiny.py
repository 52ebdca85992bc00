"""Every experiment at a size of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from nalu_kernels.experiments import load, runner, success
from nalu_kernels.experiments.experiment import Outcome

# Options of an experiment's own; every one has to be there.
OPTIONS: dict[str, dict[str, Any]] = {"digits": {"data": None}}


def run(
    name: str,
    out: Path,
    *,
    seeds: int = 1,
    steps: int = 20,
    jobs: int = 1,
    options: dict[str, Any] | None = None,
    **more: Any,
) -> Outcome:
    chosen = {**OPTIONS.get(name, {}), **(options or {})}
    with patch.multiple(success, ROUNDS=1, STEPS=2):
        return runner.run(
            load(name),
            seeds=seeds,
            steps=steps,
            out=str(out),
            jobs=jobs,
            options=chosen,
            **more,
        )


# What is measured by the clock.
TIMES = {"seconds", "eager", "library", "rounds"}


def numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has to be the same when a run is repeated."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
