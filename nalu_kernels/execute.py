"""Runs a function of the family on plain tensors: by kernels, by the reference, or into a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import mapped
from .autocast import disabled
from .autograd import with_gradients
from .dispatch import namespace_in_graph, select
from .family import Function

# What an operator or the choice of a back end raises when an argument is wrong; the checks then
# say which one. Anything else passes through.
_REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError)
PLAIN = (Tensor, torch.nn.Parameter)


def _plain(function: Function, options: tuple[Any, ...]) -> tuple[Any, ...]:
    """The options as Python's own, for they may be ints or numpy's."""
    return tuple(kind(option) for kind, option in zip(function.types, options, strict=True))


def execute(function: Function, options: tuple[Any, ...], tensors: tuple[Any, ...]) -> Tensor:
    """The function's output, by what ``dispatch`` chooses for the input."""
    try:
        operators = select(tensors[0], function.name)
        if operators is not None:
            # An operator would take True for 1.0, and 1 for True, and some DTensors for plain ones.
            if [*map(type, options)] != function.types or type(tensors[1]) not in PLAIN:
                function.check(*options, *tensors)
                options = _plain(function, options)
            kernels = operators[function.name]
            if torch.is_grad_enabled():
                return with_gradients[function.name](kernels, *options, *tensors)
            if function.saves_output_if:
                output: Tensor = kernels.forward(*options, *tensors)
            else:
                output, _ = kernels.forward(*options, False, *tensors)
            return output
    except _REFUSALS:
        function.check(*options, *tensors)
        raise
    function.check(*options, *tensors)
    options = _plain(function, options)
    if torch.compiler.is_compiling():
        namespace = namespace_in_graph(tensors[0], function.name)
        if namespace:
            operator = getattr(getattr(torch.ops, namespace), function.name)
            return operator(*options, *tensors)
    elif mapped.serves(function, tensors[0]):
        return mapped.run(lambda row, given: execute(row, options, given), function, tensors)
    with disabled(tensors[0]):
        return function.reference(*options, *tensors)
