"""The tile table: which tile each kernel takes. Nothing is tuned at run time."""

from __future__ import annotations

import torch

from .device import Chip
from .forms import Tile

ELEMENTS = 1024
ROW_TILES_THAT_TRANSFORM = 8
SMALL_WORK = 1 << 23
NARROW = 16
MIN_SPLIT_ROWS = 256

SMALL = {
    "forward": Tile(64, 16, 32, 4, 2),
    "grad_input": Tile(64, 16, 16, 4, 2),
    "grad_weights": Tile(16, 32, 32, 4, 2),
}
LARGE = {
    "forward": Tile(128, 64, 32, 8, 2),
    "grad_input": Tile(128, 64, 32, 8, 2),
    "grad_weights": Tile(128, 64, 32, 8, 2),
}


def is_small(rows: int, cols: int, depth: int) -> bool:
    return rows * cols * depth <= SMALL_WORK or cols <= NARROW


def choose(
    kernel: str, rows: int, cols: int, small: bool, dtype: torch.dtype, product: str, chip: Chip
) -> Tile:
    return SMALL[kernel] if small or product == "ieee" else LARGE[kernel]


def splits(B: int, programs: int, tile: Tile, chip: Chip) -> tuple[int, int]:
    """(parts, rows of each) to split a batch into, so that all processors have work."""
    wanted = max(1, min(chip.processors // programs, B // MIN_SPLIT_ROWS))
    rows = max(1, -(-B // wanted))
    rows = -(-rows // tile.depth) * tile.depth
    return max(1, -(-B // rows)), rows
