"""What single.py, division.py and inalu.py share: ranges of numbers, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from nalu_kernels.sweep.success import FLAT, WEIGHTS, wilson
from nalu_kernels.sweep.tasks import AnyRange, Exponential, Normal

from .benchmark import Benchmark, Cell, draw_rate, interval, meet, rate_and_interval
from .experiment import Comparison, Outcome
from .plot import colour
from .report import columns

_NINE = (
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
# Trained on, tested on.
RANGES: dict[str, tuple[AnyRange, AnyRange]] = {interval(on): (on, out) for on, out in _NINE}
ALL = "all"  # ranges
SEEDS = 25  # that were published


def on_every_range(
    cells: Sequence[tuple[str, str]], ranges: Iterable[str] = RANGES
) -> tuple[tuple[str, str], ...]:
    """Models and tasks of a benchmark, of models and operations."""
    return tuple((model, f"{task} {on}") for on in ranges for model, task in cells)


def without_zero(on: AnyRange) -> AnyRange:
    """What a quotient is trained on instead of a range around 0.

    The numbers of a sweep are made of 24 bits, so 0 itself comes up on a third of the seeds in
    50,000 batches, and nobody learns from an answer of infinity.
    """
    if isinstance(on, Normal):
        return on if on.mean else on._replace(mean=on.std * 2.0**-25)
    if isinstance(on, Exponential):
        return on
    low, high = on
    if not (isinstance(low, float) and isinstance(high, float) and low == -high):
        return on
    return (low, low * 2.0**-25), (high * 2.0**-25, high)


class OverRanges(Benchmark):
    """Every one of ``cells`` on every range."""

    ranges: ClassVar[tuple[str, ...]] = tuple(RANGES)
    spans: ClassVar[Mapping[str, tuple[AnyRange, AnyRange]]] = RANGES
    cells: ClassVar[tuple[tuple[str, str], ...]]  # models and operations, in the tables' order
    # Of a cell: how many of the full size's seeds succeeded, by range, or by ALL of all ranges'.
    published: ClassVar[dict[tuple[str, str], dict[str, int]]]
    published_by: ClassVar[str]

    def operation_and_range(self, task: str) -> tuple[str, str]:
        operation = next(name for name in self.tasks if task.startswith(name))
        return operation, task.removeprefix(f"{operation} ")

    def columns(self, model: str, task: str) -> dict[str, Any]:
        operation, numbers = self.operation_and_range(task)
        train, test = self.spans[numbers]
        divides = self.arithmetic(operation).operation == "a / b"
        return {
            "train": without_zero(train) if divides else train,
            "test": test,
            **self.training(model, operation),
        }

    def training(self, model: str, operation: str) -> dict[str, Any]:
        """How a cell's layers are trained: columns of its runs."""
        return {}

    def _ran(self, outcome: Outcome) -> tuple[list[tuple[str, str]], list[str]]:
        """Of ``cells`` and ``ranges`` what has run: every cell on every range."""
        judged = self.judged(outcome)
        ranges = [on for on in self.ranges if any(task.endswith(f" {on}") for _, task in judged)]
        ran = [pair for pair in self.cells if (pair[0], f"{pair[1]} {ranges[0]}") in judged]
        return ran, ranges

    def _cell(self, outcome: Outcome, model: str, operation: str, on: str) -> Cell:
        """On one range, or on ALL that have run."""
        ranges = self._ran(outcome)[1] if on == ALL else [on]
        return self.cell(outcome, model, *(f"{operation} {name}" for name in ranges))

    @property
    def _rule(self) -> str:
        if isinstance(self.success, float):
            return f"below {self.success:g}"
        return f"below that of weights off by {WEIGHTS[self.success]:g}"

    def table(self, outcome: Outcome) -> list[str]:
        ran, ranges = self._ran(outcome)
        lines = [
            f"success: seeds whose mean squared error outside is {self._rule};",
            "for all ranges the rate with Wilson's 95 % interval, and of the seeds that succeeded",
            "the median step at which they first had, and the median sparsity error",
        ]
        for operation in self.tasks:
            models = [model for model, name in ran if name == operation]
            if models:
                rows = self._rows(outcome, operation, models, ranges)
                widths = [max(10, len(model) + 2) for model in models]
                lines += ["", *columns(rows, (-15, *widths))]
        return lines

    def _rows(
        self, outcome: Outcome, operation: str, models: list[str], ranges: list[str]
    ) -> list[list[str]]:
        """The table of an operation."""

        def row(name: str, show: Callable[[Cell], str], on: str = ALL) -> list[str]:
            return [name, *(show(self._cell(outcome, model, operation, on)) for model in models)]

        rows = [
            [f"{operation}, on", *models],
            *(row(on, lambda cell: cell.share, on) for on in (*ranges, ALL)),
            row("rate", lambda cell: f"{100 * cell.solved / cell.total:.0f} %"),
            row("95 %", _reach),
            row("solved at", lambda cell: cell.step),
            row("sparsity", lambda cell: cell.off),
        ]
        if self.success != FLAT:
            rows.append(row(f"below {FLAT:g}", lambda cell: f"{cell.flat}/{cell.total}"))
        return rows

    def _beside(self, outcome: Outcome) -> dict[tuple[str, str, str], tuple[int, int]]:
        """By model, operation and range: how many of how many seeds are published to succeed, of
        what has run."""
        ran, ranges = self._ran(outcome)
        names = [ALL, *ranges] if len(ranges) == len(self.ranges) else ranges
        return {
            (*pair, on): (solved, self.full.seeds * (len(self.ranges) if on == ALL else 1))
            for pair in ran
            for on, solved in self.published.get(pair, {}).items()
            if on in names
        }

    def claims(self, outcome: Outcome) -> list[str]:
        ran, ranges = self._ran(outcome)
        over = "all ranges" if len(ranges) == len(self.ranges) else f"{len(ranges)} of the ranges"
        lines = [
            f"{model} solves {task} in {self._cell(outcome, model, task, ALL).share} trials over "
            f"{over}"
            for model, task in ran
        ]
        beside, apart = self._beside(outcome), []
        for (model, task, on), (solved, total) in beside.items():
            cell = self._cell(outcome, model, task, on)
            if not meet(wilson(cell.solved, cell.total), wilson(solved, total)):
                where = "all ranges" if on == ALL else on
                apart.append(f"{model}, {task} on {where}: {cell.share}, not {solved}/{total}")
        if beside:
            met = f"{len(beside) - len(apart)} of {len(beside)}"
            lines.append(
                "; ".join([f"our interval meets the published one for {met} rates", *apart])
            )
        return [*lines, *self.diverged(outcome)]

    def compare(self, outcome: Outcome) -> list[Comparison]:
        ran, ranges = self._ran(outcome)
        beside = self._beside(outcome)
        rows = []
        for model, task in ran:
            for on in (ALL, *ranges):
                published = beside.get((model, task, on))
                if not published and on != ALL:
                    continue
                cell = self._cell(outcome, model, task, on)
                where = f"{len(ranges)} ranges" if on == ALL else on
                rows.append(
                    Comparison(
                        f"{task}, {model}: success on {where}",
                        rate_and_interval(cell.solved, cell.total),
                        rate_and_interval(*published) if published else "",
                        self.published_by if published else "",
                    )
                )
        return rows

    def draw(self, figure: Any, outcome: Outcome) -> None:
        ran, ranges = self._ran(outcome)
        tasks = [task for task in self.tasks if any(name == task for _, name in ran)]
        shape = (2, 2) if len(tasks) == 4 else (1, len(tasks))
        grid = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        for axes, task in zip(grid.flat, tasks, strict=True):
            models = [model for model, name in ran if name == task]
            for place, model in enumerate(models):
                shift = 0.7 * ((place + 0.5) / len(models) - 0.5)
                for across, on in enumerate(ranges):
                    cell = self._cell(outcome, model, task, on)
                    draw_rate(axes, across + shift, cell.solved, cell.total, model)
            axes.set(title=task, ylim=(-5, 105))
            axes.set_xticks(range(len(ranges)), ranges, rotation=60)
        for axes in grid[:, 0]:
            axes.set_ylabel("solved, %")
        shown = [model for model in self.models if any(name == model for name, _ in ran)]
        marks = [grid[0, 0].scatter([], [], color=colour(model), s=15) for model in shown]
        figure.legend(marks, shown, fontsize=7, ncols=5, loc="outside lower center")


def _reach(cell: Cell) -> str:
    low, high = wilson(cell.solved, cell.total)
    return f"{100 * low:.0f} to {100 * high:.0f}"
