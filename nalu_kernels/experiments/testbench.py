"""Arithmetic on two overlapping subset sums: how often a model really finds the solution.

Source: Madsen and Johansen 2020, "Neural Arithmetic Units" (ICLR), section 4.1 and appendix. Of
100 numbers, a is the sum of 25 in a row and b the sum of 25 in a row that has 12 in common with it;
where they start differs from seed to seed. A network with a hidden width of 2 learns a + b, a - b,
a * b or a / b on numbers uniform in [1, 2], with batches of 128, the mean squared error and Adam at
0.001, and is tested on [2, 6]; success.py has the criterion. The models are two NACs, a NAC and a
NAC in log space, and two NALUs, whose two paths share one W as in the paper's figures.

The published size has 5,000,000 steps for a trial. The small one keeps everything but the number of
steps and seeds, so it can solve only what is solved early: a - b with two NACs, for which half of
the paper's seeds need 9,000 steps; the next, a + b with two NACs, needs 250,000.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nalu_kernels import NAC, NALU

from .arithmetic import OPERATIONS
from .experiment import Comparison, Outcome, Scale
from .plot import colour
from .report import columns, number
from .success import (
    EPSILON,
    TASKS,
    Benchmark,
    draw_off,
    draw_solved,
    interval,
    off_by,
    rate_and_interval,
)
from .training import generator, uniform

MODELS = ("NAC", "NAC log", "NALU")
LENGTH, SUBSET, OVERLAP, HIDDEN = 100, 25, 12, 2
INSIDE, OUTSIDE = (1.0, 2.0), (2.0, 6.0)


class SubsetSums:
    """The task with the subsets of one seed."""

    def __init__(self, task: str, seed: int) -> None:
        self._task = task
        room = LENGTH - (2 * SUBSET - OVERLAP)
        source = generator("testbench", "subsets", seed)
        first = int(torch.randint(room + 1, (1,), generator=source))
        second = first + SUBSET - OVERLAP
        self.a, self.b = slice(first, first + SUBSET), slice(second, second + SUBSET)

    def draw(self, source: torch.Generator, shape: tuple[int, ...], *, outside: bool) -> Tensor:
        return uniform(source, (*shape, LENGTH), *(OUTSIDE if outside else INSIDE))

    def target(self, x: Tensor) -> Tensor:
        a, b = (x[..., subset].sum(-1, keepdim=True) for subset in (self.a, self.b))
        return OPERATIONS[self._task](a, b)

    def nearly(self, x: Tensor) -> Tensor:
        """The first layer has 1 - EPSILON for 1 and EPSILON for 0, the second is perfect."""
        everything = x.sum(-1, keepdim=True)
        a, b = (
            (1 - EPSILON) * inside + EPSILON * (everything - inside)
            for inside in (x[..., subset].sum(-1, keepdim=True) for subset in (self.a, self.b))
        )
        return OPERATIONS[self._task](a, b)


class Testbench(Benchmark):
    name = "testbench"
    title = "how often a model finds the exact solution, with two sums of 100 numbers"
    source = "Madsen and Johansen 2020, section 4.1 and appendix"
    differs = (
        "The threshold is computed on each trial's own 10,000 test samples; the authors simulated "
        "it once, with subsets of 26 numbers instead of 25 by an index that counts one too many, "
        "which makes theirs 8 % lower for a + b and 15 % for a / b. Other random "
        "numbers. The small size ends long before the published models have learned anything but "
        "a - b."
    )
    small = Scale(seeds=3, steps=15_000)
    full = Scale(seeds=100, steps=5_000_000)
    models, ranges = MODELS, (interval(INSIDE),)
    pairs = tuple((model, task) for task in TASKS for model in MODELS)
    # From the tables of success rates, of the main text and the appendix: of 100 seeds those that
    # succeeded, and the median step at which they first had.
    published: ClassVar[dict[tuple[str, str], tuple[int, str]]] = {
        ("NAC", "a + b"): (100, "250,000"),
        ("NAC log", "a + b"): (0, ""),
        ("NALU", "a + b"): (14, "1,500,000"),
        ("NAC", "a - b"): (100, "9,000"),
        ("NAC log", "a - b"): (0, ""),
        ("NALU", "a - b"): (14, "1,900,000"),
        ("NAC", "a * b"): (0, ""),
        ("NAC log", "a * b"): (31, "2,800,000"),
        ("NALU", "a * b"): (0, ""),
        ("NAC", "a / b"): (0, ""),
        ("NAC log", "a / b"): (0, ""),
        ("NALU", "a / b"): (0, ""),
    }

    def operation_and_range(self, task: str) -> tuple[str, str]:
        return task, interval(INSIDE)

    def network(self, model: str) -> nn.Module:
        if model == "NALU":
            return nn.Sequential(NALU(LENGTH, HIDDEN), NALU(HIDDEN, 1))
        return nn.Sequential(NAC(LENGTH, HIDDEN), NAC(HIDDEN, 1, log_space=model == "NAC log"))

    def problem(self, task: str, seed: int) -> SubsetSums:
        return SubsetSums(task, seed)

    def table(self, outcome: Outcome) -> list[str]:
        rows = [
            ["", "", "", "", "solved", "sparsity", "error", "error", "weights"],
            ["task", "model", "success", "%, interval", "at step", "error", "in", "out", "off by"],
        ]
        shown = ""
        for model, task in self.judged(outcome):
            cell = self.cell(outcome, model, task)
            low_high = rate_and_interval(cell.successes, cell.total)
            solved = ["-", "-"]
            if cell.successes:
                solved = [f"{cell.solved_at:,.0f}", number(cell.sparsity)]
            errors = [number(cell.inside), number(cell.outside), off_by(cell.off)]
            name = "" if task == shown else task
            rows.append([name, model, cell.share, low_high, *solved, *errors])
            shown = task
        return [
            f"success: mean squared error outside, in {interval(OUTSIDE)}, below that of weights "
            f"off by {EPSILON:g}; %: with",
            f"Wilson's 95 % interval; error in: in {interval(INSIDE)}, as in training; medians of "
            "the seeds",
            "",
            *columns(rows, (-7, -8, 8, 18, 11, 11, 11, 11, 11)),
            "",
            *self.speed_table(outcome),
        ]

    def claims(self, outcome: Outcome) -> list[str]:
        lines = [self.success_claim(outcome)]
        for model, task in self.judged(outcome):
            cell = self.cell(outcome, model, task)
            published, _ = self.published[model, task]
            if published or cell.successes:
                when = f", at step {cell.solved_at:,.0f} (median)" if cell.successes else ""
                lines.append(
                    f"{model} solves {task} on {cell.share} seeds{when}; its weights are off by "
                    f"{off_by(cell.off)}"
                )
        return [*lines, self.speed_claim(outcome)]

    def compare(self, outcome: Outcome) -> list[Comparison]:
        source = "Madsen and Johansen 2020, success rates of all models (appendix)"
        rows = []
        for model, task in self.judged(outcome):
            successes, solved_at = self.published[model, task]
            cell = self.cell(outcome, model, task)
            ours = rate_and_interval(cell.successes, cell.total)
            theirs = rate_and_interval(successes, 100)
            rows.append(Comparison(f"{task}, {model}: success", ours, theirs, source))
            if solved_at:
                at = f"{cell.solved_at:,.0f}" if cell.successes else "not solved"
                rows.append(
                    Comparison(f"{task}, {model}: median step solved at", at, solved_at, source)
                )
        for model in outcome.models:
            rows.append(
                Comparison(
                    f"{model}: {self.full.steps:,} steps, eager / this library",
                    self.trial_times(outcome, model),
                    "about 8 h (Xeon E5-2665)",
                    "Madsen and Johansen 2020, appendix, for every model",
                )
            )
        return rows

    def draw(self, figure: Any, outcome: Outcome) -> None:
        axes, speeds = figure.subplots(1, 2, width_ratios=(3, 1))
        models, tasks = self.ran(outcome)
        for place, task in enumerate(tasks):
            for model in models:
                off = outcome.values("off", model=model, task=task)
                draw_off(axes, place + 0.25 * (MODELS.index(model) - 1), off, model)
        for model in models:
            axes.scatter([], [], color=colour(model), marker="^", s=15, label=model)
        draw_solved(axes, tasks)
        axes.set(
            title=f"a mark for each seed, after {outcome.steps:,} steps",
            ylabel="weights off by about",
        )
        axes.legend(fontsize=7)
        self.draw_speed(speeds, outcome)


EXPERIMENT = Testbench()
