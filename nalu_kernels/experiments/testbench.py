"""Arithmetic on two overlapping subset sums: how often a model really finds the solution.

Source: Madsen and Johansen 2020, "Neural Arithmetic Units" (ICLR), section 4.1 and appendix. Of
100 numbers, a is the sum of 25 in a row and b the sum of 25 in a row that has 12 in common with it;
where they start differs from seed to seed. A network with a hidden width of 2 learns a + b, a - b,
a * b, a / b, a^2 or sqrt(a) on numbers uniform in [1, 2], for 5,000,000 steps, and is tested on
[2, 6]; benchmark.py has the rest. It has succeeded if its error outside is below that of weights
off by 1e-5. The models are an NAU and an NMU, two NAUs, two NACs, a NAC and a NAC in log space, a
NAC and a NACSigma, an NAU and a NACNMU, two NALUs, whose two paths share one W as in the paper's
figures, and two linear layers, with and without ReLU6 between them. Layers that have a regulariser
are trained with it, as published.py has it.

The published size has 100 seeds. The small one keeps everything but their number.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from torch import nn

from nalu_kernels import NAC, NACNMU, NALU, NAU, NMU, NACSigma, sweep
from nalu_kernels.published import setting
from nalu_kernels.sweep.success import WEIGHTS, wilson
from nalu_kernels.sweep.tasks import OPERATIONS

from . import benchmark
from .benchmark import (
    Benchmark,
    draw_rate,
    duration,
    interval,
    meet,
    rate_and_interval,
)
from .experiment import Comparison, Outcome, Scale
from .plot import colour
from .report import columns

MODELS = ("NMU", "NAU", "NAC", "NAC log", "NAC sigma", "NAC NMU", "NALU", "Linear", "ReLU6")
TASKS = tuple(OPERATIONS)
LENGTH, HIDDEN = 100, 2
INSIDE, OUTSIDE = (1.0, 2.0), (2.0, 6.0)


class Published(NamedTuple):
    """Of 100 seeds those that succeeded, and the median step at which they first had."""

    solved: int
    solved_at: int | None = None


_NONE = Published(0)


class Testbench(Benchmark):
    name = "testbench"
    title = "how often a model finds the exact solution, with two sums of 100 numbers"
    source = "Madsen and Johansen 2020, section 4.1 and appendix"
    differs = (
        "Other random numbers. 5,000,000 updates, not 5,000,001, and the tests come after an "
        "update, not before; the best is sought in all of them, as the authors' last 5,000 are "
        "all but the one before training. The small size has fewer seeds, so that its intervals "
        "are wide; a run of fewer steps solves less than the published one. Of the authors' "
        "models, ReLU, and NAU and NMU behind a gate are not among ours. Their printed means of "
        "steps and of the sparsity error are not means of the seeds, so medians and rates alone "
        "stand beside ours."
    )
    small = Scale(seeds=1, steps=5_000_000)
    full = Scale(seeds=100, steps=5_000_000)
    models, tasks, ranges = MODELS, TASKS, (interval(INSIDE),)
    pairs = tuple((model, task) for task in TASKS for model in MODELS)
    success = "weights_1e-5"
    # From the table of success rates of all models, in the appendix.
    published: ClassVar[dict[tuple[str, str], Published]] = {
        **dict.fromkeys(pairs, _NONE),
        ("NAU", "a + b"): Published(100, 18_000),
        ("NAC", "a + b"): Published(100, 250_000),
        ("NALU", "a + b"): Published(14, 1_500_000),
        ("Linear", "a + b"): Published(100, 61_000),
        ("NMU", "a - b"): Published(56, 1_000_000),
        ("NAU", "a - b"): Published(100, 5_000),
        ("NAC", "a - b"): Published(100, 9_000),
        ("NALU", "a - b"): Published(14, 1_900_000),
        ("Linear", "a - b"): Published(7, 3_300_000),
        ("NMU", "a * b"): Published(98, 1_400_000),
        ("NAC log", "a * b"): Published(31, 2_800_000),
        ("NAC sigma", "a * b"): Published(100, 2_500_000),
        ("NAC NMU", "a * b"): Published(93, 1_800_000),
        ("NMU", "a^2"): Published(100, 1_200_000),
        ("NAC log", "a^2"): Published(77, 3_300_000),
        ("NAC sigma", "a^2"): Published(100, 1_900_000),
        ("NAC NMU", "a^2"): Published(100, 1_400_000),
        ("NAC log", "sqrt(a)"): Published(7, 400_000),
        ("NAC NMU", "sqrt(a)"): Published(3, 1_000_000),
        ("NALU", "sqrt(a)"): Published(2, 2_600_000),
    }

    def operation_and_range(self, task: str) -> tuple[str, str]:
        return task, interval(INSIDE)

    def network(self, model: str, operation: str) -> nn.Module:
        if model in ("NAU", "NMU"):
            last = NAU(HIDDEN, 1) if model == "NAU" else NMU(HIDDEN, 1)
            return nn.Sequential(NAU(LENGTH, HIDDEN), last)
        if model == "NAC sigma":
            return nn.Sequential(NAC(LENGTH, HIDDEN), NACSigma(HIDDEN, 1))
        if model == "NAC NMU":
            return nn.Sequential(NAU(LENGTH, HIDDEN), NACNMU(HIDDEN, 1))
        if model == "NALU":
            return nn.Sequential(NALU(LENGTH, HIDDEN), NALU(HIDDEN, 1))
        if model in ("Linear", "ReLU6"):
            between = nn.ReLU6() if model == "ReLU6" else nn.Identity()
            return nn.Sequential(nn.Linear(LENGTH, HIDDEN), between, nn.Linear(HIDDEN, 1))
        return nn.Sequential(NAC(LENGTH, HIDDEN), NAC(HIDDEN, 1, log_space=model == "NAC log"))

    def columns(self, model: str, task: str) -> dict[str, Any]:
        regularised = {"NAU": "NAU", "NMU": "NMU", "NAC NMU": "NACNMU"}
        return setting(f"NAU, {regularised[model]}").columns() if model in regularised else {}

    def arithmetic(self, operation: str) -> sweep.Arithmetic:
        return sweep.Arithmetic(
            operation, LENGTH, train=INSIDE, test=OUTSIDE, samples=benchmark.SAMPLES
        )

    def table(self, outcome: Outcome) -> list[str]:
        rows = [
            ["", "", "", "success,", "success,", "intervals", "solved at,", "", "sparsity"],
            ["task", "model", "seeds", "ours", "published", "meet", "ours", "published", "error"],
        ]
        shown = ""
        for model, task in self.judged(outcome):
            cell, published = self.cell(outcome, model, task), self.published[model, task]
            at = f"{published.solved_at:,}" if published.solved_at else "-"
            rows.append(
                [
                    "" if task == shown else task,
                    model,
                    cell.share,
                    _percent(cell.solved, cell.total),
                    _percent(published.solved, 100),
                    "yes" if self._meet(outcome, model, task) else "no",
                    cell.step,
                    at,
                    cell.off,
                ]
            )
            shown = task
        return [
            f"success: mean squared error outside, in {interval(OUTSIDE)}, below that of weights "
            f"off by {WEIGHTS[self.success]:g};",
            "in %, with Wilson's 95 % interval; solved at and sparsity error: medians of the seeds",
            "that succeeded; published: 100 seeds, 5,000,000 steps",
            "",
            *columns(rows, (-8, -9, 8, 16, 16, 11, 12, 11, 9)),
        ]

    def _meet(self, outcome: Outcome, model: str, task: str) -> bool:
        cell = self.cell(outcome, model, task)
        theirs = wilson(self.published[model, task].solved, 100)
        return meet(wilson(cell.solved, cell.total), theirs)

    def claims(self, outcome: Outcome) -> list[str]:
        judged = self.judged(outcome)
        met = sum(self._meet(outcome, *pair) for pair in judged)
        seeds = f"{outcome.seeds} seed{'s' if outcome.seeds > 1 else ''}"
        size = f"{seeds} and {outcome.steps:,} steps"
        if outcome.steps < self.full.steps:
            share = 100 * outcome.steps / self.full.steps
            size += f", {share:.3g} % of the published length"
        lines = [
            f"with {size}, our interval meets the published one for {met} of {len(judged)} pairs "
            "of model and task"
        ]
        for model, task in judged:
            cell = self.cell(outcome, model, task)
            if cell.solved:
                lines.append(
                    f"{model} solves {task} on {cell.share} seeds, at step {cell.step} (median)"
                )
        return [*lines, *self.diverged(outcome), self.speed_claim(outcome)]

    def compare(self, outcome: Outcome) -> list[Comparison]:
        source = "Madsen and Johansen 2020, success rates of all models (appendix)"
        rows = []
        for model, task in self.judged(outcome):
            cell, published = self.cell(outcome, model, task), self.published[model, task]
            ours = rate_and_interval(cell.solved, cell.total)
            theirs = rate_and_interval(published.solved, 100)
            rows.append(Comparison(f"{task}, {model}: success", ours, theirs, source))
            if published.solved_at:
                what = f"{task}, {model}: median step solved at"
                at = cell.step if cell.solved else "not solved"
                rows.append(Comparison(what, at, f"{published.solved_at:,}", source))
        for model in outcome.models if outcome.on_cpu else ():
            seconds = self.seconds(outcome, model) * self.full.steps / outcome.steps
            rows.append(
                Comparison(
                    f"{model}: {self.full.steps:,} steps on one core",
                    duration(seconds),
                    "about 8 h (Xeon E5-2665)",
                    "Madsen and Johansen 2020, appendix, for every model",
                )
            )
        return rows

    def draw(self, figure: Any, outcome: Outcome) -> None:
        axes = figure.subplots()
        models, tasks = self.ran(outcome)
        for model, task in self.judged(outcome):
            across = tasks.index(task) + 0.12 * (models.index(model) - (len(models) - 1) / 2)
            cell = self.cell(outcome, model, task)
            draw_rate(axes, across - 0.03, cell.solved, cell.total, model)
            published = self.published[model, task].solved
            draw_rate(axes, across + 0.03, published, 100, model, filled=False)
        for model in models:
            axes.scatter([], [], color=colour(model), s=15, label=model)
        axes.scatter([], [], edgecolor="0.2", facecolor="white", s=15, label="published")
        axes.set(
            title=f"{outcome.steps:,} steps, and the published 5,000,000",
            ylabel="solved, %",
            ylim=(-5, 105),
            xlim=(-0.5, len(tasks) - 0.5),
        )
        axes.set_xticks(range(len(tasks)), tasks)
        axes.legend(fontsize=7)


def _percent(successes: int, total: int) -> str:
    return rate_and_interval(successes, total).replace(" %", "")


EXPERIMENT = Testbench()
