"""Numbers that a weight of a formula may be."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

MOST_DENOMINATOR, MOST_POWER = 4, 4
_LAST_DIGITS = 2.0**-51
SIGNED = (-1.0, 0.0, 1.0)
UNSIGNED = (0.0, 1.0)


def _powers(low: int, high: int) -> tuple[float, ...]:
    parts = {
        Fraction(above, below)
        for below in range(1, MOST_DENOMINATOR + 1)
        for above in range(low * below, high * below + 1)
    }
    return tuple(map(float, sorted(parts)))


POWERS = _powers(-MOST_POWER, MOST_POWER)  # of a power unit
POWERS_OF_NALU = _powers(-1, 1)  # whose weights have a tanh in them
POWERS_OF_SIGMA = _powers(0, 1)


class Rounded(NamedTuple):
    """Weights before and after: those within the tolerance of a whole number became it."""

    values: Tensor
    distance: Tensor  # of each from the nearest whole number
    whole: Tensor  # bool: it is one now


def near(values: Tensor, whole: tuple[float, ...], tolerance: float) -> Rounded:
    """Rounds what is near; ``whole`` are the numbers that it may become, in ascending order."""
    if not values.numel():
        return Rounded(values, values, values.bool())
    numbers = torch.tensor(whole, dtype=values.dtype)
    place = ((values.unsqueeze(-1) - numbers).abs()).argmin(-1)
    nearest = numbers[place]
    distance = (values - nearest).abs()
    is_near = distance <= tolerance
    return Rounded(torch.where(is_near, nearest, values), distance, is_near)


def fraction(value: float, most: int = 12) -> Fraction | None:
    """The small fraction that a float64 is, to its last digits, if it is one."""
    nearest = Fraction(value).limit_denominator(most)
    return nearest if abs(float(nearest) - value) <= _LAST_DIGITS * abs(value) else None
