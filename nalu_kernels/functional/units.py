"""Independent layers side by side in one call: what ``call`` does where weights have a dimension of
units before their own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..family import OVER_UNITS, Function


def of_units(function: Function, tensors: tuple[Any, ...]) -> tuple[Function, tuple[Any, ...]]:
    """The function for units, and its tensors, if the first weight is of units; else these.

    An input of one or two dimensions is shared by all.
    """
    input, W = tensors[:2]
    if not isinstance(W, Tensor) or W.dim() != 3:
        return function, tensors
    if isinstance(input, Tensor) and input.dim() < 3:
        input = input.expand(W.shape[0], *input.shape)
    return OVER_UNITS[function.name], (input, *tensors[1:])
