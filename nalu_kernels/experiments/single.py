"""One module, two numbers: how often it finds the operation, from nine ranges of them.

Source: Mistry, Farrahi and Hare 2022, "A Primer for Neural Arithmetic Logic Modules" (JMLR 23), the
single module arithmetic task, with the ranges and settings of the authors' code. One layer of 2
inputs and 1 output learns a + b, a - b, a * b or a / b in 50,000 steps and is tested on a range
further out; benchmark.py has the rest. As there, NAC is trained on + and -, NAC in log space on *
and /, and NALU, whose paths share one W, on all four.

The threshold is the revision's: the error of a solution whose weights are off by 1e-4, that is
1e-4 (|a| + |b|) for sums and differences, the factor (1 - 1e-4)^2 for products and (1 - 1e-4) /
(1 + 1e-4) for quotients. The first version had a mean squared error of 1e-5 throughout; its rates
stand beside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from nalu_kernels import NAC, NALU, sweep
from nalu_kernels.sweep.success import FLAT, WEIGHTS, wilson

from . import benchmark
from .benchmark import TASKS, Benchmark, Cell, draw_rate, interval, rate_and_interval
from .experiment import Comparison, Outcome, Scale
from .plot import colour
from .report import columns

# Trained on, tested on.
RANGES = (
    ((-20.0, -10.0), (-40.0, -20.0)),
    ((-2.0, -1.0), (-6.0, -2.0)),
    ((-1.2, -1.1), (-6.1, -1.2)),
    ((-0.2, -0.1), (-2.0, -0.2)),
    ((-2.0, 2.0), ((-6.0, -2.0), (2.0, 6.0))),
    ((0.1, 0.2), (0.2, 2.0)),
    ((1.0, 2.0), (2.0, 6.0)),
    ((1.1, 1.2), (1.2, 6.0)),
    ((10.0, 20.0), (20.0, 40.0)),
)
PAIRS = (
    ("NAC", "a + b"),
    ("NAC", "a - b"),
    ("NAC log", "a * b"),
    ("NAC log", "a / b"),
    *(("NALU", task) for task in TASKS),
)


class Single(Benchmark):
    name = "single"
    title = "how often one module finds the operation on two numbers, for nine ranges"
    source = "Mistry, Farrahi and Hare 2022, the single module arithmetic task"
    differs = (
        "Other random numbers. 50,000 updates, not 50,001, and the tests come after an update, not "
        "before. A seed begins with the same weights on every range, so that the interval over all "
        "ranges is too narrow. The authors' figures are pictures without numbers, so none stand "
        "beside ours."
    )
    small = full = Scale(seeds=25, steps=50_000)
    models = ("NAC", "NAC log", "NALU")
    ranges = tuple(interval(on) for on, _ in RANGES)
    pairs = tuple((model, f"{task} {interval(on)}") for on, _ in RANGES for model, task in PAIRS)
    success = "weights_1e-4"

    def network(self, model: str) -> nn.Module:
        return NALU(2, 1) if model == "NALU" else NAC(2, 1, log_space=model == "NAC log")

    def arithmetic(self, operation: str) -> sweep.Arithmetic:
        return sweep.Arithmetic(operation, in_features=2, samples=benchmark.SAMPLES)

    def operation_and_range(self, task: str) -> tuple[str, str]:
        operation = next(name for name in TASKS if task.startswith(name))
        return operation, task.removeprefix(f"{operation} ")

    def columns(self, task: str) -> dict[str, Any]:
        _, numbers = self.operation_and_range(task)
        train, test = next(pair for pair in RANGES if interval(pair[0]) == numbers)
        return {"train": train, "test": test}

    def _ran(self, outcome: Outcome) -> tuple[list[tuple[str, str]], list[str]]:
        """Of PAIRS and of ``ranges`` what has run: every pair on every range."""
        judged = self.judged(outcome)
        ranges = [on for on in self.ranges if any(task.endswith(on) for _, task in judged)]
        pairs = [(model, task) for model, task in PAIRS if (model, f"{task} {ranges[0]}") in judged]
        return pairs, ranges

    def _over_all(self, outcome: Outcome, model: str, task: str) -> Cell:
        """The ranges that have run."""
        _, ranges = self._ran(outcome)
        return self.cell(outcome, model, *(f"{task} {on}" for on in ranges))

    def table(self, outcome: Outcome) -> list[str]:
        pairs, ranges = self._ran(outcome)
        heads = [["", *(model for model, _ in pairs)], ["trained on", *(task for _, task in pairs)]]
        over_all = [self._over_all(outcome, model, task) for model, task in pairs]

        def part(show: Callable[[Cell], str]) -> list[list[str]]:
            rows = []
            for on in ranges:
                cells = [self.cell(outcome, model, f"{task} {on}") for model, task in pairs]
                rows.append([on, *map(show, cells)])
            return [*heads, *rows, ["all", *map(show, over_all)]]

        def of_all(count: Callable[[Cell], int]) -> list[list[str]]:
            rates = [f"{100 * count(cell) / cell.total:.0f} %" for cell in over_all]
            ends = [wilson(count(cell), cell.total) for cell in over_all]
            reach = [f"{100 * low:.0f} to {100 * high:.0f}" for low, high in ends]
            return [["rate", *rates], ["95 %", *reach]]

        widths = (-13, *[10] * len(pairs))
        return [
            f"success: seeds whose error outside is below that of weights off by "
            f"{WEIGHTS[self.success]:g};",
            "for all ranges the rate with Wilson's 95 % interval",
            "",
            *columns([*part(lambda cell: cell.share), *of_all(lambda cell: cell.solved)], widths),
            "",
            f"likewise with a mean squared error outside below {FLAT:g}",
            "",
            *columns(
                [*part(lambda cell: f"{cell.flat}/{cell.total}"), *of_all(lambda cell: cell.flat)],
                widths,
            ),
            "",
            "first solved at step, median of the seeds that succeeded (weights off by "
            f"{WEIGHTS[self.success]:g})",
            "",
            *columns(part(lambda cell: cell.step), widths),
            "",
            "their sparsity error, median",
            "",
            *columns(part(lambda cell: cell.off), widths),
        ]

    def claims(self, outcome: Outcome) -> list[str]:
        pairs, ranges = self._ran(outcome)
        over = "all ranges" if len(ranges) == len(RANGES) else f"{len(ranges)} of the ranges"
        lines = []
        for model, task in pairs:
            cell = self._over_all(outcome, model, task)
            lines.append(f"{model} solves {task} in {cell.share} trials over {over}")
        return [*lines, *self.diverged(outcome), self.speed_claim(outcome)]

    def compare(self, outcome: Outcome) -> list[Comparison]:
        pairs, ranges = self._ran(outcome)
        over = "the nine ranges" if len(ranges) == len(RANGES) else f"{len(ranges)} of the ranges"
        rows = []
        for model, task in pairs:
            cell = self._over_all(outcome, model, task)
            ours = rate_and_interval(cell.solved, cell.total)
            rows.append(Comparison(f"{task}, {model}: success over {over}", ours, "", ""))
        return rows

    def draw(self, figure: Any, outcome: Outcome) -> None:
        pairs, ranges = self._ran(outcome)
        tasks = [task for task in TASKS if any(name == task for _, name in pairs)]
        shape = (2, 2) if len(tasks) == 4 else (1, len(tasks))
        grid = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        for axes, task in zip(grid.flat, tasks, strict=True):
            for model in [model for model, name in pairs if name == task]:
                shift = 0.15 if model == "NALU" else -0.15
                for place, on in enumerate(ranges):
                    cell = self.cell(outcome, model, f"{task} {on}")
                    draw_rate(axes, place + shift, cell.solved, cell.total, model)
                axes.scatter([], [], color=colour(model), s=15, label=model)
            axes.set(title=f"{task}, {outcome.steps:,} steps", ylim=(-5, 105))
            axes.set_xticks(range(len(ranges)), ranges, rotation=60)
            axes.legend(fontsize=6.5)
        for axes in grid[:, 0]:
            axes.set_ylabel("solved, %")


EXPERIMENT = Single()
