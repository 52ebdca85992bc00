"""The tile table: which tile each kernel takes, by shape, products and family of chips.

Nothing is tuned at run time. ``python -m nalu_kernels.triton.aot`` compiles every row for every
family, without a GPU, and says what the compiler made of it; a row that spills registers has no
place here. ``python -m nalu_kernels.triton.tune`` measures on your GPU and writes a table of its
own, which is used where the environment variable NALU_KERNELS_TILES names that file.

Cases of ``forward`` and ``grad_input``: "small" layers; "inside", where so few tiles of rows share
the weights that each program transforms its own; "read", where W was transformed before. Of
``grad_weights``: "small", "tied" and "untied" (a third sum to keep in registers). Of all: "odd",
where x, dy or the weights begin, or their rows do, at no multiple of 16 bytes.

Products are named by that of the linear path: ieee, float64 (also ieee), bf16x6, bf16x3, bf16 and
fp16 (the last two with bf16x3 in log space).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from .device import Chip
from .forms import Tile

FAMILIES = ("sm_80", "sm_90", "sm_100", "gfx942")
KERNELS = ("forward", "grad_input", "grad_weights")

# A layer is small if its products take less time than launching them, or if its result is so narrow
# that a tensor core's tile would be mostly padding: reading x then takes longer than multiplying.
SMALL_WORK = 1 << 23
NARROW = 16

# Each row of tiles that transforms its own weights does O I work again; a launch of its own to do
# it once costs a few microseconds. Beyond this many rows of tiles it is the cheaper, but not
# for small layers: there the transform is a sixth of the work, and launches are most of the time.
ROW_TILES_THAT_TRANSFORM = 8

# As many as a processor has registers for; a batch is split until their programs are there.
WARPS_A_PROCESSOR = 8

# A part of the batch shorter than this is not worth the second stage's reading it again.
MIN_SPLIT_ROWS = 512

# Elements for a program of the elementwise kernels, of 128 threads: 128 bits of bfloat16 for each
# thread of transform; finish has more tensors at hand, and 128 bits of float32 sums for each.
TRANSFORM_ELEMENTS = 1024
FINISH_ELEMENTS = 512


def limits(chip: Chip, tile: Tile) -> dict[str, int]:
    """Options of the compiler. As many registers as a thread can have: left to itself ptxas spills
    a few in order to fit one more program into a processor."""
    if not chip.family.startswith("sm_"):
        return {}
    return {"maxnreg": min(255, (1 << 16) // (32 * tile.warps))}


def warps_of_128_threads(chip: Chip) -> int:
    return 2 if chip.family == "gfx942" else 4


class Row(NamedTuple):
    family: str
    kernel: str
    case: str
    products: tuple[str, ...]
    tile: Tile
    why: str


def _rows() -> list[Row]:
    rows: list[Row] = []

    def add(
        families: tuple[str, ...],
        kernel: str,
        cases: tuple[str, ...],
        products: tuple[str, ...],
        tile: Tile,
        why: str,
    ) -> None:
        rows.extend(
            Row(family, kernel, case, products, tile, why) for family in families for case in cases
        )

    nvidia = FAMILIES[:3]
    shared = ("inside", "read")
    summed = ("tied", "untied")
    any_case = {"forward": shared, "grad_input": shared, "grad_weights": summed}

    # A tile's rows are the batch that this field trains with, its columns the fewest that a tile
    # can have. float32 by multiply-add, exact, and quick for so few.
    small, ieee = ("small",), ("ieee",)
    why = "64x2->1 in one program of each kernel"
    add(nvidia, "forward", small, ieee, Tile(64, 16, 16, 8, 2), f"{why}; 4 warps spill")
    why = "as above; in one launch with grad_weights, at more stages it spills"
    add(nvidia, "grad_input", small, ieee, Tile(64, 16, 16, 4, 1), why)
    add(nvidia, "grad_weights", small, ieee, Tile(16, 32, 16, 4, 1), why)
    why = "as above; AMD's warps have 64 threads, two keep the loads wide"
    for kernel in ("forward", "grad_input"):
        add(("gfx942",), kernel, small, ieee, Tile(64, 16, 16, 2, 2), why)
    add(("gfx942",), "grad_weights", small, ieee, Tile(16, 32, 16, 2, 2), why)
    for kernel in KERNELS:
        cases = ("small", "odd", *any_case[kernel])
        why = "doubles and their exp take two registers each: a larger tile spills"
        add(("sm_80", "sm_100"), kernel, cases, ("float64",), Tile(16, 16, 16, 4, 2), why)
        why = "as above; with two stages the compiler spills"
        add(("sm_90",), kernel, cases, ("float64",), Tile(16, 16, 16, 4, 3), why)
        why = "as above; two warps for 128-bit loads"
        add(("gfx942",), kernel, cases, ("float64",), Tile(16, 16, 16, 2, 2), why)

    for kernel in ("forward", "grad_input"):
        half = ("bf16x3", "bf16", "fp16") if kernel == "forward" else ("bf16x3", "bf16")
        why = "three sums of 64x32 and three pieces leave no registers for more"
        add(("sm_80",), kernel, shared, ("bf16x6",), Tile(64, 32, 16, 4, 2), why)
        why = "as above, with W_hat and M_hat for a third piece"
        add(("sm_80",), kernel, ("inside",), half, Tile(64, 32, 16, 4, 2), why)
        why = "W is read: room for 64x64, half the reads of x; twice the depth spills"
        add(("sm_80",), kernel, ("read",), half, Tile(64, 64, 16, 4, 2), why)
        why = (
            "a warpgroup's 64 rows, two programs a processor; 128 columns or twice the depth spill"
        )
        add(("sm_90",), kernel, shared, ("bf16x6",), Tile(64, 64, 16, 4, 3), why)
        add(("sm_90",), kernel, ("inside",), ("bf16x3",), Tile(64, 64, 16, 4, 3), "as above")
        why = "fewer pieces: twice the depth, half the barriers"
        add(("sm_90",), kernel, ("read",), ("bf16x3",), Tile(64, 64, 32, 4, 3), why)
        add(("sm_90",), kernel, shared, half[1:], Tile(64, 64, 32, 4, 3), why)
        why = "18 sums of 32 columns: more do not fit in tensor memory, 4 warps spill"
        add(("sm_100",), kernel, shared, ("bf16x6",), Tile(64, 32, 16, 8, 2), why)
        why = "tensor memory as above; fewer pieces leave registers for twice the depth"
        add(("sm_100",), kernel, shared, half, Tile(64, 32, 32, 4, 2), why)
        why = "matrix cores multiply float32; 64x32 spills"
        depth = 32 if kernel == "forward" else 16  # whose loads are 128 bits wide at 32 alone
        add(("gfx942",), kernel, shared, ("ieee",), Tile(32, 32, depth, 4, 2), why)
        why = "the depth that makes loads of 16-bit numbers 128 bits wide"
        add(("gfx942",), kernel, shared, half, Tile(64, 32, 32, 4, 2), why)

    # Twice the threads for a tile that would do with half of them.
    why = "a load, and registers for an address, for each number"
    odd = Tile(64, 32, 16, 8, 2)
    for kernel in ("forward", "grad_input"):
        half = ("bf16x3", "bf16", "fp16") if kernel == "forward" else ("bf16x3", "bf16")
        add(("sm_90", "sm_100"), kernel, ("odd",), ("bf16x6", *half), odd, why)
        add(("gfx942",), kernel, ("odd",), ("ieee", *half), odd, why)
        why_half = "as above; here half the tile for half the threads, twice of both spills"
        add(("sm_80",), kernel, ("odd",), ("bf16x6", *half), Tile(64, 16, 16, 4, 2), why_half)
    kernel = "grad_weights"
    add(("sm_80", "sm_90"), kernel, ("odd",), ("bf16x6", "bf16x3", "bf16"), odd, why)
    add(("gfx942",), kernel, ("odd",), ("ieee", "bf16x3", "bf16"), odd, why)
    why = "as above; twice the columns spill with float16 tensors"
    add(("sm_100",), kernel, ("odd",), ("bf16x6", "bf16x3", "bf16"), Tile(64, 16, 16, 8, 2), why)

    kernel = "grad_weights"
    why = "three sums, and W_hat's gradient at the end: 64x32; twice the depth spills"
    add(("sm_80",), kernel, summed, ("bf16x6", "bf16x3"), Tile(64, 32, 16, 4, 2), why)
    why = "fewer pieces leave registers for twice the depth"
    add(("sm_80",), kernel, summed, ("bf16",), Tile(64, 32, 32, 4, 2), why)
    why = "two sums: as for forward; twice the depth spills"
    add(("sm_90",), kernel, ("tied",), ("bf16x6", "bf16x3", "bf16"), Tile(64, 64, 16, 4, 3), why)
    why = "a third sum: half the columns"
    add(("sm_90",), kernel, ("untied",), ("bf16x6", "bf16x3", "bf16"), Tile(64, 32, 16, 4, 3), why)
    add(("sm_100",), kernel, summed, ("bf16x6",), Tile(64, 32, 16, 8, 2), "as for forward")
    why = "as for forward; twice the depth spills with float16 tensors"
    add(("sm_100",), kernel, summed, ("bf16x3",), Tile(64, 32, 16, 4, 2), why)
    add(("sm_100",), kernel, summed, ("bf16",), Tile(64, 32, 32, 4, 2), "as for forward")
    add(("gfx942",), kernel, summed, ("ieee",), Tile(32, 32, 16, 4, 2), "as for forward")
    add(("gfx942",), kernel, summed, ("bf16x3", "bf16"), Tile(64, 32, 32, 4, 2), "as for forward")
    return rows


TABLE = _rows()
# The interpreter's time goes by the number of operations more than by their size.
LARGEST_INTERPRETED = 256


@functools.cache
def _index() -> dict[tuple[str, str, str, str], Tile]:
    path = os.environ.get("NALU_KERNELS_TILES")
    rows = [*TABLE, *(read(Path(path)) if path else ())]  # the user's rows replace ours
    return {
        (row.family, row.kernel, row.case, product): row.tile
        for row in rows
        for product in row.products
    }


@contextmanager
def replaced(row: Row) -> Iterator[None]:
    """With ``row`` in the table, for recipes that are made meanwhile."""
    index = _index()
    changed = {(row.family, row.kernel, row.case, product): row.tile for product in row.products}
    before = {key: index[key] for key in changed}
    index.update(changed)
    try:
        yield
    finally:
        index.update(before)


def read(path: Path) -> list[Row]:
    """A table that ``tune`` wrote."""
    try:
        rows = [
            Row(**{**row, "products": tuple(row["products"]), "tile": Tile(**row["tile"])})
            for row in json.loads(path.read_text())["rows"]
        ]
        for row in rows:
            _check(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"NALU_KERNELS_TILES: {path} is no table of tiles: {error}") from error
    return rows


def _check(row: Row) -> None:
    ours = {(one.family, one.kernel, one.case, name) for one in TABLE for name in one.products}
    for name in row.products:
        if (*row[:3], name) not in ours:
            raise ValueError(
                f"there is no row for family {row.family!r}, kernel {row.kernel!r}, "
                f"case {row.case!r}, products {name!r}"
            )
    for field, least in {"rows": 16, "cols": 16, "depth": 16, "warps": 1}.items():
        value = getattr(row.tile, field)
        if type(value) is not int or value < least or value & (value - 1):
            raise ValueError(
                f"tile.{field} must be a power of two of at least {least}, got {value!r}"
            )
    if type(row.tile.stages) is not int or row.tile.stages < 1:
        raise ValueError(f"tile.stages must be an integer of at least 1, got {row.tile.stages!r}")


def write(path: Path, rows: list[Row]) -> None:
    """A table for ``read``."""
    table = [{**row._asdict(), "tile": row.tile._asdict()} for row in rows]
    path.write_text(json.dumps({"rows": table}, indent=1) + "\n")


def is_small(rows: int, cols: int, depth: int) -> bool:
    return rows * cols * depth <= SMALL_WORK or min(rows, cols) <= NARROW


def choose(chip: Chip, kernel: str, case: str, products: str, sizes: tuple[int, int, int]) -> Tile:
    """The tile for ``sizes``: the rows and columns of the result, and the terms of its sums."""
    if chip.family == "interpreter":
        rows, cols, depth = (
            min(LARGEST_INTERPRETED, max(16, 1 << (size - 1).bit_length())) for size in sizes
        )
        return Tile(rows, cols, depth, warps=4, stages=2)
    return _index()[chip.family, kernel, case, products]


def reduction(chip: Chip, compute: torch.dtype, B: int, O: int) -> Tile:  # noqa: E741
    """The tile of a product over the inputs, and how many of them are taken at a time: the products
    before each of these are in registers, twice as many for doubles. Nothing of it was measured."""
    if chip.family == "interpreter":
        rows, cols = (
            min(LARGEST_INTERPRETED, 1 << max(0, size - 1).bit_length()) for size in (B, O)
        )
        return Tile(rows, cols, 4, warps=4, stages=1)
    cols = 32 if O > 16 else 16 if O > 4 else 4  # fewer padded ones, and more programs
    if compute == torch.float64:  # two registers each: with twice the rows an NMRU's spill
        return Tile(512 // cols, cols, 4, warps=4, stages=1)
    numbers = 512 if cols == 32 else 1024  # of more an NRU's powers spill on sm_100
    return Tile(numbers // cols, cols, 8, warps=4, stages=1)


def reduction_splits(row_tiles: int, col_tiles: int, tile: Tile, chip: Chip) -> tuple[int, int]:
    """(parts, rows of tiles of each) to split a batch into: more would find no processor idle, and
    take scratch and sums of their own."""
    at_once = max(1, WARPS_A_PROCESSOR // tile.warps) * chip.processors
    each = -(-row_tiles // max(1, min(row_tiles, at_once // max(1, col_tiles))))
    return (-(-row_tiles // each), each) if row_tiles else (0, 1)


def splits(B: int, programs: int, tile: Tile, chip: Chip) -> tuple[int, int]:
    """(parts, rows of each) to split a batch into, so that all processors have work."""
    at_once = max(1, WARPS_A_PROCESSOR // tile.warps) * chip.processors
    wanted = max(1, min(at_once // programs, B // MIN_SPLIT_ROWS))
    rows = -(-max(1, B) // wanted)
    rows = -(-rows // tile.depth) * tile.depth
    return max(1, -(-B // rows)), rows
