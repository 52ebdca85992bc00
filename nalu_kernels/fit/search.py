"""The search: trains candidates in rounds, rounds what has come of them, and keeps the best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import rounding
from .candidates import CANDIDATES, Candidate
from .training import Table, train

F64 = torch.float64
_ROWS = 64  # that skeletons are told by
_KEEP = 24  # skeletons of a candidate
_DEPTH = 4  # flips one after the other
_MODELS = 3  # of a candidate that come back


class Found(NamedTuple):
    """A model: ``scale`` times ``model(x[:, columns])``.

    Attributes:
        candidate: its stack and settings.
        model: the stack in float64, in ``eval()``.
        columns: of the table, in the order of the model's inputs; None for all.
        scale: a factor; 1.0 for none.
        error: on the choosing rows, the mean of ``|f - y| / (|y| + median |y|)``.
        seeds, steps: tried of this candidate, and done with all of them, until it was found.
    """

    candidate: Candidate
    model: nn.Sequential
    columns: tuple[int, ...] | None
    scale: float
    error: float
    seeds: int
    steps: int


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
    tolerance: float = 1e-9,
) -> list[Found]:
    """Models of y, the best first."""
    deadline = time.perf_counter() + seconds
    found: dict[str, list[Found]] = {}
    seeds = {candidate.name: 0 for candidate in candidates}
    steps = dict(seeds)
    turn = 0
    alive = list(candidates)
    while True:
        for candidate in alive:
            left = deadline - time.perf_counter()
            if left <= 0.05:
                return _sorted(found)
            table = Table(candidate, x, y)
            count = candidate.seeds * 2**turn
            begin = seed * 2**32 + seeds[candidate.name]
            trained = train(
                candidate,
                table,
                range(begin, begin + count),
                candidate.steps,
                seconds=left,
                threads=threads,
            )
            seeds[candidate.name] += count
            steps[candidate.name] += trained.steps
            parts = len(rounding.shapes(candidate, x.shape[1]))
            skeletons = rounding.rounded(trained.weights[:parts])
            skeletons, _ = rounding.improve(
                candidate, skeletons, x[:_ROWS], y[:_ROWS], keep=_KEEP, depth=_DEPTH, good=1e-7
            )
            models = [
                _model(
                    candidate,
                    skeleton,
                    x,
                    y,
                    choosing_x,
                    choosing_y,
                    seeds[candidate.name],
                    steps[candidate.name],
                )
                for skeleton in skeletons[:_MODELS]
            ]
            found[candidate.name] = sorted(
                found.get(candidate.name, []) + models, key=lambda one: one.error
            )[:_MODELS]
            if found[candidate.name][0].error <= tolerance or trained.stopped:
                return _sorted(found)
        turn += 1


def _sorted(found: dict[str, list[Found]]) -> list[Found]:
    every = [one for of_one in found.values() for one in of_one]
    return sorted(every, key=lambda one: (one.error, one.candidate.complexity))


def _model(
    candidate: Candidate,
    skeleton: Tensor,
    x: Tensor,
    y: Tensor,
    choosing_x: Tensor,
    choosing_y: Tensor,
    seeds: int,
    steps: int,
) -> Found:
    model = candidate.stack(x.shape[1]).eval()
    parts = [part[0] for part in rounding.split(candidate, x.shape[1], skeleton.unsqueeze(0))]
    hidden = rounding.before_last(candidate, skeleton.unsqueeze(0), x)
    weights = rounding.last(candidate, hidden, y)[0][0]
    hidden = hidden[0]
    scale = 1.0
    if len(candidate.layers) > 1:
        if candidate.adds_last:
            share = 1 / (y.abs() + y.abs().median())
            part = (weights.unsqueeze(1) * hidden * share).abs().mean(1)
            matters = part > 1e-9
            size = weights.abs()[matters].max() if matters.any() else torch.tensor(1.0)
            weights = torch.where(matters, weights / size, 0.0)
            near = (weights - weights.round()).abs() < 1e-3
            weights = torch.where(near, weights.round(), weights).clamp(-1, 1)
        else:
            low = 0 if candidate.layers[-1] == "NMU" else -1
            weights = weights.round().clamp(low, 1)
        for k in range(candidate.hidden):
            if not weights[k]:
                parts[-1][k] = 0.0
        parts.append(weights.unsqueeze(0))
    with torch.no_grad():
        for layer, part in zip(model, parts, strict=True):
            if hasattr(layer, "g"):
                layer.W_re.copy_(part)
                layer.g.fill_(1.0)
            else:
                layer.W.copy_(part)
        made = model(x).squeeze(1)
        share = 1 / (y.abs() + y.abs().median())
        a, b = made * share, y * share
        scale = float((a @ b) / (a @ a)) if float(a @ a) else 1.0
        if abs(scale - 1) < 1e-6:
            scale = 1.0
        error = _error(scale * model(choosing_x).squeeze(1), choosing_y)
    return Found(candidate, model, None, scale, error, seeds, steps)


def _error(made: Tensor, y: Tensor) -> float:
    error = float(((made - y).abs() / (y.abs() + y.abs().median())).mean())
    return error if error == error else float("inf")
