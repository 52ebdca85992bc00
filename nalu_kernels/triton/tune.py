"""Measures tiles on your GPU and writes a table of those that are faster than ours.

    python -m nalu_kernels.triton.tune --output tiles.json
    NALU_KERNELS_TILES=tiles.json python train.py

From the tile of each row of the table for your GPU's family it goes to the best of the tiles that
differ from it in one number, and on from there, until none takes at least 3 % less time. What the
gate of ``nalu_kernels.triton.aot`` refuses (spills, no tensor cores, narrow loads) is not measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from triton.errors import TritonError
from triton.runtime.errors import OutOfResources

from . import aot, launch, tiles, trace
from .device import Chip, chip
from .forms import Tile
from .recipe import Recipe, Step

GAIN = 0.03
# (B, I, O) of the layer that each case of the table is measured with.
SHAPES = {
    "small": (128, 100, 100),
    "inside": (128, 1024, 1024),
    "read": (8192, 1024, 1024),
    "tied": (8192, 1024, 1024),
    "untied": (8192, 1024, 1024),
    "odd": (8192, 1023, 1025),
}
# The dtype and the setting with which the policy (precision.py) asks for the products.
ASKED = {
    "ieee": (torch.float32, "highest"),
    "float64": (torch.float64, "highest"),
    "bf16x6": (torch.float32, "highest"),
    "bf16x3": (torch.float32, "high"),
    "bf16": (torch.bfloat16, "highest"),
    "fp16": (torch.float16, "highest"),
}


class Trial(NamedTuple):
    """A row of the table, for one of its products."""

    row: tiles.Row
    products: str

    def recipe(
        self, chip: Chip, tile: Tile, device: torch.device
    ) -> tuple[Recipe, Step, list[Tensor | None]]:
        """That of an operator which launches the row's kernel with ``tile``, the launch, and the
        tensors that the recipe is given."""
        kernel, case = self.row.kernel, self.row.case
        B, I, O = SHAPES[case]  # noqa: E741
        dtype, setting = ASKED[self.products]
        sample = trace.Sample(B, I, O, dtype, gates=O, untied=case == "untied", device=device)
        launch.forward.cache_clear()
        launch.backward.cache_clear()
        with tiles.replaced(self.row._replace(products=(self.products,), tile=tile)):
            if kernel == "forward":
                made = trace.forward_recipe(sample, chip, save=True, setting=setting)
            else:
                needed = 1 if kernel == "grad_input" else -2
                made = trace.backward_recipe(sample, chip, needed=needed, setting=setting)
        recipe, tensors = made
        (step,) = (step for step in recipe.steps if step.kernel.__name__ == f"{kernel}_kernel")
        return recipe, step, tensors


def trials(family: str) -> list[Trial]:
    rows = [row for row in tiles.TABLE if row.family == family]
    return [Trial(row, products) for row in rows for products in row.products]


def neighbours(tile: Tile) -> Iterator[Tile]:
    for name in ("rows", "cols", "depth"):
        size = getattr(tile, name)
        for changed in (size // 2, size * 2):
            if 16 <= changed <= 256:  # a product has at least 16 of each
                yield tile._replace(**{name: changed})
    yield tile._replace(warps=8 if tile.warps == 4 else 4)
    for stages in (tile.stages - 1, tile.stages + 1):
        if 1 <= stages <= 5:
            yield tile._replace(stages=stages)


def best(tile: Tile, seconds: Callable[[Tile], float | None]) -> Tile:
    """``seconds`` says what a tile takes, or None if it is refused."""
    measured: dict[Tile, float] = {}

    def measure(tile: Tile) -> float:
        if tile not in measured:
            found = seconds(tile)
            measured[tile] = float("inf") if found is None else found
        return measured[tile]

    while True:
        candidate = min(neighbours(tile), key=measure)
        if not measure(candidate) < (1 - GAIN) * measure(tile):
            return tile
        tile = candidate


def _seconds(trial: Trial, tile: Tile, chip: Chip, device: torch.device) -> float | None:
    recipe, step, given = trial.recipe(chip, tile, device)
    tensors = [*given, *recipe.allocate(given)]
    for tensor in tensors:
        if tensor is not None:
            tensor.uniform_(0.1, 0.9)
    row, dtype = trial.row, ASKED[trial.products][0]
    widths = aot.load_widths(row.kernel, row.family, step.options, dtype)
    variant = aot.Variant(
        row.family,
        row.kernel,
        row.case,
        trial.products,
        step.options["FORM"].log_product,
        str(dtype).removeprefix("torch."),
        tile,
        "untied" if row.case == "untied" else "tied",
        "x".join(map(str, SHAPES[row.case])),
        min(widths),
        max(widths),
    )
    try:
        args = step.bound(tensors)
        compiled = step.kernel.warmup(*args, grid=step.grid, **step.options)
        if aot.problems(variant, aot.read(chip.family, compiled)):
            return None
    except (TritonError, RuntimeError):  # the latter from Triton's passes
        return None
    try:
        # In a graph: launching the small ones takes longer than they do.
        found = triton.testing.do_bench_cudagraph(
            lambda: step.launch(tensors), return_mode="median"
        )
    except OutOfResources:
        return None
    return float(found) / 1e3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nalu_kernels.triton.tune", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("tiles.json"))
    parser.add_argument("--device", default="cuda", help="cuda:1 for the second GPU")
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("No GPU is visible to torch: nothing was measured.", file=sys.stderr)
        return 2
    torch.cuda.set_device(chosen.device)
    device = torch.device("cuda", torch.cuda.current_device())
    here = chip(device)
    found = []
    for trial in trials(here.family):
        row, products = trial

        def seconds(tile: Tile, trial: Trial = trial) -> float | None:
            return _seconds(trial, tile, here, device)

        tile = best(row.tile, seconds)
        before, after = seconds(row.tile), seconds(tile)
        if after is None:
            print(f"{row.kernel} {row.case} {products}: neither ours nor its neighbours can run")
            continue
        why = f"{torch.cuda.get_device_name(device)}: {before} s before, {after} s"
        print(f"{row.kernel} {row.case} {products}: {tuple(row.tile)} -> {tuple(tile)}; {why}")
        found.append(row._replace(products=(products,), tile=tile, why=why))
        tiles.write(chosen.output, found)  # what was found stays if this is interrupted
    print(f"Written to {chosen.output}; set NALU_KERNELS_TILES={chosen.output} to use it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
