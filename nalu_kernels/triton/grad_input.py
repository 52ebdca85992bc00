"""The gradient of the input, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths, metadata
from .conversions import compute_type, rounded
from .loads import (
    dense,
    gradients_tile,
    load,
    product_weight_tile,
    sizes_of,
    tile_indices,
    weight_tile,
    x_tile,
)
from .products import product
from .units import batch_of_unit, of_unit, weights_of_unit


@triton.jit
def through_size(of_log, of_gate, x, shift, LAYER: tl.constexpr):
    """From the logarithm, and from the |x| that an iNALU's gate sees, to x."""
    if LAYER == "inalu":
        return (maths.grad_log_larger(of_log, x, shift) + of_gate) * maths.sign(x)
    elif LAYER == "inalu_sum":
        return maths.grad_log_abs(of_log, x, shift) + of_gate * maths.sign(x)
    else:
        return maths.grad_log_abs(of_log, x, shift)


@triton.jit
def grad_input_tile(
    program, batch, weights, dx, eps: tl.float64, FORM: tl.constexpr, TILE: tl.constexpr
):
    """A tile of dx = da W + dz G + (dl W) dL/dx, [B, I]: equation 12."""
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    LINEAR_PRODUCT: tl.constexpr = FORM.linear_product
    LOG_PRODUCT: tl.constexpr = FORM.log_product
    LAYER: tl.constexpr = FORM.layer
    # An iNALU's gate sees |x|.
    SIGNED: tl.constexpr = LAYER == "inalu" or LAYER == "inalu_sum"
    C: tl.constexpr = compute_type(batch.x)
    sizes = sizes_of(batch, FORM)
    B, I, O = sizes.B, sizes.I, sizes.O  # noqa: E741
    _, _, rows, cols = tile_indices(program, B, I, TILE)

    linear = tl.zeros([ROWS, COLS], C)
    log = tl.zeros([ROWS, COLS], C)
    of_gate = tl.zeros([ROWS, COLS], C)
    dg_sample = tl.zeros([ROWS], C)
    g_sample = tl.zeros([ROWS, 1], C)
    for start in range(0, O, TILE.depth):
        k = start + tl.arange(0, TILE.depth)
        # [ROWS, depth]
        da, dl, dg, g = gradients_tile(batch, sizes, rows[:, None], k[None, :], B, FORM)
        if FORM.gates == "sample":
            dg_sample += tl.sum(dg, axis=1)
            g_sample = g
        at, mask = dense(k[:, None], cols[None, :], O, I)
        W = weight_tile(weights.W_hat, weights.M_hat, at, mask, C, LAYER)  # [depth, COLS]
        if FORM.linear:
            linear = product(da, W, linear, LINEAR_PRODUCT)
        if FORM.gates == "output" and weights.G is not None:
            G = load(weights.G + at, mask, C)
            dz = maths.grad_sigmoid(dg, g)
            if SIGNED:
                of_gate = product(dz, G, of_gate, LINEAR_PRODUCT)
            else:
                linear = product(dz, G, linear, LINEAR_PRODUCT)
        if FORM.log_space:
            W_mul = product_weight_tile(weights, W, at, mask, C)
            log = product(dl, W_mul, log, LOG_PRODUCT)

    if FORM.gates == "sample":
        G = load(weights.G + cols, cols < I, C)
        dx_of_gate = maths.grad_sigmoid(dg_sample[:, None], g_sample) * G[None, :]
        if SIGNED:
            of_gate += dx_of_gate
        else:
            linear += dx_of_gate
    result = linear
    mask = (rows[:, None] < B) & (cols[None, :] < I)
    if FORM.log_space:
        x = x_tile(batch.x, sizes, rows[:, None], cols[None, :], mask, C)
        shift = tl.full([1, 1], eps, C)
        result += through_size(log, of_gate, x, shift, LAYER)
    # By row, then by column: with an offset of one sum, as of ``dense``, LLVM gives the backward in
    # one launch up to half as many registers again on gfx942.
    dx_at = dx + rows[:, None] * I + cols[None, :]
    tl.store(dx_at, rounded(result, dx.dtype.element_ty), mask=mask)


@triton.jit(launch_metadata=metadata.grad_input)
def grad_input_kernel(
    batch, weights, dx, eps: tl.float64, units, FORM: tl.constexpr, TILE: tl.constexpr
):
    """A program for each tile of dx."""
    if len(units) > 0:
        batch = batch_of_unit(batch, units.batch)
        weights = weights_of_unit(weights, units.weights)
        dx = of_unit(dx, units.dx)
    grad_input_tile(tl.program_id(0), batch, weights, dx, eps, FORM, TILE)
