"""unroll(): a layer as a recurrent cell, all steps of a sequence in one call."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..autocast import widen
from ..dispatch import has_kernels
from ..family import OverTime
from ..reference.unroll import unroll as by_steps
from .call import call


def unroll(
    function: OverTime,
    options: tuple[Any, ...],
    last_only: bool,
    input: Tensor,
    tensors: list[Tensor | None],
    states: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> Tensor:
    """The states of h' = layer([x, h]), as ``reference.unroll`` has them.

    ``options`` and ``tensors`` are the layer's, ``states`` are hx, lengths and reset. One call of a
    kernel where the input's back end has one, else a call of the layer for each step.
    """
    missing = [None] * (len(function.layer.tensors) - 1 - len(tensors))
    given = (input, *tensors, *missing, *states)
    while given[-1] is None:  # an operator's default, and less to pass
        given = given[:-1]
    if has_kernels(input, function.name):
        return call(function, (*options, last_only), given)
    function.check(*options, last_only, *widen(*given)[1])
    hx, lengths, reset = states

    def layer(input: Tensor) -> Tensor:
        return call(function.layer, options, (input, *tensors))

    W = tensors[0]
    if hx is None and W is not None:
        hx = input.new_zeros((input.shape[1], W.shape[0]))
    return by_steps(layer, input=input, hx=hx, lengths=lengths, reset=reset, last_only=last_only)
