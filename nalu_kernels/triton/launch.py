"""Launches: for each kernel, its grid, its tile and what it is compiled for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import tiles
from .arguments import Layer
from .forms import Form, Gradients, Partials, Tile, Weights
from .forward import forward_kernel
from .grad_input import grad_input_kernel
from .grad_weights import finish_kernel, grad_weights_kernel
from .precision import float32_setting, products
from .transform import transform_kernel


def run(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *args: Any, **options: Any
) -> None:
    """Launches on the current stream of ``device``, which need not be the current one."""
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[grid](*args, **options)
    else:
        kernel[grid](*args, **options)


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def plan(layer: Layer, kernel: str) -> tuple[Form, Tile]:
    """How ``kernel`` is to compute ``layer``."""
    B, I, O = layer.sizes  # noqa: E741
    rows, cols, depth = {
        "forward": (B, O, I),
        "grad_input": (B, I, O),
        "grad_weights": (O, I, B),
    }[kernel]
    small = tiles.is_small(rows, cols, depth)
    linear = log = "ieee"
    if not small:
        setting = float32_setting() if layer.dtype == torch.float32 else ""
        linear, log = products(
            layer.dtype, setting, hip=layer.chip.hip, backward=kernel != "forward"
        )
    tile = tiles.choose(kernel, rows, cols, small, layer.dtype, log, layer.chip)
    return Form(layer.linear, layer.log_space, layer.gate_kind, linear, log), tile


def shares_weights(layer: Layer, kernel: str) -> bool:
    """Whether so many tiles of rows need W that it is transformed once, in a launch of its own."""
    _, tile = plan(layer, kernel)
    return _blocks(layer.B, tile.rows) > tiles.ROW_TILES_THAT_TRANSFORM


def transformed(weights: Weights, W: Tensor, W_mul: Tensor | None) -> Weights:
    """``weights`` with W in place of W_hat and M_hat."""
    return weights._replace(W_hat=W, M_hat=None, W_hat_mul=W_mul, M_hat_mul=None)


def _transform(layer: Layer) -> Weights:
    room = layer.empty_transformed()
    size = layer.O * layer.I
    grid = (_blocks(size, tiles.ELEMENTS),)
    if size:
        run(
            transform_kernel,
            grid,
            layer.x.device,
            layer.weights,
            room["W"],
            room["W_mul"],
            size,
            BLOCK=tiles.ELEMENTS,
        )
    return transformed(layer.weights, room["W"], room["W_mul"])


def forward(layer: Layer, y: Tensor, saved: Tensor | None) -> None:
    if y.numel() == 0 and (saved is None or saved.numel() == 0):
        return
    form, tile = plan(layer, "forward")
    weights = layer.weights
    if _blocks(layer.B, tile.rows) > tiles.ROW_TILES_THAT_TRANSFORM:
        weights = _transform(layer)
    run(
        forward_kernel,
        # At least one column of tiles: a gate per sample is kept even if there is no output.
        (_blocks(layer.B, tile.rows) * max(1, _blocks(layer.O, tile.cols)),),
        layer.x.device,
        layer.x,
        weights,
        y,
        saved,
        layer.sizes,
        layer.x.stride(),
        layer.eps,
        FORM=form,
        TILE=tile,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def grad_input(
    layer: Layer, weights: Weights, dy: Tensor, saved: Tensor | None, dx: Tensor
) -> None:
    if dx.numel() == 0:
        return
    form, tile = plan(layer, "grad_input")
    row_tiles = _blocks(layer.B, tile.rows)
    if row_tiles > tiles.ROW_TILES_THAT_TRANSFORM and weights.M_hat is not None:
        weights = _transform(layer)
    run(
        grad_input_kernel,
        (row_tiles * _blocks(layer.I, tile.cols),),
        dx.device,
        dy,
        saved,
        layer.x,
        weights,
        dx,
        layer.sizes,
        dy.stride(),
        layer.x.stride(),
        layer.eps,
        FORM=form,
        TILE=tile,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def grad_weights(layer: Layer, dy: Tensor, saved: Tensor | None, grads: Gradients) -> None:
    """All gradients but the input's, in one launch; in two where the batch is split among
    programs, or a gate per sample sums over tiles of outputs."""
    form, tile = plan(layer, "grad_weights")
    B, I, O = layer.sizes  # noqa: E741
    # An empty matrix still has programs: the bias, and a gate per sample, have gradients.
    row_tiles, col_tiles = max(1, _blocks(O, tile.rows)), max(1, _blocks(I, tile.cols))
    splits, split_rows = tiles.splits(B, row_tiles * col_tiles, tile, layer.chip)
    parts = splits * row_tiles if layer.gate_kind == "sample" else splits
    partials = Partials()
    if splits > 1:
        if any(grad is not None for grad in (grads.W_hat, grads.M_hat, grads.W)):
            partials = partials._replace(W=layer.empty_partials(splits, O, I))
        if any(grad is not None for grad in (grads.W_hat_mul, grads.M_hat_mul, grads.W_mul)):
            partials = partials._replace(W_mul=layer.empty_partials(splits, O, I))
    if parts > 1:
        if grads.G is not None:
            partials = partials._replace(G=layer.empty_partials(parts, layer.gates, I))
        if grads.gate_bias is not None:
            partials = partials._replace(gate_bias=layer.empty_partials(parts, layer.gates))
    run(
        grad_weights_kernel,
        (row_tiles * col_tiles, splits),
        dy.device,
        dy,
        saved,
        layer.x,
        layer.weights,
        grads,
        partials,
        layer.sizes,
        dy.stride(),
        layer.x.stride(),
        split_rows,
        layer.eps,
        FORM=form,
        TILE=tile,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    sizes = (O * I, layer.gates * I, layer.gates)
    if parts > 1 and max(sizes):
        run(
            finish_kernel,
            (_blocks(max(sizes), tiles.ELEMENTS),),
            dy.device,
            layer.weights,
            grads,
            partials,
            sizes,
            (splits, parts),
            BLOCK=tiles.ELEMENTS,
        )
