"""The forward of every layer, in one kernel: the products with W and the gate's read x once."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths, metadata
from .conversions import rounded, widened
from .loads import indices, load, log_tile, multiple, tile_of, tiles, weight_tile
from .products import product


@triton.jit(launch_metadata=metadata.forward)
def forward_kernel(
    x, weights, y, saved, sizes, x_strides, eps: tl.float64, FORM: tl.constexpr, TILE: tl.constexpr
):
    """A tile of y: equations 1 to 6. ``saved``, if not None, receives a, m and g, flat.

    x: [B, I] with strides ``x_strides``; y: [B, O]; ``sizes``: (B, I, O).
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
    C: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    B = sizes[0]
    I = multiple(sizes[1], I_MULTIPLE)  # noqa: E741
    O = multiple(sizes[2], O_MULTIPLE)  # noqa: E741
    x_row = multiple(x_strides[0], X_ROW_MULTIPLE)
    x_col = multiple(x_strides[1], X_COL_MULTIPLE)
    row, col = tile_of(tl.program_id(0), tiles(B, ROWS), tiles(O, COLS))
    rows = indices(row, ROWS)
    cols = indices(col, COLS)
    shift = tl.full([1, 1], eps, C)

    a = tl.zeros([ROWS, COLS], C)
    l = tl.zeros([ROWS, COLS], C)  # noqa: E741
    z = tl.zeros([ROWS, COLS], C)
    z_sample = tl.zeros([ROWS], C)
    for start in range(0, I, DEPTH):
        k = start + tl.arange(0, DEPTH)
        x_mask = (rows[:, None] < B) & (k[None, :] < I)
        x_at = rows[:, None] * x_row + k[None, :].to(tl.int64) * x_col
        x_tile = load(x + x_at, x_mask, C)  # [ROWS, DEPTH]
        at = cols[None, :] * I + k[:, None]
        mask = (k[:, None] < I) & (cols[None, :] < O)
        W = weight_tile(weights.W_hat, weights.M_hat, at, mask, C)  # [DEPTH, COLS]
        if FORM.linear:
            a = product(x_tile, W, a, LINEAR_PRODUCT)
        if FORM.log_space:
            W_mul = W
            if weights.W_hat_mul is not None:
                W_mul = weight_tile(weights.W_hat_mul, weights.M_hat_mul, at, mask, C)
            L = log_tile(x_tile, (k < I)[None, :], shift)
            l = product(L, W_mul, l, LOG_PRODUCT)  # noqa: E741
        if FORM.gates == "output":
            G = load(weights.G + at, mask, C)
            z = product(x_tile, G, z, LINEAR_PRODUCT)
        elif FORM.gates == "sample":
            G = load(weights.G + k, k < I, C)
            z_sample += tl.sum(x_tile * G[None, :], axis=1)

    at = rows[:, None] * O + cols[None, :]
    mask = (rows[:, None] < B) & (cols[None, :] < O)
    if FORM.gates == "none":
        result = maths.exp(l) if FORM.log_space else a
    else:
        m = maths.exp(l)
        if FORM.gates == "output":
            if weights.gate_bias is not None:
                z += load(weights.gate_bias + cols, cols < O, C)[None, :]
            g = maths.sigmoid(z)
        else:
            if weights.gate_bias is not None:
                z_sample += widened(tl.load(weights.gate_bias), C)
            g = maths.sigmoid(z_sample)[:, None]
        result = maths.mix(a, m, g)
        if saved is not None:
            plane = tl.full([1, 1], B, tl.int64) * O
            tl.store(saved + at, a, mask=mask)
            tl.store(saved + plane + at, m, mask=mask)
            if FORM.gates == "output":
                tl.store(saved + 2 * plane + at, g, mask=mask)
            else:
                g_mask = (rows[:, None] < B) & (col == 0)
                tl.store(saved + 2 * plane + rows[:, None], g, mask=g_mask)
    tl.store(y + at, rounded(result, y.dtype.element_ty), mask=mask)
