"""Every experiment at a size of seconds."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nalu_kernels.experiments import load, runner, success
from nalu_kernels.experiments.experiment import Outcome


def quick() -> AbstractContextManager[Any]:
    """The benchmarks test often and measure their speed shortly."""
    return patch.multiple(success, ROUNDS=1, STEPS=2, EVERY=10)


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
    with quick():
        return runner.run(
            load(name),
            seeds=seeds,
            steps=steps,
            out=str(out),
            jobs=jobs,
            options=options,
            **more,
        )


# What is measured by the clock.
TIMES = {"seconds", "eager", "library", "rounds"}


def numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has to be the same when a run is repeated."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
