"""What a neural power unit launches."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from . import tiles
from .arguments import Call, Described, require
from .device import Chip
from .forms import Tile
from .power import (
    Powers,
    finish_power_kernel,
    power_grad_input_kernel,
    power_grad_weights_kernel,
    power_kernel,
)
from .recipe import RECIPES, Recipe, blocks


class Power(Call):
    def __init__(
        self,
        chip: Chip,
        eps: float,
        described: tuple[tuple[Any, ...] | None, ...],
        units: bool = False,
    ) -> None:
        require(0 < eps < math.inf, "eps must be positive and finite")
        require(described[2] is not None, "g is missing")
        super().__init__(chip, described, units=units)
        for name, weight in zip(Powers._fields, self.given, strict=True):
            self.require_shape(name, weight, *((self.I,) if name == "g" else (self.O, self.I)))
        self.eps, self.weights = eps, Powers(*self.slots)
        self.saved_size = 2 * self.B * self.O

    def tile(self, kernel: str) -> Tile:
        products = "float64" if self.compute == torch.float64 else "ieee"
        B, I, O = self.B, self.I, self.O  # noqa: E741
        sizes = {"forward": (B, O, I), "grad_input": (B, I, O), "grad_weights": (O, I, B)}[kernel]
        return tiles.choose(self.chip, kernel, "small", products, sizes)

    def options(self, tile: Tile) -> dict[str, Any]:
        limits = tiles.limits(self.chip, tile)
        return {"TILE": tile, "num_warps": tile.warps, "num_stages": tile.stages, **limits}


@functools.lru_cache(RECIPES)
def forward(save: bool, *call: Any) -> Recipe:
    """From x and the weights to (y, saved); ``call``: the arguments of ``Power``."""
    one = Power(*call)
    recipe = one.recipe()
    y = recipe.room(one.output_shape, one.dtype)
    saved = recipe.room((one.saved_size,), one.compute) if save else None
    recipe.results = (y, saved)
    tile = one.tile("forward")
    programs = blocks(one.B, tile.rows) * blocks(one.O, tile.cols)
    if programs:
        args = (one.batch, one.weights, y, saved, one.eps)
        recipe.step(power_kernel, (programs,), *args, **one.options(tile))
    return recipe


@functools.lru_cache(RECIPES)
def backward(
    needed: int,
    passes: bool,
    described_dy: tuple[Any, ...],
    described_saved: tuple[Any, ...],
    *call: Any,
) -> Recipe:
    """From x, the weights, dy and what the forward saved to the gradients of x and the weights:
    those with a bit in ``needed``. ``passes``: the gate's clamp passes its gradient everywhere."""
    one = Power(*call)
    B, I, O = one.B, one.I, one.O  # noqa: E741
    dy, kept = Described._make(described_dy), Described._make(described_saved)
    batch, recipe, _ = one.backward(dy, kept, one.saved_size, one.compute)
    dx = recipe.room(one.shape, one.dtype, like=one.like_x) if needed & 1 else None
    shapes = Powers((O, I), (I,), (O, I))
    grads = Powers(
        *(
            recipe.room(shape, one.dtype, like=weight) if weight and needed >> place & 1 else None
            for place, (weight, shape) in enumerate(zip(one.weights, shapes, strict=True), start=1)
        )
    )
    recipe.results = (dx, *grads)
    for_dx, for_weights = one.tile("grad_input"), one.tile("grad_weights")
    row_tiles, col_tiles = blocks(B, for_dx.rows), blocks(I, for_dx.cols)
    programs = blocks(O, for_weights.rows) * blocks(I, for_weights.cols)
    splits, split_rows = tiles.splits(B, max(1, programs), for_weights, one.chip)
    parts = Powers(
        grads.W_re and recipe.room((splits, O, I), one.compute),
        grads.g and recipe.room((row_tiles, I), one.compute),
        grads.W_im and recipe.room((splits, O, I), one.compute),
    )
    if (dx or grads.g) and row_tiles * col_tiles:
        recipe.step(
            power_grad_input_kernel,
            (row_tiles * col_tiles,),
            batch,
            one.weights,
            dx,
            parts.g,
            one.eps,
            **one.options(for_dx),
        )
    if (grads.W_re or grads.W_im) and programs:
        recipe.step(
            power_grad_weights_kernel,
            (programs, splits),
            batch,
            one.weights,
            parts,
            split_rows,
            one.eps,
            **one.options(for_weights),
        )
    size = max(O * I if grads.W_re or grads.W_im else 0, I if grads.g else 0)
    if size:
        recipe.step(
            finish_power_kernel,
            (blocks(size, tiles.FINISH_ELEMENTS),),
            batch,
            one.weights.g,
            parts,
            grads,
            splits,
            row_tiles,
            PASSES=passes,
            BLOCK=tiles.FINISH_ELEMENTS,
            num_warps=tiles.warps_of_128_threads(one.chip),
        )
    return recipe
