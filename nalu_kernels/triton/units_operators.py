"""The kernels of layers side by side, on CUDA tensors: a layer's own, told so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from ..family import FAMILY, OVER_UNITS
from ..operators import Kernels, Operators
from .arguments import require
from .recipe import TooManyUnits

# Triton 3.6 cannot compile ``units``: its functions return no tuple that has a None.
SUPPORTED = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 7)


def _nac_forward(
    forward: Callable[..., Any], eps: float, log_space: bool, save: bool, *tensors: Any
) -> tuple[Tensor, Tensor | None]:
    return forward(eps, log_space, *tensors), None


def _nac_backward(
    backward: Callable[..., Any],
    eps: float,
    log_space: bool,
    needed: int,
    grad_output: Tensor,
    saved: Tensor,
    *tensors: Any,
) -> Any:
    """``saved`` is the output, where the layer's own backward takes it."""
    return backward(eps, needed, grad_output, saved if log_space else None, *tensors)


def _forward(name: str, forward: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """``saved`` is flat, all of the first unit's first."""
    count = len(FAMILY[name].options) + 1
    told, tensors = arguments[:count], arguments[count:]
    _require_units(tensors[0])
    outputs, kept = zip(*_in_launches(functools.partial(forward, *told), tensors), strict=True)
    return _whole(outputs), None if kept[0] is None else _whole([one.flatten() for one in kept])


def _backward(name: str, backward: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
    count = len(FAMILY[name].options) + 1
    told, (dy, saved, *tensors) = arguments[:count], arguments[count:]
    units = _require_units(tensors[0])
    if saved is not None and saved.dim() == 1 and saved.numel() % units == 0:
        saved = saved.view(units, saved.numel() // units)
    parts = _in_launches(functools.partial(backward, *told), (dy, saved, *tensors))
    return tuple(
        None if of_parts[0] is None else _whole(of_parts) for of_parts in zip(*parts, strict=True)
    )


def _require_units(input: Tensor) -> int:
    require(input.dim() > 0 and len(input) > 0, "input lacks units")
    return len(input)


def _in_launches(call: Callable[..., Any], tensors: tuple[Any, ...]) -> list[Any]:
    """Of as many units at a time as one launch takes, one after the other."""
    try:
        return [call(*tensors)]
    except TooManyUnits as units:
        most = units.most
    return [
        call(*(one if one is None else one[first : first + most] for one in tensors))
        for first in range(0, len(tensors[0]), most)
    ]


def _whole(parts: Any) -> Any:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def over_units(layers: Operators) -> Operators:
    """The kernels of layers side by side, by those of the layers."""
    found: Operators = {}
    if not SUPPORTED:
        return found
    for name, kernels in layers.items():
        forward, backward = (functools.partial(kernel, units=True) for kernel in kernels)
        if FAMILY[name].saves_output_if:
            forward = functools.partial(_nac_forward, forward)
            backward = functools.partial(_nac_backward, backward)
        found[OVER_UNITS[name].name] = Kernels(
            functools.partial(_forward, name, forward), functools.partial(_backward, name, backward)
        )
    return found
