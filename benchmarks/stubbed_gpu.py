"""A GPU that is not there: kernels are compiled for it, and their launches go to ``launched``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from nalu_kernels.operators import Operators
from nalu_kernels.triton import operators
from nalu_kernels.triton.device import Chip


class _Utils:
    def __init__(self) -> None:
        self._loaded = 0

    def load_binary(self, *_: object) -> tuple[int, ...]:
        """Module, function, registers, spills and the most threads of a program."""
        self._loaded += 1
        return 0, self._loaded, 255, 0, 1024

    def get_device_properties(self, _: int) -> dict[str, int]:
        return {"max_shared_mem": 227 << 10, "warpSize": 32}


class _Driver:
    def __init__(self, launched: Callable[..., None]) -> None:
        self.utils = _Utils()
        self.launcher_cls = lambda source, metadata: launched

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def pretend(launched: Callable[..., None]) -> Operators:
    """The Triton back end's operators, which take CPU tensors for those of an sm_90 from now on.

    ``launched`` receives what Triton passes to a driver: the grid, the stream, the function and the
    kernel's arguments among it.
    """

    def chip(device: torch.device) -> Chip:
        return Chip("sm_90", 132)

    driver.set_active(_Driver(launched))
    pretended: Any = operators
    pretended.chip = chip
    return operators.unrecorded
