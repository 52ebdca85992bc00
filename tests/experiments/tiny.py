"""Every experiment at a size of seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from nalu_kernels.experiments import benchmark, digits, gridworld, load, programs, recurrent, runner
from nalu_kernels.experiments.experiment import Outcome, Settings, Trial
from nalu_kernels.experiments.training import Training

_SMALL: list[tuple[Any, dict[str, Any]]] = [
    # The benchmarks test often, on little.
    (benchmark, {"EVERY": 3, "SAMPLES": 100}),
    # Sequences of the tests, and games.
    (recurrent, {"LONG": 20}),
    (digits, {"LENGTHS": (10, 20, 30)}),
    (programs, {"LENGTHS": dict.fromkeys(programs.OPERATORS, (2, 3, 4, 5, 6))}),
    (gridworld, {"TIMES": (5, 12, 14, 20, 24, 40, 44, 60)}),
]


@contextmanager
def quick() -> Iterator[None]:
    """Tests that are over soon, in this process."""
    with ExitStack() as stack:
        for module, small in _SMALL:
            stack.enter_context(patch.multiple(module, **small))
        yield


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


def trained(name: str, trial: Trial, steps: int, **options: Any) -> dict[str, Any]:
    """The numbers of one trial, on the CPU."""
    settings = Settings(torch.device("cpu"), 1, steps, Path("unused"), options=options)
    return load(name).run(trial, settings, Training(settings.device))


# What is measured by the clock.
TIMES = {"seconds"}


def numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has to be the same when a run is repeated."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
