"""The step ``sequences``: cells over whole sequences, and layers side by side, in milliseconds of a
forward with its backward, launches included.

    python -m benchmarks.gpu.sequences [--dry-run]      a line of JSON for each row
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from nalu_kernels import use_backend

from .. import recurrence, units
from ..cases import shape_name
from ..timing import Call, interleave
from . import streamed
from .device import Device, choose
from .measure import describe
from .providers import library_backends
from .results import Clock, Results

STEP = "sequences"
SHARE_OF_TIME = 1 / 8
UNITS, DRY_UNITS = 64, 2
DRY_SIZES: recurrence.Sizes = (2, 1, 2, 3)
DRY_SHAPE: units.Sizes = (2, 2, 1)
# Steps of the longest sequences are left out: a loop of a thousand takes the time of all others.
MOST_STEPS = 100


Calls = Callable[[], Mapping[str, Call]]


def cases(device: Device, dry_run: bool) -> Iterator[tuple[str, Calls, str]]:
    """A name, the contenders' calls, and which of them is the library's."""
    sizes = [sizes for sizes in recurrence.NEEDED if sizes[-1] <= MOST_STEPS]
    for name in ("NACCell",) if dry_run else ("NACCell", "NALUCell"):
        for one in [DRY_SIZES] if dry_run else sizes:
            batch, features, hidden, steps = one
            title = f"{name} {batch}×{features}→{hidden}, {steps} steps"
            calls = functools.partial(recurrence.calls, name, one, False, device.name)
            yield title, calls, "unroll"
    count = DRY_UNITS if dry_run else UNITS
    for shape in [DRY_SHAPE] if dry_run else units.NEEDED:
        title = f"{count} NALU {shape_name(shape)}"
        yield title, functools.partial(units.calls, "NALU", shape, count, device.name), "units"


def measure(
    title: str, calls: Calls, own: str, device: Device, backends: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"what": title, "ms": {}, "failed": {}}
    contenders: dict[str, Call] = {}
    for name, call in calls().items():
        if name == "empty":
            continue
        for backend in backends if name in (own, "loop", "separate") else [""]:
            forced = _forced(call, backend)
            try:
                forced()
            except Exception as error:  # recorded, and the next one goes on
                row["failed"][f"{name} {backend}".strip()] = describe(error)
            else:
                contenders[f"{name} {backend}".strip()] = forced
    samples = interleave(
        contenders, budget_s=device.budget_s, min_rounds=device.min_rounds, seconds=device.seconds
    )
    row["ms"] = {
        name: float(f"{1e3 * statistics.median(times):.4g}") for name, times in samples.items()
    }
    device.free()
    return row


def _forced(call: Call, backend: str) -> Call:
    def forced() -> object:
        with use_backend(backend):
            return call()

    return forced if backend else call


def run(results: Results, clock: Clock, environment: dict[str, str], dry_run: bool) -> None:
    def name(row: dict[str, Any]) -> str:
        return str(row["what"])

    streamed.run(STEP, SHARE_OF_TIME, name, results, clock, environment, dry_run)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.sequences")
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args()
    written = streamed.output()
    device = choose(chosen.dry_run)
    backends = list(library_backends(torch.empty(0, device=device.name)))
    for title, calls, own in cases(device, chosen.dry_run):
        row = measure(title, calls, own, device, backends)
        print(json.dumps(row, ensure_ascii=False), file=written)


if __name__ == "__main__":
    main()
