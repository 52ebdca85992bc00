"""What each operator launches: for each kernel its grid, its tile and what it is compiled for."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch

from . import launch_reduction, tiles
from .arguments import Described, Given, Layer
from .backward import backward_kernel
from .forms import Batch, Form, Gradients, Partials, Tile, Weights
from .forward import forward_kernel
from .grad_input import grad_input_kernel
from .grad_weights import finish_kernel, grad_weights_kernel
from .precision import products
from .recipe import RECIPES, Recipe, Slot, blocks
from .transform import transform_kernel


class Plan(NamedTuple):
    """How a kernel computes a layer. ``reads``: W, which so many rows of tiles need that it is
    transformed before. ``limits``: options of the compiler."""

    form: Form
    tile: Tile
    row_tiles: int
    col_tiles: int
    small: bool
    reads: bool
    limits: dict[str, int]

    @property
    def programs(self) -> int:
        return self.row_tiles * self.col_tiles

    @property
    def options(self) -> dict[str, Any]:
        return {
            "FORM": self.form,
            "TILE": self.tile,
            "num_warps": self.tile.warps,
            "num_stages": self.tile.stages,
            **self.limits,
        }


def _multiple(size: int) -> int:
    """The largest power of two, up to 16, that divides ``size``."""
    return min(16, size & -size or 16)


def plan(layer: Layer, kernel: str, setting: str, dy: Given | None = None) -> Plan:
    B, I, O = layer.sizes  # noqa: E741
    sizes = {"forward": (B, O, I), "grad_input": (B, I, O), "grad_weights": (O, I, B)}[kernel]
    rows, cols, _ = sizes
    small = tiles.is_small(*sizes)
    linear = log = "ieee"
    if not small:
        linear, log = products(layer.dtype, setting, layer.chip, backward=kernel != "forward")
    name = "float64" if layer.dtype == torch.float64 else linear
    dy_strides = (1, 1) if dy is None else dy.strides
    strides = (I, O, *layer.x_strides, *dy_strides)
    wide = (
        min([16, *(_multiple(stride) for stride in strides if stride != 1)]) * layer.dtype.itemsize
        >= 16
    )
    aligned = wide and layer.aligned and (dy is None or dy.aligned)

    def tile(case: str) -> Tile:
        case = "small" if small else case if aligned else "odd"
        return tiles.choose(layer.chip, kernel, case, name, sizes)

    reads = False
    if kernel == "grad_weights":
        chosen = tile("untied" if layer.untied else "tied")
    else:
        chosen = tile("inside")
        if not small and blocks(rows, chosen.rows) > tiles.ROW_TILES_THAT_TRANSFORM:
            chosen, reads = tile("read"), layer.weights.M_hat is not None
    form = Form(
        layer.layer,
        layer.linear,
        layer.log_space,
        layer.gate_kind,
        layer.omega,
        linear,
        log,
        *map(_multiple, strides),
    )
    row_tiles, col_tiles = blocks(rows, chosen.rows), blocks(cols, chosen.cols)
    return Plan(form, chosen, row_tiles, col_tiles, small, reads, tiles.limits(layer.chip, chosen))


def _transformed(weights: Weights, W: Slot, W_mul: Slot | None) -> Weights:
    """``weights`` with W in place of W_hat and M_hat."""
    return weights._replace(W_hat=W, M_hat=None, W_hat_mul=W_mul, M_hat_mul=None)


def _room_for_W(recipe: Recipe, layer: Layer) -> tuple[Slot, Slot | None]:
    W = recipe.room((layer.O, layer.I), layer.compute)
    return W, recipe.room((layer.O, layer.I), layer.compute) if layer.untied else None


def transform(recipe: Recipe, layer: Layer) -> Weights:
    """The weights with W, in a launch of its own."""
    W, W_mul = _room_for_W(recipe, layer)
    size = layer.O * layer.I
    if size:
        recipe.step(
            transform_kernel,
            (blocks(size, tiles.TRANSFORM_ELEMENTS),),
            layer.weights,
            W,
            W_mul,
            size,
            BLOCK=tiles.TRANSFORM_ELEMENTS,
            num_warps=tiles.warps_of_128_threads(layer.chip),
        )
    return _transformed(layer.weights, W, W_mul)


@functools.lru_cache(RECIPES)
def forward(setting: str, save: bool, *call: Any) -> Recipe:
    """From x and the weights to (y, saved); ``call``: the arguments of ``Layer``."""
    layer = Layer(*call)
    recipe = layer.recipe()
    y = recipe.room(layer.output_shape, layer.dtype)
    saved = recipe.room((layer.saved_size,), layer.compute) if save else None
    recipe.results = (y, saved)
    if layer.B == 0 or (layer.O == 0 and not (save and layer.gate_kind == "sample")):
        return recipe
    how = plan(layer, "forward", setting)
    weights = transform(recipe, layer) if how.reads or layer.signed else layer.weights
    signs = None
    if layer.signed:
        signs = recipe.room((layer.B, layer.O), layer.compute)
        launch_reduction.reduce(recipe, layer, "inalu", weights.W_hat_mul or weights.W_hat, signs)
    recipe.step(
        forward_kernel,
        # At least one column of tiles: a gate per sample is kept even if there is no output.
        (how.row_tiles * max(1, how.col_tiles),),
        layer.batch,
        weights,
        signs,
        y,
        saved,
        layer.eps,
        **how.options,
    )
    return recipe


@functools.lru_cache(RECIPES)
def backward(
    setting: str,
    needed: int,
    described_dy: tuple[Any, ...],
    described_saved: tuple[Any, ...] | None,
    *call: Any,
) -> Recipe:
    """From x, the weights, dy and what the forward saved to (dx, grads): those of which bit i of
    ``needed`` is set for tensor i.

    The parameters' kernel first: it has to transform the weights anyway, and leaves them for dx.
    """
    layer = Layer(*call)
    kept = None if described_saved is None else Described._make(described_saved)
    gated = layer.gate_kind != "none"
    batch, recipe, dy = layer.backward(
        Described._make(described_dy),
        kept,
        layer.saved_size if gated else layer.B * layer.O,
        layer.compute if gated else layer.dtype,
    )
    grads = Gradients(
        *(
            recipe.room(layer.shape_of_weight(name), layer.dtype, like=weight)
            if weight is not None and needed >> place & 1
            else None
            for place, (name, weight) in enumerate(layer.weights._asdict().items(), start=1)
        )
    )
    dx = recipe.room(layer.shape, layer.dtype, like=layer.like_x) if needed & 1 else None
    recipe.results = (dx, *grads[: len(layer.weights)])
    has_dx = dx is not None and layer.B * layer.I > 0
    for_dx = plan(layer, "grad_input", setting, dy) if has_dx else None
    for_weights = None
    if any(grad is not None for grad in grads):
        for_weights = _Sums(layer, plan(layer, "grad_weights", setting, dy))
    of_product = (grads.W_hat_mul, grads.M_hat_mul) if layer.untied else grads[:2]
    if layer.signed and any(of_product):
        weights = transform(recipe, layer)
        signs = recipe.room((layer.O, layer.I), layer.compute)
        W = weights.W_hat_mul or weights.W_hat
        launch_reduction.reduce_gradient(recipe, layer, "inalu", batch, W, layer.I, None, signs)
        grads = grads._replace(signs=signs)
    if for_dx and for_weights and _go_together(for_dx, for_weights):
        _grad_all(recipe, layer, for_dx, for_weights, batch, grads, dx)
        return recipe
    weights = layer.weights
    wants_W = any((grads.W_hat, grads.M_hat, grads.W_hat_mul, grads.M_hat_mul))
    if for_weights:
        if for_dx and for_dx.reads and wants_W and weights is layer.weights:
            W, W_mul = _room_for_W(recipe, layer)
            grads = grads._replace(W=W, W_mul=W_mul)
            weights = _transformed(weights, W, W_mul)
        _grad_weights(recipe, layer, for_weights, batch, grads)
    if for_dx and for_dx.reads and not wants_W:
        weights = transform(recipe, layer)
    if for_dx:
        recipe.step(
            grad_input_kernel,
            (for_dx.programs,),
            batch,
            weights,
            dx,
            layer.eps,
            **for_dx.options,
        )
    return recipe


class _Sums:
    """How the parameters' gradients are summed: ``splits`` parts of the batch, of ``split_rows``
    rows, and ``parts`` of the gate's sums."""

    def __init__(self, layer: Layer, how: Plan) -> None:
        self.how = how
        # An empty matrix still has programs: the bias, and a gate per sample, have gradients.
        row_tiles = max(1, how.row_tiles)
        self.programs = row_tiles * max(1, how.col_tiles)
        self.splits, self.split_rows = tiles.splits(layer.B, self.programs, how.tile, layer.chip)
        self.parts = self.splits * (row_tiles if layer.gate_kind == "sample" else 1)


