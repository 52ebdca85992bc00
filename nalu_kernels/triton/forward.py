"""The forward of every layer, in one kernel: the products with W and the gate's read x once."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths, metadata
from .conversions import compute_type, rounded, widened
from .loads import (
    dense,
    load,
    log_tile,
    product_weight_tile,
    seen_by_gate,
    sizes_of,
    tile_indices,
    weight_tile,
    x_tile,
)
from .products import product
from .units import batch_of_unit, of_unit, weights_of_unit


@triton.jit(launch_metadata=metadata.forward)
def forward_kernel(
    batch,
    weights,
    signs,
    y,
    saved,
    eps: tl.float64,
    units,
    FORM: tl.constexpr,
    TILE: tl.constexpr,
):
    """A tile of y, [B, O]: equations 1 to 6. ``saved``, if not None, receives a, m and g, flat.

    ``signs``, [B, O], is the product's sign, of an iNALU alone.
    """
    if len(units) > 0:
        batch = batch_of_unit(batch, units.batch)
        weights = weights_of_unit(weights, units.weights)
        signs, y = of_unit(signs, units.signs), of_unit(y, units.y)
        saved = of_unit(saved, units.saved)
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    LINEAR_PRODUCT: tl.constexpr = FORM.linear_product
    LOG_PRODUCT: tl.constexpr = FORM.log_product
    LAYER: tl.constexpr = FORM.layer
    C: tl.constexpr = compute_type(batch.x)
    sizes = sizes_of(batch, FORM)
    B, I, O = sizes.B, sizes.I, sizes.O  # noqa: E741
    _, col, rows, cols = tile_indices(tl.program_id(0), B, O, TILE)
    shift = tl.full([1, 1], eps, C)

    a = tl.zeros([ROWS, COLS], C)
    l = tl.zeros([ROWS, COLS], C)  # noqa: E741
    z = tl.zeros([ROWS, COLS], C)
    z_sample = tl.zeros([ROWS], C)
    for start in range(0, I, TILE.depth):
        k = start + tl.arange(0, TILE.depth)
        x_mask = (rows[:, None] < B) & (k[None, :] < I)
        x = x_tile(batch.x, sizes, rows[:, None], k[None, :], x_mask, C)  # [ROWS, depth]
        at, mask = dense(cols[None, :], k[:, None], O, I)
        W = weight_tile(weights.W_hat, weights.M_hat, at, mask, C, LAYER)  # [depth, COLS]
        if FORM.linear:
            a = product(x, W, a, LINEAR_PRODUCT)
        if FORM.log_space:
            W_mul = product_weight_tile(weights, W, at, mask, C)
            L = log_tile(x, (k < I)[None, :], shift, LAYER)
            l = product(L, W_mul, l, LOG_PRODUCT)  # noqa: E741
        if FORM.gates == "output" and weights.G is not None:
            G = load(weights.G + at, mask, C)
            z = product(seen_by_gate(x, LAYER), G, z, LINEAR_PRODUCT)
        elif FORM.gates == "sample":
            G = load(weights.G + k, k < I, C)
            z_sample += tl.sum(seen_by_gate(x, LAYER) * G[None, :], axis=1)

    at, mask = dense(rows[:, None], cols[None, :], B, O)
    if FORM.gates == "none":
        result = maths.exp(l) if FORM.log_space else a
    else:
        if signs is None:
            m = maths.exp(l)
        if FORM.gates == "output":
            if weights.gate_bias is not None:
                z += load(weights.gate_bias + cols, cols < O, C)[None, :]
            g = maths.sigmoid(z)
        else:
            if weights.gate_bias is not None:
                z_sample += widened(tl.load(weights.gate_bias), C)
            g = maths.sigmoid(z_sample)[:, None]
        if signs is not None:
            s = tl.load(signs + at, mask=mask, other=0.0)
            result, m = maths.mix_signed(a, l, s, g, tl.full([1, 1], FORM.omega, C))
        else:
            result = maths.mix(a, m, g)
        if saved is not None:
            plane = tl.full([1, 1], B, tl.int64) * O
            tl.store(saved + at, a, mask=mask)
            tl.store(saved + plane + at, m, mask=mask)
            if signs is not None:
                tl.store(saved + 2 * plane + at, s, mask=mask)
                tl.store(saved + 3 * plane + at, tl.broadcast_to(g, [ROWS, COLS]), mask=mask)
            elif FORM.gates == "output":
                tl.store(saved + 2 * plane + at, g, mask=mask)
            else:
                g_mask = (rows[:, None] < B) & (col == 0)
                tl.store(saved + 2 * plane + rows[:, None], g, mask=g_mask)
    tl.store(y + at, rounded(result, y.dtype.element_ty), mask=mask)
