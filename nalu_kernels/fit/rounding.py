"""Stacks whose weights are -1, 0 and 1: made of trained ones, many at once.

A *skeleton* is a candidate's weights without those of its last layer (of one layer all), each -1, 0
or 1: a row of numbers, layer after layer. The last layer's weights, or the factor behind a single
layer, follow from a skeleton by least squares. So a skeleton is right or wrong by itself, which a
few rows tell of thousands in one call: long before a training has converged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .candidates import Candidate

F64 = torch.float64
_TINY = 1e-300
# What becomes 0 is up to a share of the output's largest weight, and up to a size.
_THRESHOLDS = ((0.3, 0.0), (0.6, 0.0), (0.0, 0.25), (0.0, 0.5))
_RIDGE = 1e-11  # of equal hidden numbers, each gets a part


def typical(y: Tensor) -> float:
    """The median of ``|y|``, or where that is 0 the mean; 1 if all are 0."""
    size = y.abs()
    return float(size.median()) or float(size.mean()) or 1.0


def parts(candidate: Candidate, inputs: int) -> list[tuple[str, int, int]]:
    """(layer, inputs, outputs) of each layer that a skeleton has."""
    return candidate.shapes(inputs)[: max(1, len(candidate.layers) - 1)]


def split(candidate: Candidate, inputs: int, skeletons: Tensor) -> list[Tensor]:
    """Each layer's weights (skeletons, outputs, inputs) of skeletons (skeletons, weights)."""
    shapes = parts(candidate, inputs)
    pieces = skeletons.split([i * o for _, i, o in shapes], 1)
    return [piece.unflatten(1, (o, i)) for piece, (_, i, o) in zip(pieces, shapes, strict=True)]


def skeletons_of(candidate: Candidate, weights: list[Tensor], units: Tensor) -> Tensor:
    """Skeletons (4 · runs, weights) of the weights (runs, outputs, inputs) that runs have ended
    with, by four thresholds.

    ``units`` (inputs,) is what the columns were divided by. Products of these are too small by some
    factor, and a NAU behind them has weights too large by the same.
    """
    found = []
    for share, size in _THRESHOLDS:
        rounded: list[Tensor] = []
        for (name, _, _), w in zip(parts(candidate, len(units)), weights, strict=False):
            if rounded and name == "NAU":
                w = w * torch.exp(-(rounded[0] @ units.log())).unsqueeze(1)
            least = size + share * w.abs().amax(2, keepdim=True)
            rounded.append(torch.where(w.abs() > least, w.sign(), 0.0))
        found.append(torch.cat([part.flatten(1) for part in rounded], 1))
    return torch.cat(found)


def distinct(skeletons: Tensor) -> Tensor:
    """Each of them once, in an order that does not depend on theirs."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randint(2**48, (skeletons.shape[1],), generator=generator)
    keys, order = (skeletons.long() * mix).sum(1).sort(stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    return skeletons[order[first]]


def flips(candidate: Candidate, inputs: int, skeletons: Tensor) -> Tensor:
    """All skeletons that differ from one of these in one weight."""
    least = torch.cat(
        [
            torch.full((i * o,), 0.0 if name == "NMU" else -1.0, dtype=F64)
            for name, i, o in parts(candidate, inputs)
        ]
    )
    one = torch.eye(skeletons.shape[1], dtype=torch.bool)
    changed = []
    for step in (1, 2):
        other = least + (skeletons - least + step) % 3
        all_of_them = torch.where(one, other.unsqueeze(1), skeletons.unsqueeze(1))
        changed.append(all_of_them[other <= 1])
    return torch.cat(changed)


def hidden(candidate: Candidate, skeletons: Tensor, x: Tensor) -> Tensor:
    """What the last layer gets, or the factor behind a single layer: (skeletons, outputs, rows) of
    inputs (rows, inputs)."""
    numbers = x.mT
    shapes = parts(candidate, x.shape[1])
    for (name, _, _), w in zip(shapes, split(candidate, x.shape[1], skeletons), strict=True):
        if name == "NAU":
            numbers = w @ numbers
            continue
        size = numbers.abs() + (torch.finfo(F64).eps if name == "RealNPU" else 0.0)
        size = (w @ size.clamp_min(_TINY).log()).exp()
        numbers = size * (1 - 2 * ((w.abs() @ (numbers < 0).to(F64)) % 2))
    return numbers


def last(candidate: Candidate, numbers: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""The last layer's weights, by least squares.

    Of hidden numbers H (skeletons, hidden, rows) coefficients c minimise
    :math:`\sum_r ((\sum_k c_k H_{kr} - y_r) / (|y_r| + t))^2`, t being y's typical size, and
    exponents p :math:`\sum_r (\sum_k p_k \log |H_{kr}| + b - \log |y_r|)^2`.

    Returns:
        the weights (skeletons, hidden), and the root of that sum over the root of that with
        weights of 0 (skeletons,); infinite where it has no solution.
    """
    if candidate.multiplies_last:
        columns, target = (value.abs().clamp_min(1e-30).log() for value in (numbers, y))
        columns, target = columns - columns.mean(2, keepdim=True), target - target.mean()
    else:
        share = 1 / (y.abs() + typical(y))
        columns, target = numbers * share, y * share
    norm = columns.norm(dim=2, keepdim=True).clamp_min(_TINY)
    columns = columns / norm
    one = torch.eye(columns.shape[1], dtype=F64)
    gram = columns @ columns.mT + _RIDGE * one
    wrong = ~gram.isfinite().all(2).all(1)
    weights, failed = torch.linalg.solve_ex(
        torch.where(wrong.view(-1, 1, 1), one, gram), columns @ target.unsqueeze(-1)
    )
    error = ((weights * columns).sum(1) - target).norm(dim=1) / target.norm().clamp_min(_TINY)
    error = torch.where(wrong | (failed != 0) | error.isnan(), torch.inf, error)
    return (weights / norm).squeeze(-1), error


def improve(
    candidate: Candidate, skeletons: Tensor, x: Tensor, y: Tensor, keep: int, depth: int
) -> Tensor:
    """The ``keep`` best skeletons of these, then of these and all flips of them, and so on: up to
    ``depth`` times, until the best is no better than before or right, that is, off by rounding
    errors. From the best on."""
    skeletons = distinct(skeletons)
    errors = last(candidate, hidden(candidate, skeletons, x), y)[1]
    before = torch.inf
    for left in range(depth, -1, -1):
        order = errors.argsort(stable=True)[:keep]
        skeletons, errors = skeletons[order], errors[order]
        if not left or errors[0] < 1e-7 or errors[0] >= before:
            break
        before = float(errors[0])
        new = distinct(flips(candidate, x.shape[1], skeletons))
        skeletons = torch.cat((skeletons, new))
        errors = torch.cat((errors, last(candidate, hidden(candidate, new, x), y)[1]))
    return skeletons