def _go_together(for_dx: Plan, for_weights: _Sums) -> bool:
    """Whether all gradients take one launch: those of a small layer that need none after it."""
    small = for_dx.small and for_weights.how.small and for_weights.parts == 1
    return small and for_dx.tile.warps == for_weights.how.tile.warps


def _grad_all(
    recipe: Recipe,
    layer: Layer,
    for_dx: Plan,
    for_weights: _Sums,
    batch: Batch,
    grads: Gradients,
    dx: Slot | None,
) -> None:
    recipe.step(
        backward_kernel,
        (for_weights.programs + for_dx.programs,),
        batch,
        layer.weights,
        grads,
        Partials(),
        dx,
        for_weights.programs,
        layer.eps,
        WEIGHTS_TILE=for_weights.how.tile,
        **for_dx.options,
    )


def _grad_weights(
    recipe: Recipe, layer: Layer, sums: _Sums, batch: Batch, grads: Gradients
) -> None:
    """All gradients but the input's, in one launch; in two where the batch is split among
    programs, or a gate per sample sums over tiles of outputs."""
    O, I = layer.O, layer.I  # noqa: E741
    partials = _partials(recipe, layer, grads, sums.splits, sums.parts)
    recipe.step(
        grad_weights_kernel,
        (sums.programs, sums.splits),
        batch,
        layer.weights,
        grads,
        partials,
        sums.split_rows,
        layer.eps,
        **sums.how.options,
    )
    sizes = (O * I, layer.gates * I, layer.gates)
    if any(partial is not None for partial in partials) and max(sizes):
        recipe.step(
            finish_kernel,
            (blocks(max(sizes), tiles.FINISH_ELEMENTS),),
            layer.weights,
            grads,
            partials,
            sizes,
            (sums.splits, sums.parts),
            BLOCK=tiles.FINISH_ELEMENTS,
            num_warps=tiles.warps_of_128_threads(layer.chip),
        )


def _partials(recipe: Recipe, layer: Layer, grads: Gradients, splits: int, parts: int) -> Partials:
    """Room for what more than one program sums."""

    def room(count: int, wanted: tuple[Slot | None, ...], *shape: int) -> Slot | None:
        if count == 1 or all(grad is None for grad in wanted):
            return None
        return recipe.room((count, *shape), layer.compute)

    return Partials(
        W=room(splits, (grads.W_hat, grads.M_hat, grads.W), layer.O, layer.I),
        W_mul=room(splits, (grads.W_hat_mul, grads.M_hat_mul, grads.W_mul), layer.O, layer.I),
        G=room(parts, (grads.G,), layer.gates, layer.I),
        gate_bias=room(parts, (grads.gate_bias,), layer.gates),
    )
