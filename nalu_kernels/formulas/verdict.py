"""How wrong predictions are, and what that makes of a formula."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# The largest relative error of an exact formula: that of weights off by 1e-5, as in the field's
# rule for a solved task (Madsen and Johansen 2020, section 4.1).
EXACT = 1e-5
# The largest share of the targets' spread that an exact one leaves, so that a large offset hides
# nothing, and an approximate one: R^2 is 1 - 1e-6 and 0.99 there.
EXACT_SPREAD, APPROXIMATE = 1e-3, 0.1
_SAME = 1e-12  # relative: targets that vary by less are one number
VERDICTS = ("exact", "approximate", "not a formula")


class Error(NamedTuple):
    """Of predictions of targets.

    Attributes:
        largest: of all rows, the largest error relative to the target, or to the median target
            where the target is smaller than that.
        spread: the root of the mean squared error, relative to the targets' standard deviation:
            sqrt(1 - R^2). Where the targets do not vary, relative to their size.
    """

    largest: float
    spread: float


class Errors(NamedTuple):
    """Of the model as it was given, and of the rounded module, on the same rows."""

    model: Error
    rounded: Error
    rows: int


def error_of(predicted: Tensor, targets: Tensor) -> Error:
    """The worst output's, of (rows, out) each; infinite where a prediction is not finite."""
    return Error(*(max(part) for part in zip(*map(_error, predicted.T, targets.T), strict=True)))


def _error(predicted: Tensor, targets: Tensor) -> Error:
    off = (predicted - targets).abs()
    if not bool(off.isfinite().all()):
        return Error(math.inf, math.inf)
    size = targets.abs()
    least = size.median() if size.median() > 0 else size.max()
    relative = off / torch.maximum(size, least)
    largest = float(torch.where(off == 0, 0.0, relative).max())
    spread = targets.std(correction=0)
    spread = spread if spread > _SAME * size.max() else size.max()
    root = off.square().mean().sqrt()
    return Error(largest, float(root / spread) if root > 0 else 0.0)


def verdict(readable: bool, inside: Errors, outside: Errors | None) -> str:
    """``readable``: all weights that count are whole numbers, or those of a last ``nn.Linear``,
    and no gate is open."""
    both = [of.rounded for of in (inside, outside) if of is not None]
    if readable and all(of.largest <= EXACT and of.spread <= EXACT_SPREAD for of in both):
        return VERDICTS[0]
    if readable and all(error.spread <= APPROXIMATE for error in both):
        return VERDICTS[1]
    return VERDICTS[2]
