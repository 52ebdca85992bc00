"""The tile table: which tile each kernel takes, by shape, products and family of chips.

Nothing is tuned at run time. ``python -m nalu_kernels.triton.aot`` compiles every row for every
family, without a GPU, and says what the compiler made of it; a row that spills registers has no
place here. ``python -m nalu_kernels.triton.tune`` measures on your GPU and writes a table of its
own, which is used where the environment variable NALU_KERNELS_TILES names that file.

Cases of ``forward`` and ``grad_input``: "small" layers; "inside", where so few tiles of rows share
the weights that each program transforms its own; "read", where W was transformed before. Of
``grad_weights``: "small", "tied" and "untied" (a third sum to keep in registers).

Products are named by that of the linear path: ieee, float64 (also ieee), bf16x6, bf16x3, bf16 and
fp16 (the last two with bf16x3 in log space).
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import NamedTuple

from .device import Chip
from .forms import Tile

FAMILIES = ("sm_80", "sm_90", "sm_100", "gfx942")
KERNELS = ("forward", "grad_input", "grad_weights")
PIECES = ("bf16x6", "bf16x3", "bf16", "fp16")

# A layer is small if its products take less time than launching them, or if its result is so narrow
# that a tensor core's tile would be mostly padding: reading x then takes longer than multiplying.
SMALL_WORK = 1 << 23
NARROW = 16

# Each program that transforms its own weights does O I work again; a launch of its own to do it once
# costs a few microseconds. Beyond this many tiles of rows the launch is the cheaper.
ROW_TILES_THAT_TRANSFORM = 8

# A part of the batch shorter than this is not worth the second stage's reading it again.
MIN_SPLIT_ROWS = 256

# Elements that a program of the elementwise kernels takes: 8 for each of 128 threads, two 128-bit
# loads of float32.
ELEMENTS = 1024


class Row(NamedTuple):
    family: str
    kernel: str
    case: str
    products: tuple[str, ...]
    tile: Tile
    why: str


def _rows() -> list[Row]:
    rows = []

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

    both = ("inside", "read")
    # Small layers: 64 rows are the batch this field trains with, 16 outputs the least that a tile
    # can have; float32 by multiply-add, which is exact and needs no splitting.
    plain = ("ieee",)
    add(FAMILIES, "forward", ("small",), plain, Tile(64, 16, 32, 4, 2), "64x2->1 in one program")
    add(FAMILIES, "grad_input", ("small",), plain, Tile(64, 16, 16, 4, 2), "64x2->1 in one program")
    add(
        FAMILIES,
        "grad_weights",
        ("small",),
        plain,
        Tile(16, 32, 32, 4, 2),
        "64x2->1 in one program",
    )
    double = ("float64",)
    for kernel in KERNELS:
        cases = ("small", "tied", "untied") if kernel == "grad_weights" else ("small", *both)
        add(FAMILIES, kernel, cases, double, Tile(32, 16, 16, 4, 2), "doubles take two registers")

    for kernel in ("forward", "grad_input"):
        add(("sm_80",), kernel, both, PIECES, Tile(64, 32, 16, 4, 3), "")
        add(("sm_90",), kernel, both, PIECES, Tile(64, 64, 16, 4, 3), "")
        add(("sm_100",), kernel, both, PIECES, Tile(64, 32, 32, 4, 2), "")
        add(("gfx942",), kernel, both, (*plain, *PIECES), Tile(64, 32, 16, 4, 2), "")
    for case in ("tied", "untied"):
        add(("sm_80",), "grad_weights", (case,), PIECES, Tile(64, 32, 32, 4, 2), "")
        add(
            ("sm_90",),
            "grad_weights",
            (case,),
            PIECES,
            Tile(64, 64 if case == "tied" else 32, 16, 4, 3),
            "",
        )
        add(("sm_100",), "grad_weights", (case,), PIECES, Tile(64, 32, 32, 4, 2), "")
        add(("gfx942",), "grad_weights", (case,), (*plain, *PIECES), Tile(64, 32, 16, 4, 2), "")
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


def read(path: Path) -> list[Row]:
    """A table that ``tune`` wrote."""
    try:
        rows = [
            Row(**{**row, "products": tuple(row["products"]), "tile": Tile(**row["tile"])})
            for row in json.loads(path.read_text())["rows"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"NALU_KERNELS_TILES: {path} is no table of tiles: {error}") from error
    return rows


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


def splits(B: int, programs: int, tile: Tile, chip: Chip) -> tuple[int, int]:
    """(parts, rows of each) to split a batch into, so that all processors have work."""
    wanted = max(1, min(chip.processors // programs, B // MIN_SPLIT_ROWS))
    rows = -(-max(1, B) // wanted)
    rows = -(-rows // tile.depth) * tile.depth
    return max(1, -(-B // rows)), rows
