"""What torch.func.vmap hides of a call: tensors with one more dimension.

Where vmap is the only transform, a call under it is one of layers side by side (``OverUnits``), or of
one layer on more rows. So it runs on kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter

from .family import OVER_UNITS, Function


def unmapped(function: Function, tensors: tuple[Any, ...]) -> tuple[Function, tuple[Any, ...]]:
    """The function that a call under vmap comes to, and its tensors."""
    level = retrieve_current_functorch_interpreter().level()
    size, found = 0, []
    for tensor in tensors:
        inside, mapped = _physical(tensor, level)
        size = inside.shape[0] if mapped else size
        found.append((inside, mapped))
    if not any(mapped for _, mapped in found[1:]):  # the input alone
        return function, tuple(tensor for tensor, _ in found)
    return OVER_UNITS[function.name], tuple(
        tensor if mapped or tensor is None else tensor.expand(size, *tensor.shape)
        for tensor, mapped in found
    )


def _physical(tensor: Any, level: int) -> tuple[Any, bool]:
    """A tensor as it is outside of this vmap, the mapped dimension first; and whether it has one."""
    functorch = torch._C._functorch
    if tensor is None or not functorch.is_batchedtensor(tensor):
        return tensor, False
    if functorch.maybe_get_level(tensor) != level:
        return tensor, False
    return functorch.get_unwrapped(tensor).movedim(functorch.maybe_get_bdim(tensor), 0), True


def outside(call: Callable[[], Tensor]) -> Tensor:
    """The call made outside of this vmap, with its result mapped over the first dimension."""
    interpreter = retrieve_current_functorch_interpreter()
    level = interpreter.level()
    with interpreter.lower():
        output = call()
    return torch._C._functorch._add_batch_dim(output, 0, level)
