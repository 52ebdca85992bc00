"""How many floating-point operations the operators' matrix products are, for
torch.utils.flop_counter: a product of (B, I) with (I, O) counts 2 B I O, as it does for Linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from .when_imported import when_imported


def _product(input: Sequence[int], weight: Sequence[int]) -> int:
    return 2 * math.prod(input) * weight[0]


def _nac_forward(eps: float, log_space: bool, *shapes: Any, **_: Any) -> int:
    """2 B I O."""
    return _product(shapes[0], shapes[1])


def _nac_backward(
    eps: float, needed: int, grad_output: Any, output: Any, *shapes: Any, **_: Any
) -> int:
    """As much for the input's gradient, and as much for that of W_hat and M_hat together."""
    products = bool(needed & 0b001) + bool(needed & 0b110)
    return products * _product(shapes[0], shapes[1])


def _nalu_forward(eps: float, save: bool, *shapes: Any, **_: Any) -> int:
    """6 B I O: two paths and a gate for each output."""
    input, W_hat, _M_hat, G, *_rest = shapes
    return 2 * _product(input, W_hat) + _product(input, G)


def _nalu(eps: float, *shapes: Any, **_: Any) -> int:
    return _nalu_forward(eps, False, *shapes)


def _nalu_backward(
    eps: float, needed: int, grad_output: Any, saved: Any, *shapes: Any, **_: Any
) -> int:
    """12 B I O where everything is needed: half of it for the input's gradient."""
    input, W_hat, _M_hat, G, *rest = shapes
    untied = len(rest) > 1 and rest[1] is not None
    path, gate = _product(input, W_hat), _product(input, G)
    count = 2 * path + gate if needed & 0b1 else 0
    if needed & 0b110:
        count += path if untied else 2 * path
    if needed & 0b1100000:
        count += path
    if needed & 0b1000:
        count += gate
    return count


def _nac_of_W(eps: float, log_space: bool, input: Any, W: Any, **_: Any) -> int:
    return _product(input, W)


def _nalu_of_W(eps: float, input: Any, W: Any, G: Any, *_rest: Any, **_: Any) -> int:
    return 2 * _product(input, W) + _product(input, G)


_FORMULAS = {
    "nac": _nac_forward,
    "nac_forward": _nac_forward,
    "nac_backward": _nac_backward,
    "nalu": _nalu,
    "nalu_forward": _nalu_forward,
    "nalu_backward": _nalu_backward,
    "nac_of_W": _nac_of_W,
    "nalu_of_W": _nalu_of_W,
}


def register(namespace: str) -> None:
    """Gives torch.utils.flop_counter, once it is imported (for that imports Triton), the formulas
    of a namespace's operators."""
    operators = getattr(torch.ops, namespace)

    def tell(counter: ModuleType) -> None:
        for name, formula in _FORMULAS.items():
            if hasattr(operators, name):
                counter.register_flop_formula(getattr(operators, name))(formula)

    when_imported("torch.utils.flop_counter", tell)
