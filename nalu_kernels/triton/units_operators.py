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

# Triton 3.6 cannot compile ``units``: its functions return no tuple that has a None.
SUPPORTED = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 7)
_MOST = 65535  # units of one launch


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
    parts = [forward(*arguments[:count], *part) for part in _launched(arguments[count:])]
    outputs, kept = zip(*parts, strict=True)
    return _whole(outputs), None if kept[0] is None else _whole([one.flatten() for one in kept])


def _backward(name: str, backward: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
    count = len(FAMILY[name].options) + 1
    told, (dy, saved, *tensors) = arguments[:count], arguments[count:]
    if saved is not None and saved.dim() == 1:
        saved = saved.view(len(dy), saved.numel() // len(dy))
    parts = [backward(*told, *part) for part in _launched([dy, saved, *tensors])]
    return tuple(
        None if of_parts[0] is None else _whole(of_parts) for of_parts in zip(*parts, strict=True)
    )


def _launched(tensors: Any) -> Any:
    """The tensors of as many units as one launch takes, one after the other."""
    units = len(tensors[0])
    if units <= _MOST:
        return [tensors]
    return [
        [one if one is None else one[first : first + _MOST] for one in tensors]
        for first in range(0, units, _MOST)
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
