"""Stacks whose weights are -1, 0 and 1: of trained ones, many at once.

A *skeleton* is a candidate's weights without those of its last layer, each -1, 0 or 1: (weights,),
layer after layer. The last layer's weights, or the one factor of a single layer, follow from a
skeleton by least squares. So a skeleton is right or wrong by itself, and can be told from a few
rows: long before a training has converged, and of thousands in one call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .candidates import Candidate

F64 = torch.float64
_TINY = 1e-300
_SHARES = (0.3, 0.6)  # of the largest weight of an output: what is less becomes 0
_SIZES = (0.25, 0.5)


def shapes(candidate: Candidate, inputs: int) -> list[tuple[str, int, int]]:
    """(layer, outputs, inputs) of each part of a skeleton."""
    sizes = candidate.sizes(inputs)
    count = max(1, len(candidate.layers) - 1)
    return list(zip(candidate.layers, sizes[1:], sizes[:-1], strict=False))[:count]


def split(candidate: Candidate, inputs: int, skeletons: Tensor) -> list[Tensor]:
    """The weights (skeletons, outputs, inputs) of each part."""
    parts, start = [], 0
    for _, outputs, columns in shapes(candidate, inputs):
        part = skeletons[:, start : start + outputs * columns]
        parts.append(part.unflatten(1, (outputs, columns)))
        start += outputs * columns
    return parts


def rounded(weights: list[Tensor]) -> Tensor:
    """Skeletons (4 · runs, weights) of the runs' weights, each (runs, outputs, inputs): by four
    thresholds, two of them relative to the output's largest weight."""
    found = []
    for share in _SHARES:
        found.append([_signs(w, share * w.abs().amax(2, keepdim=True)) for w in weights])
    for size in _SIZES:
        found.append([_signs(w, torch.full_like(w, size)) for w in weights])
    return torch.cat([torch.cat([part.flatten(1) for part in parts], 1) for parts in found])


def _signs(weights: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(weights.abs() > threshold, weights.sign(), 0.0)


def distinct(skeletons: Tensor) -> Tensor:
    """Each of them once, in an order of their own."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randint(2**40, (skeletons.shape[1],), generator=generator)
    keys = (skeletons.long() * mix).sum(1)
    order = keys.argsort(stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = keys[order][1:] != keys[order][:-1]
    return skeletons[order[first]]


def flips(candidate: Candidate, inputs: int, skeletons: Tensor) -> Tensor:
    """All that differ from one of them in one weight."""
    count, size = skeletons.shape
    least = torch.cat(
        [
            torch.full((o * i,), 0.0 if name == "NMU" else -1.0, dtype=F64)
            for name, o, i in shapes(candidate, inputs)
        ]
    )
    one = torch.eye(size, dtype=torch.bool)
    changed = []
    for step in (1, 2):
        other = (skeletons - least + step) % 3 + least
        there = (other >= least) & (other <= 1)
        new = torch.where(one, other.unsqueeze(1), skeletons.unsqueeze(1))
        changed.append(new[there])
    return torch.cat(changed)


def layer(name: str, weights: Tensor, x: Tensor) -> Tensor:
    """What a layer of rounded weights (skeletons, outputs, inputs) makes of numbers
    (..., inputs, rows)."""
    if name == "NAU":
        return weights @ x
    size = (weights @ x.abs().clamp_min(_TINY).log()).exp()
    return size * (1 - 2 * ((weights.abs() @ (x < 0).to(F64)) % 2))


def before_last(candidate: Candidate, skeletons: Tensor, x: Tensor) -> Tensor:
    """(skeletons, hidden, rows), the numbers that the last layer gets, of inputs (rows, inputs)."""
    numbers = x.mT
    parts = split(candidate, x.shape[1], skeletons)
    for (name, _, _), weights in zip(shapes(candidate, x.shape[1]), parts, strict=True):
        numbers = layer(name, weights, numbers)
    return numbers


def last(candidate: Candidate, hidden: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The last layer's weights by least squares, and how well they do.

    Coefficients c of hidden numbers H (skeletons, hidden, rows) minimise
    Σ ((Σ c H - y) / (|y| + median |y|))², exponents p minimise Σ (Σ p log|H| + b - log|y|)².

    Returns:
        weights (skeletons, hidden), and the root of the sum over that of weights 0 (skeletons,).
    """
    if len(candidate.layers) == 1 or candidate.adds_last:
        share = 1 / (y.abs() + y.abs().median())
        columns, target = hidden * share, y * share
    else:
        columns, target = (v.abs().clamp_min(1e-30).log() for v in (hidden, y))
        columns = columns - columns.mean(2, keepdim=True)
        target = target - target.mean()
    norm = columns.norm(dim=2, keepdim=True).clamp_min(_TINY)
    columns = columns / norm
    gram = columns @ columns.mT + 1e-11 * torch.eye(columns.shape[1], dtype=F64)
    bad = ~gram.isfinite().all(2).all(1)
    gram[bad] = torch.eye(columns.shape[1], dtype=F64)
    weights = torch.linalg.solve(gram, columns @ target.unsqueeze(-1))
    error = ((weights * columns).sum(1) - target).norm(dim=1) / target.norm().clamp_min(_TINY)
    error[bad | error.isnan()] = torch.inf
    return (weights / norm).squeeze(-1), error


def improve(
    candidate: Candidate,
    skeletons: Tensor,
    x: Tensor,
    y: Tensor,
    *,
    keep: int,
    depth: int,
    good: float,
) -> tuple[Tensor, Tensor]:
    """The best skeletons by single flips of the ``keep`` best, ``depth`` times or until one has an
    error below ``good`` or none is better.

    Returns:
        skeletons and their errors, of :func:`last`, from the best on.
    """
    skeletons = distinct(skeletons)
    errors = last(candidate, before_last(candidate, skeletons, x), y)[1]
    best = torch.inf
    for left in range(depth, -1, -1):
        order = errors.argsort(stable=True)[:keep]
        skeletons, errors = skeletons[order], errors[order]
        if not left or errors[0] < good or errors[0] >= best:
            break
        best = float(errors[0])
        new = distinct(flips(candidate, x.shape[1], skeletons))
        skeletons = torch.cat((skeletons, new))
        errors = torch.cat((errors, last(candidate, before_last(candidate, new, x), y)[1]))
    return skeletons, errors
