"""Independent layers side by side: a formula for each, mapped over the first dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def units(layer: Callable[..., Tensor], **arguments: Any) -> Tensor:
    """``layer`` of its own arguments, whose tensors have a dimension of units before their own;
    nothing is checked."""
    tensors = {name: of for name, of in arguments.items() if isinstance(of, Tensor)}
    options = {name: of for name, of in arguments.items() if name not in tensors}

    def unit(*own: Tensor) -> Tensor:
        return layer(**dict(zip(tensors, own, strict=True)), **options)

    if torch.compiler.is_compiling():  # torch.export takes no vmap
        each = zip(*(of.unbind(0) for of in tensors.values()), strict=True)
        return torch.stack([unit(*own) for own in each])
    output: Tensor = torch.func.vmap(unit)(*tensors.values())
    return output
