"""The operators in torch.ops, which import the kernels when a tensor first needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..operators import define, register
from . import FUNCTIONS, NAMESPACE


def _deferred(name: str, way: str) -> Callable[..., Any]:
    def operator(*arguments: Any) -> Any:
        from . import operators

        found = operators.registered.get(name)
        if found is None:
            raise RuntimeError(f"{NAMESPACE}::{name}_{way} needs Triton 3.7 or newer")
        return getattr(found, way)(*arguments)

    return operator


def define_operators(on_cpu: bool) -> None:
    """As torch.ops has them; ``on_cpu``: where Triton's interpreter serves CPU tensors too."""
    define(NAMESPACE, FUNCTIONS, _deferred, ("CUDA", "CPU") if on_cpu else ("CUDA",))
    register(NAMESPACE)
