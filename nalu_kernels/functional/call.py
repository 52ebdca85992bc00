"""What every call of a layer's function goes through: autocast, then shards or this process's own
tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..autocast import widen
from ..checks import is_dtensor
from ..execute import execute
from ..family import Function
from .units import of_units


def call(function: Function, options: tuple[Any, ...], tensors: tuple[Any, ...]) -> Tensor:
    """The function's output; the first tensor is the input, whose kind and device decide."""
    narrow = None
    if torch._C._is_any_autocast_enabled():
        narrow, tensors = widen(*tensors)
    if isinstance(tensors[1], Tensor) and tensors[1].dim() == 3:  # not a call more for the others
        function, tensors = of_units(function, tensors)
    if type(tensors[0]) is not Tensor and is_dtensor(tensors[0]):
        function.check(*options, *tensors)
        from .. import sharded  # imports what takes long

        output = sharded.execute_sharded(function, options, tensors)
    else:
        output = execute(function, options, tensors)
    return output if narrow is None else output.to(narrow)
