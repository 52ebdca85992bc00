"""Which executor trains a sweep: the kernels, or the reference."""

from __future__ import annotations

import functools
import operator
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .. import dispatch
from . import kernel, reference
from .specification import Specification
from .state import State

Advance: TypeAlias = Callable[[Specification, State, Callable[[], float]], Iterator[Tensor]]


def choose(
    specification: Specification, backend: str | None, device: Any, threads: int | None
) -> tuple[str, Advance]:
    """The executor's name, and what trains.

    Without a ``backend`` it is what the layers would run on (``use_backend`` and
    NALU_KERNELS_BACKEND have a say), and the reference, with a warning, where that cannot sweep.

    Raises:
        BackendUnavailable: the back end asked for cannot be used here.
        ValueError: it cannot train this, and why.
    """
    threads = _threads(threads)
    probe = _probe(device, specification.dtype)
    device = probe.device
    if backend is None:
        name, why = dispatch.which_backend(probe)
        lack = _lack(name, specification, device)
        if name == "reference" and "forced" not in why:
            lack = why
        if lack is not None:
            warnings.warn(
                f"the sweep runs on the slow plain PyTorch reference: {lack}",
                RuntimeWarning,
                stacklevel=3,
            )
            name = "reference"
    else:
        dispatch.require_usable(backend, "backend")
        name = backend
        if lack := _lack(name, specification, device):
            raise ValueError(f"backend: {name!r} cannot train this sweep: {lack}")
    if name != "reference":
        chosen = kernel.Kernel(kernel.trainer(name), device, threads)
        return name, functools.partial(kernel.advance, kernel=chosen)
    return name, functools.partial(reference.advance, device=device)


def _probe(device: Any, dtype: torch.dtype) -> Tensor:
    """A tensor there."""
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device: expected a torch.device or its name, got {type(device).__name__}")
    try:
        probe = torch.empty(0, dtype=dtype, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device: {str(device)!r} cannot be used here: {reason}") from error
    if probe.is_meta:
        raise ValueError("device: 'meta' has no numbers to train with")
    return probe


def _lack(name: str, specification: Specification, device: torch.device) -> str | None:
    """Why this back end cannot train it, in words; None if it can."""
    if name == "reference":
        return None
    if not dispatch.serves(name, device.type):
        return f"it does not serve {device.type} tensors, and device is {device}"
    return kernel.lacks(name, specification)


def _threads(threads: int | None) -> int:
    if threads is None:
        return min(torch.get_num_threads(), os.cpu_count() or 1)
    if isinstance(threads, bool) or not hasattr(threads, "__index__"):
        raise TypeError(f"threads: expected an int or None, got {type(threads).__name__}")
    if not 1 <= (count := operator.index(threads)) < 2**31:
        expected = "at least 1" if count < 1 else "less than 2**31"
        raise ValueError(f"threads: expected {expected}, got {count}")
    return count
