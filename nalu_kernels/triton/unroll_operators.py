"""The kernels of recurrent cells over the steps of a sequence, on CUDA tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..family import OVER_TIME
from ..operators import Kernels, Operators
from . import launch_unroll
from .arguments import Described, describe, require
from .device import chip
from .forms import Weights
from .steps import Steps

# By a layer's name: from its options to what ``launch_unroll.Unroll`` takes for it.
_LAYERS: dict[str, Callable[..., tuple[str, tuple[Any, ...]]]] = {
    "nac": lambda eps, log_space: ("nalu", (eps, not log_space, log_space)),
    "nalu": lambda eps: ("nalu", (eps, True, True)),
    "nau": lambda: ("nau", (1.0, True, False)),
    "nmu": lambda: ("nmu", ()),
    "inalu": lambda eps, omega, per_sample: (
        "inalu_sum" if per_sample else "inalu",
        (eps, True, True, omega),
    ),
    "npu": lambda eps, straight_through: ("npu", (eps, straight_through)),
}
# How many weights a kernel sees, where that is not the number of ``Weights``.
_COUNTS = {"nmu": 1, "npu": 3}


def _forward(name: str, layer: Kernels, *arguments: Any) -> tuple[Tensor, Tensor | None]:
    count = len(OVER_TIME[name].options)
    options, save, tensors = arguments[:count], arguments[count], arguments[count + 1 :]
    input, weights, states = _parts(name, tensors)
    given, call = _given(name, options, input, weights, states)
    if not launch_unroll.fits(*call):
        return Steps(OVER_TIME[name].layer, layer, options, input, weights, states).forward(save)
    output, saved = launch_unroll.forward(save, *call).run(given)
    return output, saved


def _backward(name: str, layer: Kernels, *arguments: Any) -> tuple[Tensor | None, ...]:
    count = len(OVER_TIME[name].options)
    options, (needed, grad_output, saved) = arguments[:count], arguments[count : count + 3]
    input, weights, states = _parts(name, arguments[count + 3 :])
    require(saved.is_contiguous(), "saved is not what the forward left")
    given, call = _given(name, options, input, weights, states)
    described: tuple[Any, Any] = (describe(grad_output), describe(saved))
    if not launch_unroll.fits(*call):
        dy, kept = Described._make(described[0]), Described._make(described[1])
        launch_unroll.Unroll(*call).require_backward(dy, kept)
        steps = Steps(OVER_TIME[name].layer, layer, options, input, weights, states)
        return steps.backward(needed, grad_output, saved)
    wants_hx = bool(needed >> 1 + len(weights) & 1)
    places = _places(name, weights)
    wants = needed & 1 | sum((needed >> at & 1) << 1 + to for at, to in enumerate(places, start=1))
    recipe = launch_unroll.backward(wants, wants_hx, *described, *call)
    dx, *grads, dhx = recipe.run([*given, grad_output, saved])
    return dx, *(grads[place] for place in places), dhx, None, None


def _parts(
    name: str, tensors: tuple[Tensor | None, ...]
) -> tuple[Any, tuple[Any, ...], tuple[Tensor | None, ...]]:
    """The input, the weights, and hx, lengths and reset, of which the last may be left out."""
    missing = len(OVER_TIME[name].tensors) - len(tensors)
    whole = (*tensors, *[None] * missing)
    return whole[0], whole[1:-3], whole[-3:]


def _places(name: str, weights: tuple[Any, ...]) -> list[int]:
    """Of the weights among those that the kernels see. An iNALU's g is G, or of one dimension a
    bias of the gate, which then sees no input."""
    if name != "inalu":
        return [*range(len(weights))]
    return [0, 1, 2 if weights[2].dim() == 2 else 3, 4, 5]


def _given(
    name: str,
    options: tuple[Any, ...],
    input: Tensor,
    weights: tuple[Any, ...],
    states: tuple[Tensor | None, ...],
) -> tuple[list[Any], tuple[Any, ...]]:
    """The tensors of a call, and the arguments of ``launch_unroll.Unroll``."""
    seen = [None] * _COUNTS.get(name, len(Weights._fields))
    for place, weight in zip(_places(name, weights), weights, strict=True):
        seen[place] = weight
    given = [input, *seen, *states]
    of_layer = _LAYERS[name](*options[:-1])
    return given, (chip(input.device), *of_layer, options[-1], tuple(map(describe, given)))


def over_time(layers: Operators) -> Operators:
    """The kernels of cells whose steps are calls of these layers."""
    return {
        OVER_TIME[name].name: Kernels(
            functools.partial(_forward, name, layers[name]),
            functools.partial(_backward, name, layers[name]),
        )
        for name in _LAYERS
    }
