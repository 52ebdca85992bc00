"""The whole way: rows are held back, models searched, read, checked, and one of them chosen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..formula import Formula, formula
from .baseline import least_squares
from .search import search
from .split import Split, split
from .table import Table

BASELINE = "linear regression"
LEAST_FOR_SEARCH = 12  # rows; a linear regression is all that fewer get
_READ = 8  # models at most that are read and checked
_FOR_READING = 0.15  # of the seconds; at most _SECONDS_FOR_READING
_SECONDS_FOR_READING = 5.0
_AS_GOOD = 1.1  # times the least error: what differs less is chosen among by complexity
_NOTHING = 1e-9  # an error that counts as none


@dataclass(frozen=True)
class Row:
    """A model that was read and checked.

    Attributes:
        candidate: what was trained, in words.
        error: on the choosing rows, the mean of \\|f - y\\| / (\\|y\\| + median \\|y\\|).
        model: trained, in float64 and ``eval()``; of the table's inputs.
        formula: what it comes to, with both errors and the verdict.
        complexity: of the formula: its numbers, names and operations.
    """

    candidate: str
    error: float
    model: nn.Sequential = field(repr=False)
    formula: Formula
    complexity: int

    @property
    def verdict(self) -> str:
        return self.formula.verdict

    @property
    def module(self) -> nn.Module:
        """What predicts: the rounded module where the verdict is "exact", else the model."""
        return self.formula.module() if self.verdict == "exact" else self.model


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` returns.

    Attributes:
        table, split: the numbers, and which rows were used for what.
        rows: the models that were checked, from the simplest on.
        best: the row of them that was chosen.
        seconds: that it took.
    """

    table: Table
    split: Split
    rows: tuple[Row, ...]
    best: Row
    seconds: float

    @property
    def formula(self) -> Formula:
        return self.best.formula

    @property
    def found(self) -> bool:
        """Whether the chosen model is a formula, exact or approximate."""
        return self.best.verdict != "not a formula"

    def predict(self, x: Tensor) -> Tensor:
        """(rows,) float64 for the inputs (rows, inputs), by :attr:`Row.module` of the best."""
        with torch.no_grad():
            predicted: Tensor = self.best.module(x.to(torch.float64)).squeeze(1)
        return predicted


def fit(
    table: Table,
    *,
    seconds: float = 60.0,
    seed: int = 0,
    outside: float = 0.2,
    threads: int | None = None,
) -> Fit:
    """Searches a formula of the table's target in its inputs, and checks what it finds.

    The search sees the training rows, and ranks by the choosing rows. Before any other row is
    looked at, at most 8 models are set apart: those that no simpler one is as good as, and a linear
    regression. Each is rounded, and its verdict is from the checking rows and those outside. Chosen
    is the simplest that is exact; if none is, the simplest of those whose error on the choosing
    rows is within a tenth of the least.

    Args:
        seconds: for all of it; the search takes the largest part, and ends early where it has found
            a law.
        seed: of the split and of the search.
        outside: the share of rows held back as the test of extrapolation, of :func:`split`.
        threads: of the search; None is one for each core.

    Raises:
        ValueError: the table has fewer than 3 rows, or an argument is not as it says.
    """
    started = time.perf_counter()
    if not seconds >= 0:
        raise ValueError(f"seconds: expected at least 0, got {seconds}")
    parts = split(table.x, seed=seed, outside=outside)
    models = _models(table, parts, seconds, seed, threads)
    rows = sorted(
        (_read(table, parts, *model) for model in models),
        key=lambda row: (row.complexity, row.error),
    )
    rows = list({str(row.formula): row for row in reversed(rows)}.values())[::-1]
    return Fit(table, parts, tuple(rows), choose(rows), time.perf_counter() - started)


def choose(rows: Sequence[Row]) -> Row:
    """The row that :func:`fit` is to return as the best."""
    exact = [row for row in rows if row.verdict == "exact"]
    if not exact:
        limit = max(_AS_GOOD * min(row.error for row in rows), _NOTHING)
        exact = [row for row in rows if row.error <= limit]
    return min(exact, key=lambda row: (row.complexity, row.error))


def error(predicted: Tensor, y: Tensor) -> float:
    """The mean of \\|f - y\\| / (\\|y\\| + median \\|y\\|), infinite where it is no number."""
    off = (predicted - y).abs()
    found = torch.where(off == 0, 0.0, off / (y.abs() + y.abs().median())).mean()
    return float(found.nan_to_num(nan=float("inf")))


_Model = tuple[str, float, nn.Sequential]


def _models(
    table: Table, parts: Split, seconds: float, seed: int, threads: int | None
) -> list[_Model]:
    """(name, error, model) of those to be read."""
    x, y = table.x[parts.training], table.y[parts.training]
    choosing_x, choosing_y = table.x[parts.choosing], table.y[parts.choosing]
    searched: list[Any] = []
    if seconds and len(table) >= LEAST_FOR_SEARCH and bool((y != y[0]).any()):
        searched = search(
            x,
            y,
            choosing_x=choosing_x,
            choosing_y=choosing_y,
            seconds=seconds - min(_FOR_READING * seconds, _SECONDS_FOR_READING),
            seed=seed,
            threads=threads,
        )
    found: list[tuple[int, _Model]] = []
    with torch.no_grad():
        for one in searched:
            model = _scaled(one.model, one.scale)
            off = error(model(choosing_x).squeeze(1), choosing_y)
            found.append((one.candidate.complexity, (one.candidate.name, off, model)))
        linear = least_squares(x, y)
        baseline = (BASELINE, error(linear(choosing_x).squeeze(1), choosing_y), linear)
    return [*_set_apart(found), baseline]


def _scaled(model: nn.Sequential, scale: float) -> nn.Sequential:
    """The model with its factor as one more layer."""
    if scale == 1:
        return model
    factor = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(factor.weight, scale)
    return nn.Sequential(*model, factor).eval()


def _set_apart(found: Iterable[tuple[int, _Model]]) -> list[_Model]:
    """Those that no simpler one is as good as, the best of them first, and then the next best."""
    ordered = sorted(found, key=lambda one: (one[0], one[1][1]))
    front: list[_Model] = []
    others: list[_Model] = []
    for _, model in ordered:
        better = not front or model[1] < front[-1][1] - _NOTHING
        (front if better else others).append(model)
    others.sort(key=lambda model: model[1])
    return [*front[::-1], *others][: _READ - 1]


def _read(table: Table, parts: Split, name: str, off: float, model: nn.Sequential) -> Row:
    beyond = parts.outside
    found = formula(
        model,
        table.names,
        inside=(table.x[parts.checking], table.y[parts.checking]),
        outside=(table.x[beyond], table.y[beyond]) if len(beyond) else None,
    )
    return Row(name, off, model, found, _complexity(found.sympy()))


def _complexity(expression: Any) -> int:
    """Its nodes."""
    return 1 + sum(map(_complexity, expression.args))
