"""The tasks of ``benchmarks.accuracy`` on a GPU, at each precision."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import nalu_kernels
from nalu_kernels import reference

from .. import accuracy
from ..contenders import EAGER
from . import tensors
from .cases import PRECISIONS
from .device import Device
from .providers import library_backends


def measure(device: Device) -> list[dict[str, Any]]:
    """A row for each task, precision and contender."""
    rows = []
    for task in accuracy.tasks(*device.accuracy_sizes):
        exact = tuple(tensor.to(device.name) for tensor in task.tensors)
        for name in PRECISIONS:
            with tensors.precision(name) as dtype:
                rounded = tuple(tensor.to(dtype) for tensor in exact)
                true = accuracy.run(task, reference, tuple(one.double() for one in rounded))
                for contender in (*library_backends(rounded[0]), EAGER):
                    eager = contender == EAGER
                    forced = nullcontext() if eager else nalu_kernels.use_backend(contender)
                    with forced:
                        found = accuracy.run(task, reference if eager else nalu_kernels, rounded)
                    row = {"task": task.name, "precision": name, "contender": contender}
                    rows.append(row | accuracy.scores(task, found, true))
    return rows
