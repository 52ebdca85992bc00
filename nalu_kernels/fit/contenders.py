"""The models that are read and checked: regressions, and the best of a search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers import NAU
from .baseline import least_squares, plain_factor, power_law
from .found import relative_error
from .search import search
from .split import Split
from .table import Table

LINEAR, POWERS = "linear regression", "power law"
_OF_POWERS = 3  # the complexity of a stack of one layer
LEAST_FOR_SEARCH = 12  # rows; a linear regression is all that fewer get
_SEARCHED = 2000  # rows at most that a search gets: a law holds on any, and more take longer
_WHOLE = 0.01  # coefficients within this, the tolerance of `formula`, of whole numbers become it
_READ = 8  # models at most that are read and checked
_FOR_READING = 0.15  # of the seconds; at most _SECONDS_FOR_READING
_SECONDS_FOR_READING = 5.0
_NOTHING = 1e-9  # an error that counts as none
_ONE_FUNCTION = 1e-6  # relative: errors that differ less are of the same predictions


class Contender(NamedTuple):
    """A model that may be read.

    Attributes:
        complexity: of the stack, as :class:`.Candidate` has it.
        name: what was trained, in words.
        error: on the choosing rows, of :func:`.relative_error`.
        columns: of the table's inputs, which the model is of.
        model: in float64 and ``eval()``.
    """

    complexity: int
    name: str
    error: float
    columns: tuple[int, ...]
    model: nn.Sequential


def contenders(
    table: Table, parts: Split, *, seconds: float, seed: int, threads: int | None
) -> list[Contender]:
    """At most 8 models, the linear regression last; found by training and choosing rows alone."""
    x, y = table.x[parts.training], table.y[parts.training]
    choosing_x, choosing_y = table.x[parts.choosing], table.y[parts.choosing]
    every = tuple(range(x.shape[1]))

    def judged(
        complexity: int, name: str, columns: tuple[int, ...], model: nn.Sequential
    ) -> Contender:
        off = error_of(model, choosing_x[:, columns], choosing_y)
        return Contender(complexity, name, off, columns, model)

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
    worst = error_of_constant(table, parts)
    return [*_set_apart(model for model in models if model.error < worst), linear]


def error_of(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """:func:`.relative_error` of a model of ``x`` (rows, inputs) for ``y`` (rows,)."""
    with torch.no_grad():
        return relative_error(model(x).squeeze(1), y)


def error_of_constant(table: Table, parts: Split) -> float:
    """What the median of the training rows does on the choosing rows."""
    y = table.y[parts.choosing]
    return relative_error(table.y[parts.training].median().expand_as(y), y)


def _some(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """As many of the rows as a search has a use for, from all of the table."""
    step = -(-len(x) // _SEARCHED)
    return x[::step], y[::step]


def _scaled(model: nn.Sequential, scale: float, x: Tensor, y: Tensor) -> nn.Sequential:
    """The model with its factor, or a plain one that may be it, as one more layer; where its last
    layer is an NAU with coefficients that are no whole numbers, a Linear is both."""
    *layers, last = model
    if isinstance(last, NAU) and bool((last.W.round() != last.W).any()):
        both = nn.Linear(last.in_features, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            both.weight.copy_(scale * last.W)
        return nn.Sequential(*layers, both).eval()
    factor = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        plain = None if scale == 1 else plain_factor(model(x).squeeze(1), y)
        factor.weight.fill_(scale if plain is None else plain)
    return model if factor.weight == 1 else nn.Sequential(*model, factor).eval()


def _set_apart(models: Iterable[Contender]) -> list[Contender]:
    """Those that no simpler one is as good as, the best of them first, and then the next best."""
    front: list[Contender] = []
    others: list[Contender] = []
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
