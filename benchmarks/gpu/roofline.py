"""The least time that a GPU can take for a case, by its peaks and without the cost of launching."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch

from .cases import GpuCase

if TYPE_CHECKING:
    from nalu_kernels.triton.cost import Cost

BACKEND = "triton"


class Peaks(NamedTuple):
    """Bytes of memory a second, and operations a second by the bits of their operands: of tensor
    (or matrix) cores for 16 and 64; for 32 of whatever multiplies float32 exactly."""

    bytes: float
    flops16: float
    flops32: float
    flops64: float


# By torch's name of the whole device. Dense rates, from
# - the data sheet of the NVIDIA A100 Tensor Core GPU,
# - the white paper on the NVIDIA H100 Tensor Core GPU Architecture (SXM5), and the H200 data sheet,
# - AMD's "Instinct MI300 series microarchitecture" (rocm.docs.amd.com).
PEAKS = {
    "NVIDIA A100-SXM4-40GB": Peaks(1.555e12, 312e12, 19.5e12, 19.5e12),
    "NVIDIA A100-SXM4-80GB": Peaks(2.039e12, 312e12, 19.5e12, 19.5e12),
    "NVIDIA H100 80GB HBM3": Peaks(3.35e12, 989.4e12, 66.9e12, 66.9e12),
    "NVIDIA H200": Peaks(4.8e12, 989.4e12, 66.9e12, 66.9e12),
    "AMD Instinct MI300X": Peaks(5.3e12, 1307.4e12, 163.4e12, 163.4e12),
}


class Roofline(NamedTuple):
    """Of all launches of a case: what they take, and the ``seconds`` if the peaks are known."""

    launches: int
    flops: int
    bytes: int
    seconds: float | None


def seconds(costs: Iterable[Cost], peaks: Peaks) -> float:
    """One launch after the other; each moves and computes at the same time."""
    return sum(
        max(
            cost.bytes / peaks.bytes,
            cost.flops16 / peaks.flops16,
            cost.flops32 / peaks.flops32,
            cost.flops64 / peaks.flops64,
        )
        for cost in costs
    )


def of(case: GpuCase, dtype: torch.dtype, device: torch.device, peaks: Peaks | None) -> Roofline:
    """Of the Triton back end on ``device``, in torch's present precision of float32 products."""
    # Here, because only this back end needs Triton to be installed.
    from nalu_kernels.triton import cost, trace
    from nalu_kernels.triton.device import chip
    from nalu_kernels.triton.precision import float32_setting

    sample = trace.Sample(*case.shape, dtype, gates=case.shape[2])
    here, setting = chip(device), float32_setting()
    launches = trace.forward(sample, here, save=case.backward, setting=setting)
    if case.backward:
        launches += trace.backward(sample, here, setting=setting)
    costs = list(map(cost.of, launches))
    whole = cost.total(costs)
    least = None if peaks is None else seconds(costs, peaks)
    return Roofline(len(costs), whole.flops, whole.bytes, least)
