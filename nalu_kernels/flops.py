"""How many floating-point operations the operators' products are, for torch.utils.flop_counter: a
product of (B, I) with (I, O) counts 2 B I O, as it does for Linear. A product over the inputs, as
an NMU's, counts as much.

Backward counts as much for the gradients of each side of a product, where one of them is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

from .family import FUNCTIONS, Function
from .when_imported import when_imported


def _product(input: Sequence[int], columns: int) -> int:
    return 2 * math.prod(input) * columns


def _formulas(function: Function) -> dict[str, Callable[..., int]]:
    """Of a function's operators, by name; they are called with shapes for tensors."""
    options, saves_output = len(function.options), bool(function.saves_output_if)
    told = options - saves_output
    bits = {name: 1 << i for i, name in enumerate(function.tensors)}

    def whole(*arguments: Any, **_: Any) -> int:
        shapes = function.shapes(arguments[options:])
        columns = sum(product.columns for product in function.products(shapes))
        return _product(shapes["input"], columns)

    def forward(*arguments: Any, **_: Any) -> int:
        return whole(*arguments[:options], *arguments[options + 1 :])

    def backward(*arguments: Any, **_: Any) -> int:
        needed, _grad_output, _saved, *tensors = arguments[told:]
        shapes = function.shapes(tensors)
        columns = 0
        for product in function.products(shapes):
            sides = (sum(map(bits.__getitem__, side)) for side in (product.left, product.right))
            columns += product.columns * sum(bool(needed & side) for side in sides)
        return _product(shapes["input"], columns)

    name = function.name
    ahead = whole if saves_output else forward
    return {name: whole, f"{name}_forward": ahead, f"{name}_backward": backward}


def _nac_of_W(eps: float, log_space: bool, input: Any, W: Any, **_: Any) -> int:
    return _product(input, W[0])


def _nalu_of_W(eps: float, input: Any, W: Any, G: Any, *_rest: Any, **_: Any) -> int:
    return _product(input, 2 * W[0] + G[0])


def register(namespace: str) -> None:
    """Gives torch.utils.flop_counter, once it is imported (for that imports Triton), the formulas
    of a namespace's operators."""
    operators = getattr(torch.ops, namespace)
    formulas: dict[str, Callable[..., int]] = {"nac_of_W": _nac_of_W, "nalu_of_W": _nalu_of_W}
    for function in FUNCTIONS.values():
        formulas |= _formulas(function)

    def tell(counter: ModuleType) -> None:
        for name, formula in formulas.items():
            if hasattr(operators, name):
                counter.register_flop_formula(getattr(operators, name))(formula)

    when_imported("torch.utils.flop_counter", tell)
