"""What the choice of tiles needs to know of a device."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch


class Chip(NamedTuple):
    """``family``: whose rows of the tile table it takes."""

    family: str
    processors: int


INTERPRETED = Chip("interpreter", 4)


@functools.cache
def chip(device: torch.device) -> Chip:
    """The chip behind a CUDA or ROCm device; RuntimeError if there are no kernels for it."""
    if device.type != "cuda":
        return INTERPRETED
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        return Chip("gfx942", properties.multi_processor_count)
    if properties.major < 8:
        raise RuntimeError(
            f"{device}: the Triton kernels need compute capability 8.0 or newer, "
            f"{properties.name} has {properties.major}.{properties.minor}"
        )
    # Chips for desktops (8.6, 8.9, 12.x) have the tensor cores and less of the memory of 8.0.
    family = {9: "sm_90", 10: "sm_100"}.get(properties.major, "sm_80")
    return Chip(family, properties.multi_processor_count)
