"""Independent layers side by side in one call: what ``call`` does where weights have a dimension of
units before their own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..checks import Sized
from ..family import OVER_UNITS, Function


def of_units(function: Function, tensors: tuple[Any, ...]) -> tuple[Function, tuple[Any, ...]]:
    """The function for units, and its tensors, if the first weight is of units; else these.

    An input of one or two dimensions is shared by all.
    """
    input, W = tensors[0], tensors[1]
    if not _has_units(function, W):
        return function, tensors
    if _is_shared(input):
        input = input.expand(W.shape[0], *input.shape)
    return OVER_UNITS[function.name], (input, *tensors[1:])


def check(function: Function, options: tuple[Any, ...], tensors: tuple[Any, ...]) -> None:
    """Raises what a call of the function, or of that for units, would raise; makes no tensor."""
    input, W = tensors[0], tensors[1]
    if _has_units(function, W):
        function = OVER_UNITS[function.name]
        if _is_shared(input):
            tensors = (Sized(input, (W.shape[0], *input.shape)), *tensors[1:])
    function.check(*options, *tensors)


def _has_units(function: Function, weight: Any) -> bool:
    return isinstance(weight, Tensor) and weight.dim() == 3 and function.name in OVER_UNITS


def _is_shared(input: Any) -> bool:
    return isinstance(input, Tensor) and input.dim() < 3
