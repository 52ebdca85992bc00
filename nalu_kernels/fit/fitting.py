"""The whole way: rows are held back, models searched, read, checked, and one of them chosen."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..experiments.refusal import Refusal
from ..formulas import Formula, formula
from .baseline import least_squares, plain_factor, power_law
from .found import relative_error
from .search import search
from .split import Split, split
from .table import Table

LINEAR, POWERS = "linear regression", "power law"
_OF_POWERS = 3  # the complexity of a stack of one layer
LEAST_FOR_SEARCH = 12  # rows; a linear regression is all that fewer get
_LARGEST = 1e60  # magnitude of a column's largest number, and 1 / that of its least
_SEARCHED = 2000  # rows at most that a search gets: a law holds on any, and more take longer
_READ = 8  # models at most that are read and checked
_FOR_READING = 0.15  # of the seconds; at most _SECONDS_FOR_READING
_SECONDS_FOR_READING = 5.0
_AS_GOOD = 1.25  # times the least error: what differs less is chosen among by complexity
_NOTHING = 1e-9  # an error that counts as none
_ONE_FUNCTION = 1e-6  # relative: errors that differ less are of the same predictions


@dataclass(frozen=True)
class Row:
    """A model that was read and checked.

    Attributes:
        candidate: what was trained, in words.
        error: on the choosing rows, the mean of \\|f - y\\| / (\\|y\\| + typical \\|y\\|).
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
            a law, or by Ctrl-C.
        seed: of the split and of the search.
        outside: the share of rows held back as the test of extrapolation, of :func:`split`.
        threads: of the search; None is one for each core.

    Raises:
        ValueError: the table has fewer than 3 rows, or a column without a number between 1e-60 and
            1e60 in magnitude, or with a larger one; or an argument is not as it says.
    """
    started = time.perf_counter()
    if not seconds >= 0:
        raise ValueError(f"seconds: expected at least 0, got {seconds}")
    _check_sizes(table)
    parts = split(table.x, seed=seed, outside=outside)
    models = _models(table, parts, seconds, seed, threads)
    rows = sorted((_read(table, parts, model) for model in models), key=_order)
    rows = list({row.formula.text: row for row in reversed(rows)}.values())[::-1]
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


class _Model(NamedTuple):
    """One that may be read: of a candidate's complexity."""

    complexity: int
    name: str
    error: float
    columns: tuple[int, ...]
    model: nn.Sequential


def _models(
    table: Table, parts: Split, seconds: float, seed: int, threads: int | None
) -> list[_Model]:
    """Those to be read, of training and choosing rows alone."""
    x, y = table.x[parts.training], table.y[parts.training]
    choosing_x, choosing_y = table.x[parts.choosing], table.y[parts.choosing]
    every = tuple(range(x.shape[1]))

    def judged(
        complexity: int, name: str, columns: tuple[int, ...], model: nn.Sequential
    ) -> _Model:
        with torch.no_grad():
            off = relative_error(model(choosing_x[:, columns]).squeeze(1), choosing_y)
        return _Model(complexity, name, off, columns, model)

    linear = judged(0, LINEAR, every, least_squares(x, y))
    models = []
    if (powers := power_law(x, y)) is not None:
        models.append(judged(_OF_POWERS, POWERS, every, powers))
    is_law = min(model.error for model in (linear, *models)) <= _NOTHING
    if seconds and len(table) >= LEAST_FOR_SEARCH and not is_law:
        some_x, some_y = _some(choosing_x, choosing_y)
        found = search(
            *_some(x, y),
            choosing_x=some_x,
            choosing_y=some_y,
            seconds=seconds - min(_FOR_READING * seconds, _SECONDS_FOR_READING),
            seed=seed,
            threads=threads,
        )
        for one in found:
            columns = every if one.columns is None else one.columns
            model = _scaled(one.model, one.scale, x[:, columns], y)
            models.append(judged(one.candidate.complexity, one.candidate.name, columns, model))
    return [*_set_apart(model for model in models if math.isfinite(model.error)), linear]


def _some(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """As many of the rows as a search has a use for, from all of the table."""
    step = -(-len(x) // _SEARCHED)
    return x[::step], y[::step]


def _scaled(model: nn.Sequential, scale: float, x: Tensor, y: Tensor) -> nn.Sequential:
    """The model with its factor, or a plain one that may be it, as one more layer."""
    factor = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        plain = None if scale == 1 else plain_factor(model(x).squeeze(1), y)
        factor.weight.fill_(scale if plain is None else plain)
    return model if factor.weight == 1 else nn.Sequential(*model, factor).eval()


def _set_apart(models: Iterable[_Model]) -> list[_Model]:
    """Those that no simpler one is as good as, the best of them first, and then the next best."""
    front: list[_Model] = []
    others: list[_Model] = []
    for model in sorted(models, key=lambda one: (one.complexity, one.error)):
        if any(_same(model.error, other.error) for other in (*front, *others)):
            continue
        better = not front or model.error < front[-1].error - _NOTHING
        (front if better else others).append(model)
    others.sort(key=lambda model: model.error)
    return [*front[::-1], *others][: _READ - 1]


def _same(error: float, other: float) -> bool:
    """Whether two errors are of one function; of those of a law, which are all nearly 0, one never
    knows."""
    return abs(error - other) <= _ONE_FUNCTION * max(error, other) and error > _NOTHING


def _read(table: Table, parts: Split, of: _Model) -> Row:
    """With the rows that nothing has looked at yet."""
    x = table.x[:, of.columns]
    checking, beyond = parts.checking, parts.outside
    found = formula(
        of.model,
        [table.names[column] for column in of.columns],
        inside=(x[checking], table.y[checking]),
        outside=(x[beyond], table.y[beyond]) if len(beyond) else None,
    )
    return Row(of.name, of.error, of.columns, of.model, found)
