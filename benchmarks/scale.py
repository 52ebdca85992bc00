"""Many runs in one call: `python -m benchmarks.sweep --scale`.

NALU 2→1 on a + b, on one thread. A call of 100,000 runs should take no more time a step than one of
1,000, and memory in proportion. Of 1,700,000 runs, 64 that lie apart are trained by the reference
too, and alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch
from torch import nn

from nalu_kernels import NALU, sweep

FEW, MANY, MOST = 1_000, 100_000, 1_700_000
STEPS, ROUNDS = 1_000, 3
APART = 64
Results = dict[str, Any]


def trained(seeds: Any, backend: str = "cpu", **options: Any) -> sweep.Result:
    task = sweep.Arithmetic("a + b", 2, samples=options.pop("samples", 10_000))
    stack = nn.Sequential(NALU(2, 1))
    result = sweep.run(
        stack, task, {"seed": seeds}, backend=backend, threads=1, quiet=True, **options
    )
    if result.stopped:
        raise SystemExit(f"stopped by {result.stopped}: nothing is measured of a part")
    return result


def microseconds(runs: int) -> float:
    """Processor time of a step of one run, in a call of so many."""
    start = time.process_time()
    trained(range(runs), steps=STEPS)
    return 1e6 * (time.process_time() - start) / (runs * STEPS)


def peak() -> int:
    """Bytes that this process has held at most."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def farthest() -> float:
    """How far the sample's parameters are from the reference's, after two steps in float64.

    Raises:
        AssertionError: a run's bits are not those of the run alone.
    """
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "samples": 10, "dtype": torch.float64}
    rows = [(MOST - 1) * k // (APART - 1) for k in range(APART)]
    found = trained(range(MOST), **options).modules("last")[0]
    expected, alone = (
        trained(rows, backend, **options).modules("last")[0] for backend in ("reference", "cpu")
    )
    assert all(alone[name].equal(value[rows]) for name, value in found.items())
    return max(float((expected[name] - value[rows]).abs().max()) for name, value in found.items())


def measure() -> Results:
    few = [microseconds(FEW) for _ in range(ROUNDS)]
    before = peak()
    many = microseconds(MANY)
    between = peak()
    few += [microseconds(FEW) for _ in range(ROUNDS)]
    error = farthest()
    return {
        "microseconds": {str(FEW): round(statistics.median(few), 3), str(MANY): round(many, 3)},
        "bytes a run": {
            str(MANY): round((between - before) / (MANY - FEW)),
            str(MOST): round((peak() - between) / (MOST - MANY)),
        },
        "farthest": error,
    }


def section(results: Results) -> str:
    """For docs/sweep.md."""
    times, sizes = results["microseconds"], results["bytes a run"]
    return (
        f"A call of {MANY:,} runs of NALU 2→1 takes {times[str(MANY)]:.2f} µs a step of one run, "
        f"and one of {FEW:,} takes {times[str(FEW)]:.2f}. A run takes {sizes[str(MANY)]:,} bytes "
        f"there, and {sizes[str(MOST)]:,} in a call of {MOST:,} runs. {APART} of these, far "
        f"apart, are within {results['farthest']:.0e} of the reference after two steps."
    )
