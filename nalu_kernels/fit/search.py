"""The search: trains candidates in rounds, rounds what has come of them, and keeps the best.

A bracket has three rounds: all candidates, the better half of them, the better half of these; each
with twice as many seeds as the round before. The next bracket trains twice as long. Most laws are
found in the first round, in about a second.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from . import rounding
from .candidates import CANDIDATES, Candidate
from .found import Found, found
from .training import Table, train

_ROUNDS = 3  # of a bracket
_MOST_SEEDS = 1024  # of a call
_ROWS = 64  # that tell a skeleton
_KEEP = 24  # skeletons of a candidate, from one round to the next
_DEPTH = 4  # flips one after the other
_MODELS = 3  # of a candidate that come back
_LEAST_SECONDS = 0.05  # in which nothing can be trained
_FLOAT64, _FLOAT32 = 1e-9, 1e-7  # errors of a law, by the targets' precision


def search(
    x: Tensor,
    y: Tensor,
    *,
    choosing_x: Tensor,
    choosing_y: Tensor,
    seconds: float,
    seed: int = 0,
    threads: int | None = None,
    candidates: Sequence[Candidate] = CANDIDATES,
    tolerance: float | None = None,
) -> list[Found]:
    """Models of y, the best first.

    The same call finds the same models, as far as ``seconds`` lets it get.

    Args:
        x, y: the rows to learn from: inputs (rows, inputs) and targets (rows,) in float64.
        choosing_x, choosing_y: other rows, by whose error the models are sorted.
        seconds: of the clock, at most. It ends earlier with a model below ``tolerance``, and by
            Ctrl-C.
        seed: of the trainings.
        threads: as of :func:`nalu_kernels.sweep.run`.
        candidates: what is trained, in this order.
        tolerance: an error on the choosing rows that only a law has, and that is rounding errors;
            None for 1e-9, or 1e-7 where all targets are float32 numbers.

    Returns:
        up to three models of each candidate that was trained, by error, and of equal errors (those
        below ``tolerance`` count as equal) by complexity; empty if there was no time for one.

    Raises:
        TypeError, ValueError: tables that are not float64, not finite or of shapes that do not fit,
            or another argument out of range.
    """
    _check(x, y, choosing_x, choosing_y)
    if not candidates or len({candidate.name for candidate in candidates}) < len(candidates):
        raise ValueError("candidates: expected at least one, and each of another name")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed: expected one in [0, 2**31), got {seed}")
    if tolerance is None:
        tolerance = _FLOAT32 if torch.equal(y, y.float().to(y.dtype)) else _FLOAT64
    deadline = time.perf_counter() + seconds
    searches = [_Search(candidate, x, y, seed) for candidate in candidates]
    with suppress(KeyboardInterrupt):  # ends it as the clock does
        for one, seeds, times in _plan(searches):
            left = deadline - time.perf_counter()
            if left < _LEAST_SECONDS:
                break
            stopped = one.go_on(seeds, times, choosing_x, choosing_y, left, threads)
            if stopped or one.error <= tolerance:
                break
    every = [model for one in searches for model in one.models]
    floor: float = tolerance
    return sorted(every, key=lambda one: (max(one.error, floor), one.candidate.complexity))


class _Search:
    """What has come of one candidate so far."""

    def __init__(self, candidate: Candidate, x: Tensor, y: Tensor, seed: int) -> None:
        self.candidate, self.x, self.y = candidate, x, y
        self.models: list[Found] = []
        self._table = Table(candidate, x, y)
        self._first = seed << 32
        self._seeds = self._steps = 0
        self._skeletons: list[Tensor] = []

    @property
    def error(self) -> float:
        """Of its best model."""
        return self.models[0].error if self.models else torch.inf

    def go_on(
        self,
        seeds: int,
        times: int,
        choosing_x: Tensor,
        choosing_y: Tensor,
        seconds: float,
        threads: int | None,
    ) -> str | None:
        """Trains so many times as many new seeds, and so many times as long. Returns what has
        stopped it, if anything has."""
        count = min(_MOST_SEEDS, seeds * self.candidate.seeds)
        begin = self._first + self._seeds
        trained = train(
            self.candidate,
            self._table,
            range(begin, begin + count),
            times * self.candidate.steps,
            seconds=seconds,
            threads=threads,
        )
        self._seeds += count
        self._steps += trained.steps
        units = self._table.units
        self._skeletons.append(rounding.skeletons_of(self.candidate, trained.weights, units))
        best = rounding.improve(
            self.candidate,
            torch.cat(self._skeletons),
            self.x[:_ROWS],
            self.y[:_ROWS],
            _KEEP,
            _DEPTH,
        )
        self._skeletons = [best]
        tables = (self.x, self.y, choosing_x, choosing_y)
        new = [
            found(self.candidate, skeleton, *tables, self._seeds, self._steps)
            for skeleton in best[:_MODELS]
        ]
        every = sorted(self.models + new, key=lambda model: model.error)
        self.models = every[:_MODELS]
        return trained.stopped


def _plan(searches: list[_Search]) -> Iterator[tuple[_Search, int, int]]:
    """(a search, how many times its seeds, how many times its steps), without an end."""
    for bracket in itertools.count():
        left = searches
        for turn in range(_ROUNDS):
            yield from ((one, 2 ** (bracket + turn), 2**bracket) for one in left)
            better = sorted(left, key=lambda one: one.error)[: (len(left) + 1) // 2]
            left = [one for one in left if one in better]


def _check(x: Tensor, y: Tensor, choosing_x: Tensor, choosing_y: Tensor) -> None:
    for name, of_x, of_y in (("", x, y), ("choosing_", choosing_x, choosing_y)):
        for called, value in ((f"{name}x", of_x), (f"{name}y", of_y)):
            if not isinstance(value, Tensor) or value.dtype != torch.float64:
                got = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"{called}: expected a float64 tensor, got {got}")
            if not value.isfinite().all():
                raise ValueError(f"{called}: expected finite numbers")
        if of_x.dim() != 2 or of_y.shape != of_x.shape[:1] or not of_x.numel():
            raise ValueError(
                f"{name}x, {name}y: expected (rows, inputs) and (rows,), got {tuple(of_x.shape)} "
                f"and {tuple(of_y.shape)}"
            )
    if x.shape[1] != choosing_x.shape[1]:
        raise ValueError(
            f"choosing_x: expected {x.shape[1]} columns as x has, got {choosing_x.shape[1]}"
        )
