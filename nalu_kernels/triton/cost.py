"""The static cost model: flops and bytes of what a layer launches, on a chip that need not be here.

    python -m nalu_kernels.triton.cost 1024 512 512 [--dtype bfloat16] [--family sm_90]

prints those of a NALU's forward and backward, for (batch, inputs, outputs). The counts are
those that each kernel reports to Triton's profiler (``metadata``).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import torch

from . import metadata, trace
from .aot import LIMITS
from .device import Chip
from .forms import Tile

_REPORTS: dict[str, metadata.Report] = {
    "backward_kernel": metadata.backward,
    "finish_kernel": metadata.finish,
    "finish_power_kernel": metadata.finish_power,
    "finish_reduction_kernel": metadata.finish_reduction,
    "forward_kernel": metadata.forward,
    "grad_input_kernel": metadata.grad_input,
    "grad_weights_kernel": metadata.grad_weights,
    "power_kernel": metadata.power,
    "power_grad_input_kernel": metadata.power_grad_input,
    "power_grad_weights_kernel": metadata.power_grad_weights,
    "reduction_kernel": metadata.reduction,
    "reduction_gradient_kernel": metadata.reduction_gradient,
    "transform_kernel": metadata.transform,
}


class Cost(NamedTuple):
    """As in ``metadata``."""

    flops: int
    bytes: int
    flops16: int = 0
    flops32: int = 0
    flops64: int = 0

    @property
    def intensity(self) -> float:
        """Flops for each byte."""
        return self.flops / self.bytes if self.bytes else 0.0


def reported(launch: trace.Launch) -> metadata.Metadata:
    """What the launch would tell a profiler."""
    kernel = launch.kernel
    args = dict(zip(kernel.arg_names, launch.args, strict=False)) | launch.options
    compiled = SimpleNamespace(name=kernel.__name__)
    return _REPORTS[kernel.__name__](launch.grid, compiled, args)


def of(launch: trace.Launch) -> Cost:
    found = reported(launch)
    return Cost(**{name: found[name] for name in Cost._fields if name in found})


def total(costs: Iterable[Cost]) -> Cost:
    return Cost(*map(sum, zip(Cost(0, 0), *costs, strict=True)))


def _tile(options: dict[str, object]) -> str:
    tiles = (value for value in options.values() if isinstance(value, Tile))
    shapes = [f"{tile.rows}x{tile.cols}x{tile.depth}" for tile in tiles]
    return ", ".join(shapes) or str(options["BLOCK"])


def _cells(cost: Cost) -> list[str]:
    return [f"{cost.flops:,}", f"{cost.bytes:,}", f"{cost.intensity:.1f}"]


def table(launches: Sequence[trace.Launch]) -> str:
    rows = [["launch", "grid", "programs", "tile", "flops", "bytes", "flops/byte"]]
    programs = 0
    for launch in launches:
        name = launch.kernel.__name__.removesuffix("_kernel")
        size = torch.Size(launch.grid)
        programs += size.numel()
        grid = "x".join(map(str, size))
        rows.append([name, grid, f"{size.numel():,}", _tile(launch.options), *_cells(of(launch))])
    rows.append(["total", "", f"{programs:,}", "", *_cells(total(map(of, launches)))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nalu_kernels.triton.cost",
        description="Flops and bytes of a NALU's launches, forward and backward.",
    )
    for name, what in (("B", "batch"), ("I", "inputs"), ("O", "outputs")):
        parser.add_argument(name, type=int, help=what)
    dtypes = ("float32", "float64", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=dtypes, default="float32")
    parser.add_argument("--family", choices=sorted(LIMITS), default="sm_90")
    settings = ("highest", "high", "medium")
    parser.add_argument(
        "--setting", choices=settings, default="highest", help="torch's float32 matmul precision"
    )
    chosen = parser.parse_args(arguments)
    sample = trace.Sample(
        chosen.B, chosen.I, chosen.O, getattr(torch, chosen.dtype), gates=chosen.O
    )
    chip = Chip(chosen.family, LIMITS[chosen.family].processors)
    forward = trace.forward(sample, chip, save=True, setting=chosen.setting)
    print(table(forward + trace.backward(sample, chip, setting=chosen.setting)))


if __name__ == "__main__":
    main()
