"""Runs a layer's function on plain tensors: by kernels, by the reference, or into a graph.

A function is a row here: adding a layer adds one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .autocast import disabled
from .autograd import apply_nac, apply_nalu, nac_by_reference, nalu_by_reference
from .checks import check_nac, check_nalu
from .dispatch import namespace_in_graph, select
from .operators import Operators

# What an operator or the choice of a back end raises when an argument is wrong; the checks then
# say which one. Anything else passes through.
_REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError)
_PLAIN = (Tensor, torch.nn.Parameter)


class Function(NamedTuple):
    """A layer's function. All that is called takes its options, of these types, then its tensors:
    the input first, the weights after it."""

    name: str  # of the operator that graphs call, and of the function in ``sharded``
    options: list[type]
    check: Callable[..., None]  # raises what has words for the user
    reference: Callable[..., Tensor]
    with_gradients: Callable[..., Tensor]  # of a back end's operators before all else
    without_gradients: Callable[..., Tensor]


def _infer_nac(operators: Operators, *arguments: Any) -> Tensor:
    output: Tensor = operators.nac_forward(*arguments)
    return output


def _infer_nalu(operators: Operators, eps: float, *tensors: Tensor | None) -> Tensor:
    output, _ = operators.nalu_forward(eps, False, *tensors)
    return output


NAC = Function("nac", [float, bool], check_nac, nac_by_reference, apply_nac, _infer_nac)
NALU = Function("nalu", [float], check_nalu, nalu_by_reference, apply_nalu, _infer_nalu)


def _plain(function: Function, options: tuple[Any, ...]) -> tuple[Any, ...]:
    """The options as Python's own, for they may be ints or numpy's."""
    return tuple(kind(option) for kind, option in zip(function.options, options, strict=True))


def execute(function: Function, options: tuple[Any, ...], tensors: tuple[Any, ...]) -> Tensor:
    """The function's output, by what ``dispatch`` chooses for the input."""
    try:
        operators = select(tensors[0])
        if operators is not None:
            # An operator would take True for 1.0, and 1 for True, and some DTensors for plain ones.
            if [*map(type, options)] != function.options or type(tensors[1]) not in _PLAIN:
                function.check(*options, *tensors)
                options = _plain(function, options)
            if torch.is_grad_enabled():
                return function.with_gradients(operators, *options, *tensors)
            return function.without_gradients(operators, *options, *tensors)
    except _REFUSALS:
        function.check(*options, *tensors)
        raise
    function.check(*options, *tensors)
    options = _plain(function, options)
    if torch.compiler.is_compiling():
        namespace = namespace_in_graph(tensors[0])
        if namespace:
            operator = getattr(getattr(torch.ops, namespace), function.name)
            return operator(*options, *tensors)
    with disabled(tensors[0]):
        return function.reference(*options, *tensors)
