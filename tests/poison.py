"""Fresh memory full of NaN, so that a result which a kernel forgot to write cannot look right.

torch can fill what ``torch.empty`` and ``Tensor.new_empty`` return, but neither what compiled code
allocates through LibTorch's stable ABI nor its scratch memory. glibc can fill all of those, being
asked to perturb what malloc returns: with 0xff bytes, a NaN in every floating dtype. Blocks of up
to about 1 KiB that glibc reuses from a thread's cache escape it; test_capability.py runs without
that cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_M_PERTURB = -6
_FILL_WITH_0xFF = 0x100  # glibc writes the inverse of the low byte, and takes 0 for "off"


def glibc() -> Any | None:
    """The C library if it is glibc."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


@contextmanager
def poisoned_memory() -> Iterator[None]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    library = glibc()
    # torch fills uninitialised memory only while it is asked for deterministic algorithms.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    if library is not None:
        library.mallopt(_M_PERTURB, _FILL_WITH_0xFF)
    try:
        yield
    finally:
        if library is not None:
            library.mallopt(_M_PERTURB, 0)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
