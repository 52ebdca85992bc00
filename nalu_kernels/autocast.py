"""What these layers do under torch.autocast: they are computed in float32, and give the dtype that
a Linear would give.

A weight or a logarithm rounded to 8 bits would turn into percents of the product, so nothing is
rounded but the result. docs/autocast.md has the policy.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)


def wide(tensor: Any) -> Any:
    """A half-precision tensor in float32; all else as it is."""
    return tensor.float() if isinstance(tensor, Tensor) and tensor.dtype in HALVES else tensor


def widen(*arguments: Any) -> tuple[torch.dtype | None, tuple[Any, ...]]:
    """The dtype of the result, None if autocast has nothing to say of it, and the arguments to
    compute it from. The first is the input; as with Linear, float64 stays float64."""
    input = arguments[0]
    if not isinstance(input, Tensor) or input.dtype not in (torch.float32, *HALVES):
        return None, arguments
    if not _enabled(input.device.type):
        return None, arguments
    return torch.get_autocast_dtype(input.device.type), tuple(map(wide, arguments))


def computed_in(input: Tensor) -> torch.dtype:
    """The dtype that :func:`widen` would leave an input in."""
    half = input.dtype in HALVES and torch._C._is_any_autocast_enabled()
    return torch.float32 if half and _enabled(input.device.type) else input.dtype


def disabled(input: Tensor) -> AbstractContextManager[Any]:
    """For the plain formulas: what has been widened is computed as it is."""
    if torch._C._is_any_autocast_enabled() and _enabled(input.device.type):
        return torch.autocast(input.device.type, enabled=False)
    return nullcontext()


def _enabled(device_type: str) -> bool:
    return _exists(device_type) and torch.is_autocast_enabled(device_type)


def _exists(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


# As in dispatch.py: torch 2.11's compiler cannot trace it.
_exists._dynamo_marked_constant = True  # type: ignore[attr-defined]
