"""What torch.func.vmap hides of a call: tensors with one more dimension.

Where vmap is the only transform, a call under it is one of layers side by side (``OverUnits``), or
of one layer on more rows. So it runs on kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter

from .dispatch import has_kernels, under_vmap
from .family import OVER_UNITS, Function

_functorch = torch._C._functorch


def serves(function: Function, input: Tensor) -> bool:
    """Whether a call of the function is to be ``run`` here: under vmap, and there are kernels."""
    return (
        under_vmap()
        and function.name in OVER_UNITS
        and has_kernels(input, OVER_UNITS[function.name].name)
    )


def run(
    call: Callable[[Function, tuple[Any, ...]], Tensor],
    function: Function,
    tensors: tuple[Any, ...],
) -> Tensor:
    """``call`` of the function that this comes to outside of vmap, and its tensors."""
    interpreter = retrieve_current_functorch_interpreter()
    level = interpreter.level()
    physical, mapped = zip(*(_physical(tensor, level) for tensor in tensors), strict=True)
    if any(mapped[1:]):
        function = OVER_UNITS[function.name]
        size = physical[mapped.index(True)].shape[0]
        physical = tuple(
            tensor if own or tensor is None else tensor.expand(size, *tensor.shape)
            for tensor, own in zip(physical, mapped, strict=True)
        )
    with interpreter.lower():
        output = call(function, physical)
    return _functorch._add_batch_dim(output, 0, level) if any(mapped) else output


def _physical(tensor: Any, level: int) -> tuple[Any, bool]:
    """A tensor as it is outside, the mapped dimension first; and whether it has one."""
    if tensor is None or _functorch.maybe_get_level(tensor) != level:
        return tensor, False
    return _functorch.get_unwrapped(tensor).movedim(_functorch.maybe_get_bdim(tensor), 0), True
