"""Compiles for an sm_90 that is not there and prints what would be launched on it, as JSON.

test_triton_recipe.py runs it: in its own process the kernels are for the interpreter.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from benchmarks.stubbed_gpu import pretend
from layers import FULLEST, KINDS, draw
from nalu_kernels.operators import Operators

launched: list[Any] = []


def described(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return [str(argument.dtype), list(argument.shape), list(argument.stride())]
    if isinstance(argument, tuple):
        return [described(part) for part in argument]
    return argument


def record(*arguments: Any) -> None:
    """Grid, stream, kernel and its arguments, without what is there for a profiler."""
    launched.append([described(argument) for argument in (*arguments[:6], *arguments[9:])])


def calls(operators: Operators, kind_name: str) -> list[list[Any]]:
    """What the first, the second and the third of the same calls launched."""
    kind = next(kind for kind in KINDS if kind.name == kind_name)
    layer = draw(torch.Generator().manual_seed(0), kind, (1200, 5, 3))
    found = []
    for _ in range(3):
        launched.clear()
        eps, tensors = 1e-7, list(layer.tensors.values())
        if kind.function == "nac":
            y = operators["nac"].forward(eps, kind.log_space, *tensors)
            saved = y if kind.log_space else None
            operators["nac"].backward(eps, -1, layer.grad_output, saved, *tensors)
        else:
            y, saved = operators["nalu"].forward(eps, True, *tensors)
            operators["nalu"].backward(eps, -1, layer.grad_output, saved, *tensors)
        found.append(list(launched))
    return found


if __name__ == "__main__":
    operators = pretend(record)
    found = {name: calls(operators, name) for name in ("nac", FULLEST.name)}
    print(json.dumps(found, default=lambda other: type(other).__name__))
