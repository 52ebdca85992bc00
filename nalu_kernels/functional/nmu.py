"""nmu(): the NMU as a function."""

from __future__ import annotations

from torch import Tensor

from .. import reference


def nmu(input: Tensor, W: Tensor) -> Tensor:
    """The NMU, for now by the reference."""
    return reference.nmu(input, W)
