"""The Triton back end: imported, but for this file, when a GPU tensor first needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..operators import define, register

NAMESPACE = "nalu_kernels_triton"


def _deferred(name: str) -> Callable[..., Any]:
    def operator(*arguments: Any) -> Any:
        from . import operators

        return getattr(operators.registered, name)(*arguments)

    return operator


def define_operators(on_cpu: bool) -> None:
    """As torch.ops has them; ``on_cpu``: where Triton's interpreter serves CPU tensors too."""
    define(NAMESPACE, _deferred, ("CUDA", "CPU") if on_cpu else ("CUDA",))
    register(NAMESPACE)
