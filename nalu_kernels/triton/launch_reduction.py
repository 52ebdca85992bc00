"""What the layers launch whose output is a product over the inputs."""

from __future__ import annotations

import functools
import math
from typing import Any

from . import tiles
from .arguments import Call, Described, Layer, require
from .device import Chip
from .forms import Batch
from .recipe import RECIPES, Recipe, Slot, blocks
from .reduction import finish_reduction_kernel, reduction_gradient_kernel, reduction_kernel


class Reduction(Call):
    """A call of a layer of ``factors``; ``eps`` is an NMRU's."""

    def __init__(
        self,
        chip: Chip,
        layer: str,
        eps: float,
        described: tuple[tuple[Any, ...] | None, ...],
        units: bool = False,
    ) -> None:
        repeats = 2 if layer == "nmru" else 1
        super().__init__(chip, described, repeats, units)
        require(0 <= eps < math.inf, "eps must be finite and at least 0")
        (W,) = self.given
        self.columns = repeats * self.I
        self.require_shape("W", W, self.O, self.columns)
        self.layer, self.eps, self.W = layer, eps, self.slots[0]
        self.saved_size = 2 * self.B * self.O if layer == "nmru" else 0


@functools.lru_cache(RECIPES)
def forward(save: bool, *call: Any) -> Recipe:
    """From x and W to (y, saved); ``call``: the arguments of ``Reduction``."""
    one = Reduction(*call)
    recipe = one.recipe()
    y = recipe.room(one.output_shape, one.dtype)
    saved = recipe.room((one.saved_size,), one.compute) if save else None
    recipe.results = (y, saved)
    reduce(recipe, one, one.layer, one.W, y, saved)
    return recipe


def reduce(
    recipe: Recipe,
    one: Reduction | Layer,
    layer: str,
    W: Slot | None,
    y: Slot,
    saved: Slot | None = None,
) -> None:
    """y of x and W; ``saved``: of an NMRU."""
    tile = tiles.reduction(one.chip, one.compute, one.B, one.O)
    programs = blocks(one.B, tile.rows) * blocks(one.O, tile.cols)
    if programs:
        recipe.step(
            reduction_kernel,
            (programs,),
            one.batch,
            W,
            y,
            saved if layer == "nmru" else None,
            one.eps,
            LAYER=layer,
            TILE=tile,
            num_warps=tile.warps,
        )


@functools.lru_cache(RECIPES)
def backward(
    needed: int,
    described_dy: tuple[Any, ...],
    described_saved: tuple[Any, ...],
    *call: Any,
) -> Recipe:
    """From x, W, dy and what the forward saved to (dx, dW): those with a bit in ``needed``."""
    one = Reduction(*call)
    dy, kept = Described._make(described_dy), Described._make(described_saved)
    batch, recipe, _ = one.backward(dy, kept, one.saved_size, one.compute)
    dx = recipe.room(one.shape, one.dtype, like=one.like_x) if needed & 1 else None
    dW = recipe.room((one.O, one.columns), one.dtype, like=one.W) if needed & 2 else None
    recipe.results = (dx, dW)
    reduce_gradient(recipe, one, one.layer, batch, one.W, one.columns, dx, dW)
    return recipe


def reduce_gradient(
    recipe: Recipe,
    one: Reduction | Layer,
    layer: str,
    batch: Batch,
    W: Slot | None,
    columns: int,
    dx: Slot | None,
    dW: Slot | None,
) -> None:
    """dx and dW, [O, columns], if there is room for them."""
    B, I, O = one.B, one.I, one.O  # noqa: E741
    tile = tiles.reduction(one.chip, one.compute, B, O)
    row_tiles, col_tiles = blocks(B, tile.rows), blocks(O, tile.cols)
    splits, split_tiles = tiles.reduction_splits(row_tiles, col_tiles, tile, one.chip)
    count = blocks(columns, tile.depth)
    x_parts = recipe.room((col_tiles, columns, B), one.compute) if dx else None
    W_parts = recipe.room((splits, columns, O), one.compute) if dW else None
    if splits * col_tiles and count and (dx or dW):
        scratch = None
        if count > 1:
            shape = (splits, col_tiles, count, tile.rows, tile.cols)
            scratch = recipe.room(shape, one.compute)
        recipe.step(
            reduction_gradient_kernel,
            (col_tiles, splits),
            batch,
            W,
            scratch,
            W_parts,
            x_parts,
            split_tiles,
            one.eps,
            LAYER=layer,
            TILE=tile,
            num_warps=tile.warps,
        )
    size = max(O * columns if dW else 0, B * I if dx else 0)
    if size:
        recipe.step(
            finish_reduction_kernel,
            (blocks(size, tiles.FINISH_ELEMENTS),),
            batch,
            W_parts,
            dW,
            x_parts,
            dx,
            splits,
            col_tiles * (columns // I if I else 1),
            columns,
            BLOCK=tiles.FINISH_ELEMENTS,
            num_warps=tiles.warps_of_128_threads(one.chip),
        )
