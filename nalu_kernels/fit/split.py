"""Which rows train, which choose, which check, and which lie outside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_TRAINING, _CHOOSING = 0.6, 0.2  # of the rows inside; the others check


@dataclass(frozen=True)
class Split:
    """The numbers of a table's rows; each row is in one of the four.

    ``training`` moves the weights. ``choosing`` picks one of the trained models. Nothing looks at
    ``checking`` and ``outside`` before a formula's verdict. ``outside`` is empty where no row is
    larger than the others.
    """

    training: Tensor
    choosing: Tensor
    checking: Tensor
    outside: Tensor


def split(x: Tensor, *, seed: int = 0, outside: float = 0.2) -> Split:
    """Splits the rows of ``x`` (rows, inputs), at least 3; the same for the same ``seed``.

    The rows inside are those of a box, \\|x_j\\| below a limit in each column; every row outside
    leaves it. The limits are at the same rank in all columns, so that a column has as many rows
    outside as any other: measured in the column's median or standard deviation, those of a heavy
    tail, which may be of a column that tells nothing, would be nearly all. Rows of equal magnitude
    are on one side.

    Args:
        outside: at most this share of the rows lies outside, from 0 to 0.5; more only where so many
            are of the largest magnitude, and never more than half.

    Raises:
        ValueError: fewer than 3 rows, or another share.
    """
    if not 0 <= outside <= 0.5:
        raise ValueError(f"outside: expected a share from 0 to 0.5, got {outside}")
    if len(x) < 3:
        raise ValueError(f"x: expected at least 3 rows, got {len(x)}")
    beyond = _leaves(_rank(x), outside)
    inside = beyond.logical_not().nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    inside = inside[torch.randperm(len(inside), generator=generator)]
    choosing = max(1, round(_CHOOSING * len(inside)))
    training = max(1, min(round(_TRAINING * len(inside)), len(inside) - choosing - 1))
    return Split(
        inside[:training].sort().values,
        inside[training : training + choosing].sort().values,
        inside[training + choosing :].sort().values,
        beyond.nonzero()[:, 0],
    )


def _rank(x: Tensor) -> Tensor:
    """Of each row: the largest share, over its columns, of rows with a smaller magnitude there."""
    if not x.shape[1]:
        return torch.zeros(len(x), dtype=torch.float64)
    magnitude = x.abs().T.contiguous()  # (inputs, rows)
    smaller = torch.searchsorted(magnitude.sort(1).values, magnitude)
    return smaller.amax(0).double() / len(x)


def _leaves(rank: Tensor, share: float) -> Tensor:
    """Which rows lie outside: those of the largest ranks, as many as ``share`` allows."""
    ordered = rank.sort(descending=True).values
    count = math.floor(share * len(rank))
    if not count or len(rank) - count < 3:
        return torch.zeros(len(rank), dtype=torch.bool)
    # The limit is between two ranks: one that reaches over it has its rows inside.
    beyond = rank > ordered[count]
    if not beyond.any():
        beyond = rank == ordered[0]
    if 2 * int(beyond.sum()) > len(rank) or len(rank) - int(beyond.sum()) < 3:
        return torch.zeros(len(rank), dtype=torch.bool)
    return beyond
