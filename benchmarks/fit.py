"""How many laws a search finds in tables of numbers, and what it takes.

    python -m benchmarks.fit --laws 100 --seed 1000 --seconds 60

A law is found if the best model has a relative error of at most 1e-9 on fresh rows, inside the
ranges of its table and outside of them, with -1, 0 and 1 in the place of its weights and 1 or -1 in
that of its factor. The settings of :mod:`nalu_kernels.fit.candidates` were chosen on seeds below
1000.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from nalu_kernels.fit.found import Found, relative_error
from nalu_kernels.fit.search import search

from . import laws, machine, markdown

ROWS, FRESH = 300, 1000
EXACT = 1e-9


class Outcome(NamedTuple):
    """Of one law. ``error`` is the larger one of the rounded model's on fresh rows."""

    law: laws.Law
    best: Found
    error: float
    steps: int
    processor: float  # seconds of all threads
    clock: float

    @property
    def exact(self) -> bool:
        return self.error <= EXACT


def rounded(found: Found) -> Callable[[Tensor], Tensor]:
    """The model with whole numbers for its weights and its factor."""
    model = copy.deepcopy(found.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.round().clamp(-1, 1))
    scale = 1.0 if found.scale > 0 else -1.0

    def answers(x: Tensor) -> Tensor:
        with torch.no_grad():
            made: Tensor = model(x if found.columns is None else x[:, found.columns]).squeeze(1)
        return scale * made

    return answers


def measure(seed: int, seconds: float, threads: int | None) -> Outcome:
    """Draws a law and its table, and searches."""
    law, generator = laws.draw(seed), torch.Generator().manual_seed(seed)
    x = law.inputs(ROWS, generator)
    y = law.answers(x)
    learning, choosing = slice(ROWS * 3 // 4), slice(ROWS * 3 // 4, ROWS)
    processor, clock = time.process_time(), time.perf_counter()
    models = search(
        x[learning],
        y[learning],
        choosing_x=x[choosing],
        choosing_y=y[choosing],
        seconds=seconds,
        threads=threads,
    )
    processor, clock = time.process_time() - processor, time.perf_counter() - clock
    answers = rounded(models[0])
    errors = []
    for outside in (False, True):
        fresh = law.inputs(FRESH, generator, outside)
        errors.append(relative_error(answers(fresh), law.answers(fresh)))
    steps: dict[str, int] = {}
    for model in models:
        steps[model.candidate.name] = max(model.steps, steps.get(model.candidate.name, 0))
    return Outcome(law, models[0], max(errors), sum(steps.values()), processor, clock)


def table(name: str, outcomes: list[Outcome], groups: Iterable[str]) -> str:
    """Markdown: how many were found, of each group that the field ``name`` of laws has."""
    rows = [[name, "found", "processor seconds, median", "at most", "steps, median"]]
    for group in (*groups, "all"):
        some = [one for one in outcomes if group in (getattr(one.law, name), "all")]
        if some:
            seconds = sorted(one.processor for one in some)
            rows.append(
                [
                    group,
                    f"{sum(one.exact for one in some)} of {len(some)}",
                    f"{statistics.median(seconds):.2f}",
                    f"{seconds[-1]:.1f}",
                    f"{statistics.median(one.steps for one in some):,.0f}",
                ]
            )
    return markdown.table(rows, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--laws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the first law")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each, at most")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    outcomes = []
    for seed in range(given.seed, given.seed + given.laws):
        one = measure(seed, given.seconds, given.threads)
        outcomes.append(one)
        print(
            f"{seed}: {'found' if one.exact else 'not found'} {one.law.text} ({one.law.range}, "
            f"{len(one.law.ranges)} columns) by {one.best.candidate.name}, error {one.error:.1e}, "
            f"{one.processor:.1f} s of processor, {one.clock:.1f} s, {one.steps:,} steps",
            flush=True,
        )
    print(f"\n{table('kind', outcomes, laws.KINDS)}\n\n{table('range', outcomes, laws.RANGES)}")
    print("\n" + ", ".join(f"{name}: {value}" for name, value in machine.describe().items()))


if __name__ == "__main__":
    main()
