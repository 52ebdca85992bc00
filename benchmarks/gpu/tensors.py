"""The tensors of a case, in several sets: none is in the cache when its turn comes again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

import nalu_kernels

from ..timing import Call
from .cases import BFLOAT16, HIGHEST, GpuCase
from .device import Device
from .providers import Provider

# Tiny layers would need ten thousands of sets; they stay in the cache, as in training.
MAX_SETS = 128


class Set(NamedTuple):
    leaves: tuple[Tensor, ...]  # the input and the parameters
    grad_output: Tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.leaves, self.grad_output))


@contextmanager
def precision(name: str) -> Iterator[torch.dtype]:
    """torch's setting for float32 products, if ``name`` is one; the dtype."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(HIGHEST if name == BFLOAT16 else name)
    try:
        yield torch.bfloat16 if name == BFLOAT16 else torch.float32
    finally:
        torch.set_float32_matmul_precision(before)


def draw(case: GpuCase, dtype: torch.dtype, device: Device) -> Set:
    batch, in_features, out_features = case.shape
    layer = nalu_kernels.NALU(in_features, out_features, device=device.name)
    input = torch.randn(batch, in_features, device=device.name)
    leaves = (tensor.detach().to(dtype) for tensor in (input, *layer.parameters()))
    grad_output = torch.randn(batch, out_features, device=device.name).to(dtype)
    return Set(tuple(leaf.requires_grad_(case.backward) for leaf in leaves), grad_output)


def sets(case: GpuCase, dtype: torch.dtype, device: Device) -> list[Set]:
    """Together larger than the L2 cache, unless that takes more than ``MAX_SETS``."""
    torch.manual_seed(0)
    first = draw(case, dtype, device)
    count = min(MAX_SETS, max(2, math.ceil(1.25 * device.l2_bytes / first.bytes)))
    return [first, *(draw(case, dtype, device) for _ in range(count - 1))]


def results(provider: Provider, tensors: Set, backward: bool) -> tuple[Tensor, ...]:
    """The output, or outputs, and with ``backward`` every gradient."""
    found = provider.function(*tensors.leaves)
    outputs = found if isinstance(found, tuple) else (found,)
    if not backward:
        return outputs
    grads = (tensors.grad_output,) * len(outputs)
    return (*outputs, *torch.autograd.grad(outputs, tensors.leaves, grads))


def call(provider: Provider, tensors: Set, backward: bool) -> Call:
    return lambda: results(provider, tensors, backward)
