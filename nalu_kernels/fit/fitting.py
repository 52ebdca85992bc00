"""The whole way: rows are held back, models searched, read, checked, and one of them chosen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..experiments.refusal import Refusal
from ..formulas import Formula, formula
from .contenders import LINEAR, Contender, contenders, error_of, error_of_constant
from .split import Split, split
from .table import Table

_LARGEST = 1e60  # magnitude of a column's largest number, and 1 / that of its least
_AS_GOOD = 1.25  # times the least error: what differs less is chosen among by complexity
_NOTHING = 1e-9  # an error that counts as none


@dataclass(frozen=True)
class Row:
    """A model that was read and checked.

    Attributes:
        candidate: what was trained, in words.
        error: of the rounded module on the choosing rows, the mean of
            \\|f - y\\| / (\\|y\\| + median \\|y\\|).
        columns: of the table's inputs, which the model is of.
        model: trained, in float64 and ``eval()``.
        formula: what it comes to, with both errors and the verdict.
    """

    candidate: str
    error: float
    columns: tuple[int, ...]
    model: nn.Sequential = field(repr=False)
    formula: Formula

    @property
    def verdict(self) -> str:
        """The formula's."""
        return self.formula.verdict

    @property
    def complexity(self) -> int:
        """How many operations, inputs and constants the formula has."""
        return self.formula.complexity

    def predict(self, x: Tensor) -> Tensor:
        """(rows,) float64 of the table's inputs (rows, inputs): by the rounded module where the
        verdict is "exact", else by the model."""
        module = self.formula.module() if self.verdict == "exact" else self.model
        with torch.no_grad():
            predicted: Tensor = module(x[:, self.columns].to(torch.float64)).squeeze(1)
        return predicted


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` returns.

    Attributes:
        table: the numbers.
        split: which of its rows were used for what.
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
        """:meth:`Row.predict` of the best."""
        return self.best.predict(x)


def fit(
    table: Table,
    *,
    seconds: float = 60.0,
    seed: int = 0,
    outside: float = 0.2,
    threads: int | None = None,
) -> Fit:
    """Searches a formula of the table's target in its inputs, and checks what it finds.

    The search sees the training rows, and ranks by the choosing rows, 2,000 of each at most. Before
    any other row is looked at, at most 8 models are set apart: those that no simpler one is as good
    as, and a linear regression. Where that, or a product of powers, is a law on the choosing rows,
    nothing is searched. Each model is rounded, and its verdict is from the checking rows and those
    outside. Chosen is the simplest that is exact; if none is, the simplest of those whose error on
    the choosing rows is within a quarter of the least.

    Args:
        seconds: for all of it; the search takes the largest part, and ends early where it has found
            a law, or by Ctrl-C. The best model and the regression are read even if it is over.
        seed: of the split and of the search.
        outside: the share of rows held back as the test of extrapolation, of :func:`split`.
        threads: of the search; None is one for each core.

    Raises:
        TypeError: ``seconds`` is no number.
        ValueError: the table has fewer than 3 rows, or a column without a number between 1e-60 and
            1e60 in magnitude, or with a larger one; or an argument is not as it says.
    """
    started = time.perf_counter()
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"seconds: expected a number, got {type(seconds).__name__}")
    if not seconds >= 0:
        raise ValueError(f"seconds: expected at least 0, got {seconds}")
    _check_sizes(table)
    parts = split(table.x, seed=seed, outside=outside)
    models = contenders(table, parts, seconds=seconds, seed=seed, threads=threads)
    rows = _worth_showing(_read_all(table, parts, models, started + seconds), table, parts)
    return Fit(table, parts, tuple(rows), choose(rows), time.perf_counter() - started)


def _check_sizes(table: Table) -> None:
    """Products of numbers must stay within float64."""
    columns = [*zip(table.names, table.x.unbind(1), strict=True), (table.target, table.y)]
    for name, values in columns:
        largest = float(values.abs().max())
        if largest and not 1 / _LARGEST <= largest <= _LARGEST:
            raise Refusal(
                f"column {name!r}: its largest magnitude is {largest:.1e}, and has to lie between "
                f"{1 / _LARGEST:.0e} and {_LARGEST:.0e}: give it in another unit"
            )


def choose(rows: Sequence[Row]) -> Row:
    """The row that :func:`fit` is to return as the best."""
    exact = [row for row in rows if row.verdict == "exact"]
    if not exact:
        limit = max(_AS_GOOD * min(row.error for row in rows), _NOTHING)
        exact = [row for row in rows if row.error <= limit]
    return min(exact, key=_order)


def _order(row: Row) -> tuple[int, float]:
    return row.complexity, row.error


def _read_all(
    table: Table, parts: Split, models: Sequence[Contender], deadline: float
) -> list[Row]:
    """The best and the regression, which are the first and the last, and what there is time for."""
    best, *others = models
    rows = [_read(table, parts, best)]
    for model in others:
        if model is models[-1] or time.perf_counter() < deadline:
            rows.append(_read(table, parts, model))
    return rows


def _read(table: Table, parts: Split, of: Contender) -> Row:
    """With the rows that nothing has looked at yet."""
    x, y = table.x[:, of.columns], table.y
    checking, beyond = parts.checking, parts.outside
    found = formula(
        of.model,
        [table.names[column] for column in of.columns],
        inside=(x[checking], y[checking]),
        outside=(x[beyond], y[beyond]) if len(beyond) else None,
    )
    off = error_of(found.module(), x[parts.choosing], y[parts.choosing])
    return Row(of.name, off, of.columns, of.model, found)


def _worth_showing(rows: Iterable[Row], table: Table, parts: Split) -> list[Row]:
    """Each formula once, and none that a constant is as good as, but for the regression."""
    worst = error_of_constant(table, parts)
    worth = [row for row in rows if row.error < worst or row.candidate == LINEAR]
    once = {row.formula.text: row for row in reversed(sorted(worth, key=_order))}
    return list(once.values())[::-1]
