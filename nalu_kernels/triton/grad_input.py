"""The gradient of the input, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths, metadata
from .conversions import rounded
from .loads import gradients_tile, indices, load, multiple, tile_of, tiles, weight_tile
from .products import product


@triton.jit
def grad_input_tile(
    program,
    dy,
    saved,
    x,
    weights,
    dx,
    sizes,
    dy_strides,
    x_strides,
    eps: tl.float64,
    FORM: tl.constexpr,
    TILE: tl.constexpr,
):
    """A tile of dx = da W + dz G + (dl W) dL/dx: equation 12.

    dy: [B, O] and x: [B, I] with their strides; dx: [B, I]; ``sizes``: (B, I, O).
    """
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    DEPTH: tl.constexpr = TILE.depth
    LINEAR_PRODUCT: tl.constexpr = FORM.linear_product
    LOG_PRODUCT: tl.constexpr = FORM.log_product
    I_MULTIPLE: tl.constexpr = FORM.I_multiple
    O_MULTIPLE: tl.constexpr = FORM.O_multiple
    X_ROW_MULTIPLE: tl.constexpr = FORM.x_row_multiple
    X_COL_MULTIPLE: tl.constexpr = FORM.x_col_multiple
    DY_ROW_MULTIPLE: tl.constexpr = FORM.dy_row_multiple
    DY_COL_MULTIPLE: tl.constexpr = FORM.dy_col_multiple
    C: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    B = sizes[0]
    I = multiple(sizes[1], I_MULTIPLE)  # noqa: E741
    O = multiple(sizes[2], O_MULTIPLE)  # noqa: E741
    x_row = multiple(x_strides[0], X_ROW_MULTIPLE)
    x_col = multiple(x_strides[1], X_COL_MULTIPLE)
    dy_row = multiple(dy_strides[0], DY_ROW_MULTIPLE)
    dy_col = multiple(dy_strides[1], DY_COL_MULTIPLE)
    row, col = tile_of(program, tiles(B, ROWS), tiles(I, COLS))
    rows = indices(row, ROWS)
    cols = indices(col, COLS)
    plane = tl.full([1, 1], B, tl.int64) * O

    linear = tl.zeros([ROWS, COLS], C)
    log = tl.zeros([ROWS, COLS], C)
    dg_sample = tl.zeros([ROWS], C)
    g = tl.zeros([ROWS, 1], C)
    for start in range(0, O, DEPTH):
        k = start + tl.arange(0, DEPTH)
        mask = (rows[:, None] < B) & (k[None, :] < O)  # [ROWS, DEPTH]
        dy_at = rows[:, None] * dy_row + k[None, :].to(tl.int64) * dy_col
        at = rows[:, None] * O + k[None, :]
        if FORM.gates == "sample":
            da, dl, dg, g = gradients_tile(
                dy, dy_at, saved, at, rows[:, None], plane, mask, rows[:, None] < B, FORM
            )
            dg_sample += tl.sum(dg, axis=1)
        else:
            da, dl, dg, g_tile = gradients_tile(dy, dy_at, saved, at, at, plane, mask, mask, FORM)
        w_at = k[:, None].to(tl.int64) * I + cols[None, :]
        w_mask = (k[:, None] < O) & (cols[None, :] < I)
        W = weight_tile(weights.W_hat, weights.M_hat, w_at, w_mask, C)  # [DEPTH, COLS]
        if FORM.linear:
            linear = product(da, W, linear, LINEAR_PRODUCT)
        if FORM.gates == "output":
            G = load(weights.G + w_at, w_mask, C)
            linear = product(maths.grad_sigmoid(dg, g_tile), G, linear, LINEAR_PRODUCT)
        if FORM.log_space:
            W_mul = W
            if weights.W_hat_mul is not None:
                W_mul = weight_tile(weights.W_hat_mul, weights.M_hat_mul, w_at, w_mask, C)
            log = product(dl, W_mul, log, LOG_PRODUCT)

    if FORM.gates == "sample":
        G = load(weights.G + cols, cols < I, C)
        linear += maths.grad_sigmoid(dg_sample[:, None], g) * G[None, :]
    result = linear
    mask = (rows[:, None] < B) & (cols[None, :] < I)
    if FORM.log_space:
        x_at = rows[:, None] * x_row + cols[None, :] * x_col
        x_tile = load(x + x_at, mask, C)
        result += maths.grad_log_abs(log, x_tile, tl.full([1, 1], eps, C))
    tl.store(
        dx + rows[:, None] * I + cols[None, :], rounded(result, dx.dtype.element_ty), mask=mask
    )


@triton.jit(launch_metadata=metadata.grad_input)
def grad_input_kernel(
    dy,
    saved,
    x,
    weights,
    dx,
    sizes,
    dy_strides,
    x_strides,
    eps: tl.float64,
    FORM: tl.constexpr,
    TILE: tl.constexpr,
):
    """A program for each tile of dx."""
    program = tl.program_id(0)
    grad_input_tile(
        program, dy, saved, x, weights, dx, sizes, dy_strides, x_strides, eps, FORM, TILE
    )
