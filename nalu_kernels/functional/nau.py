"""nau(): the NAU as a function."""

from __future__ import annotations

from torch import Tensor

from .. import reference


def nau(input: Tensor, W: Tensor) -> Tensor:
    """The NAU, for now by the reference."""
    return reference.nau(input, W)
