"""Launches: for each kernel, its grid, its tile and what it is compiled for."""

from __future__ import annotations

from typing import Any, NamedTuple

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


class Plan(NamedTuple):
    """``reads``: whether so many tiles of rows need W that it is transformed before."""

    form: Form
    tile: Tile
    row_tiles: int
    col_tiles: int
    reads: bool

    @property
    def options(self) -> dict[str, Any]:
        return {
            "FORM": self.form,
            "TILE": self.tile,
            "num_warps": self.tile.warps,
            "num_stages": self.tile.stages,
        }


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def plan(layer: Layer, kernel: str) -> Plan:
    """How ``kernel`` is to compute ``layer``."""
    B, I, O = layer.sizes  # noqa: E741
    sizes = {"forward": (B, O, I), "grad_input": (B, I, O), "grad_weights": (O, I, B)}[kernel]
    rows, cols, _ = sizes
    small = tiles.is_small(*sizes)
    linear = log = "ieee"
    if not small:
        setting = float32_setting() if layer.dtype == torch.float32 else ""
        linear, log = products(layer.dtype, setting, layer.chip, backward=kernel != "forward")
    name = "float64" if layer.dtype == torch.float64 else linear

    def tile(case: str) -> Tile:
        return tiles.choose(layer.chip, kernel, "small" if small else case, name, sizes)

    read = False
    if kernel == "grad_weights":
        chosen = tile("tied" if layer.weights.W_hat_mul is None else "untied")
    else:
        chosen = tile("inside")
        if _blocks(rows, chosen.rows) > tiles.ROW_TILES_THAT_TRANSFORM:
            chosen, read = tile("read"), True
    form = Form(layer.linear, layer.log_space, layer.gate_kind, linear, log)
    return Plan(form, chosen, _blocks(rows, chosen.rows), _blocks(cols, chosen.cols), read)


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
    how = plan(layer, "forward")
    weights = _transform(layer) if how.reads else layer.weights
    run(
        forward_kernel,
        # At least one column of tiles: a gate per sample is kept even if there is no output.
        (how.row_tiles * max(1, how.col_tiles),),
        layer.x.device,
        layer.x,
        weights,
        y,
        saved,
        layer.sizes,
        layer.x.stride(),
        layer.eps,
        **how.options,
    )


def grad_input(
    layer: Layer, how: Plan, weights: Weights, dy: Tensor, saved: Tensor | None, dx: Tensor
) -> None:
    if dx.numel() == 0:
        return
    if how.reads and weights.M_hat is not None:
        weights = _transform(layer)
    run(
        grad_input_kernel,
        (how.row_tiles * how.col_tiles,),
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
        **how.options,
    )


def grad_weights(layer: Layer, dy: Tensor, saved: Tensor | None, grads: Gradients) -> None:
    """All gradients but the input's, in one launch; in two where the batch is split among
    programs, or a gate per sample sums over tiles of outputs."""
    how = plan(layer, "grad_weights")
    B, I, O = layer.sizes  # noqa: E741
    # An empty matrix still has programs: the bias, and a gate per sample, have gradients.
    row_tiles, col_tiles = max(1, how.row_tiles), max(1, how.col_tiles)
    splits, split_rows = tiles.splits(B, row_tiles * col_tiles, how.tile, layer.chip)
    parts = splits * row_tiles if layer.gate_kind == "sample" else splits
    partials = _partials(layer, grads, splits, parts)
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
        **how.options,
    )
    sizes = (O * I, layer.gates * I, layer.gates)
    if any(partial is not None for partial in partials) and max(sizes):
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


def _partials(layer: Layer, grads: Gradients, splits: int, parts: int) -> Partials:
    """Room for what more than one program sums."""

    def room(count: int, wanted: tuple[Tensor | None, ...], *shape: int) -> Tensor | None:
        if count == 1 or all(grad is None for grad in wanted):
            return None
        return layer.empty_partials(count, *shape)

    return Partials(
        W=room(splits, (grads.W_hat, grads.M_hat, grads.W), layer.O, layer.I),
        W_mul=room(splits, (grads.W_hat_mul, grads.M_hat_mul, grads.W_mul), layer.O, layer.I),
        G=room(parts, (grads.G,), layer.gates, layer.I),
        gate_bias=room(parts, (grads.gate_bias,), layer.gates),
    )
