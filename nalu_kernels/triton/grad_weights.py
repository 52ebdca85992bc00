"""The gradients of the parameters: one kernel, and a second stage where the batch was split."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths, metadata
from .conversions import compute_type, rounded
from .loads import (
    dense,
    gradients_tile,
    indices,
    load,
    log_tile,
    seen_by_gate,
    sizes_of,
    tile_indices,
    tiles,
    x_tile,
)
from .products import product
from .units import batch_of_unit, gradients_of_unit, partials_of_unit, weights_of_unit


@triton.jit
def _store(tensor, at, mask, v):
    """v in the type of the tensor, if there is one."""
    if tensor is not None:
        tl.store(tensor + at, rounded(v, tensor.dtype.element_ty), mask=mask)


@triton.jit
def _finish_pair(dW, W_hat, M_hat, dW_hat, dM_hat, W_out, at, mask, C: tl.constexpr):
    """From dW to dW_hat and dM_hat (equations 10 and 11), and W for whoever needs it next; of a
    NAU, which has no M_hat, through its clamp."""
    w_hat = load(W_hat + at, mask, C)
    if M_hat is None:
        _store(dW_hat, at, mask, maths.grad_clamp_weight(dW, w_hat))
    else:
        m_hat = load(M_hat + at, mask, C)
        dw_hat, dm_hat, W = maths.grad_weight(dW, w_hat, m_hat)
        _store(dW_hat, at, mask, dw_hat)
        _store(dM_hat, at, mask, dm_hat)
        _store(W_out, at, mask, W)


@triton.jit
def _finish_W(dW, weights, grads, at, mask, C: tl.constexpr):
    W_hat, M_hat = weights.W_hat, weights.M_hat
    _finish_pair(dW, W_hat, M_hat, grads.W_hat, grads.M_hat, grads.W, at, mask, C)


@triton.jit
def _finish_W_mul(dW, weights, grads, at, mask, C: tl.constexpr):
    W_hat, M_hat = weights.W_hat_mul, weights.M_hat_mul
    _finish_pair(dW, W_hat, M_hat, grads.W_hat_mul, grads.M_hat_mul, grads.W_mul, at, mask, C)


@triton.jit
def grad_weights_tile(
    program,
    split,
    batch,
    weights,
    grads,
    partials,
    split_rows,
    eps: tl.float64,
    FORM: tl.constexpr,
    TILE: tl.constexpr,
):
    """A tile of the parameters' gradients, of one part of the batch: equations 10, 11, 13, 14.

    ``split`` is the number of the part, of ``split_rows`` rows. ``grads`` (``Gradients``) are
    finished here if there is one split and, for a gate per sample, one row of tiles; otherwise
    ``partials`` (a ``Partials``) receive the sums, for ``finish_kernel``.
    """
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    LINEAR_PRODUCT: tl.constexpr = FORM.linear_product
    LOG_PRODUCT: tl.constexpr = FORM.log_product
    LAYER: tl.constexpr = FORM.layer
    UNTIED: tl.constexpr = weights.W_hat_mul is not None
    C: tl.constexpr = compute_type(batch.x)
    sizes = sizes_of(batch, FORM)
    B, I, O = sizes.B, sizes.I, sizes.O  # noqa: E741
    row, col, rows, cols = tile_indices(program, O, I, TILE)  # rows are outputs, columns inputs
    shift = tl.full([1, 1], eps, C)
    first = split.to(tl.int64) * split_rows
    last = tl.minimum(first + split_rows, B)

    # The kernel sums what is asked for and no more.
    WANTS_W: tl.constexpr = grads.W_hat is not None or grads.M_hat is not None
    WANTS_W_MUL: tl.constexpr = grads.W_hat_mul is not None or grads.M_hat_mul is not None
    WANTS_LOG: tl.constexpr = FORM.log_space and (WANTS_W_MUL if UNTIED else WANTS_W)
    WANTS_GATE: tl.constexpr = grads.G is not None or grads.gate_bias is not None
    dW = tl.zeros([ROWS, COLS], C)
    dW_mul = tl.zeros([ROWS, COLS], C)
    dG = tl.zeros([ROWS, COLS], C)
    dG_sample = tl.zeros([COLS], C)
    dbias = tl.zeros([ROWS], C)
    dbias_sample = tl.zeros([1], C)
    for start in range(first, last, TILE.depth):
        b = start + tl.arange(0, TILE.depth).to(tl.int64)
        # [ROWS, depth]: y and its like, transposed
        da, dl, dg, g = gradients_tile(batch, sizes, b[None, :], rows[:, None], last, FORM)
        x_mask = (b[:, None] < last) & (cols[None, :] < I)
        x = x_tile(batch.x, sizes, b[:, None], cols[None, :], x_mask, C)  # [depth, COLS]
        if FORM.linear and WANTS_W:
            dW = product(da, x, dW, LINEAR_PRODUCT)
        if WANTS_LOG:
            L = log_tile(x, x_mask, shift, LAYER)
            if UNTIED:
                dW_mul = product(dl, L, dW_mul, LOG_PRODUCT)
            else:
                dW = product(dl, L, dW, LOG_PRODUCT)
        if WANTS_GATE:
            if FORM.gates == "output":
                dz = maths.grad_sigmoid(dg, g)
                if grads.G is not None:
                    dG = product(dz, seen_by_gate(x, LAYER), dG, LINEAR_PRODUCT)
                dbias += tl.sum(dz, axis=1)
            else:
                # This tile's outputs' share of each sample's one gate.
                dz = maths.grad_sigmoid(tl.sum(dg, axis=0)[None, :], g)
                dG_sample += tl.sum(tl.trans(dz) * seen_by_gate(x, LAYER), axis=0)
                dbias_sample += tl.sum(dz, axis=1)

    at, mask = dense(rows[:, None], cols[None, :], O, I)
    if grads.signs is not None and WANTS_LOG:
        of_signs = tl.load(grads.signs + at, mask=mask & (split == 0), other=0.0)
        if UNTIED:
            dW_mul += of_signs
        else:
            dW += of_signs
    at += split.to(tl.int64) * O * I
    if partials.W is not None:
        tl.store(partials.W + at, dW, mask=mask)
    elif WANTS_W or grads.W is not None:
        _finish_W(dW, weights, grads, at, mask, C)
    if partials.W_mul is not None:
        tl.store(partials.W_mul + at, dW_mul, mask=mask)
    elif WANTS_W_MUL or grads.W_mul is not None:
        _finish_W_mul(dW_mul, weights, grads, at, mask, C)
    G_out = partials.G if partials.G is not None else grads.G
    bias_out = partials.gate_bias if partials.gate_bias is not None else grads.gate_bias
    if FORM.gates == "output":
        _store(G_out, at, mask, dG)
        _store(bias_out, split.to(tl.int64) * O + rows, (rows < O) & (col == 0), dbias)
    elif FORM.gates == "sample":
        part = split.to(tl.int64) * tiles(O, ROWS) + row
        _store(G_out, part * I + cols, cols < I, dG_sample)
        at = part + tl.arange(0, 1)
        _store(bias_out, at, (col == 0) & (at >= 0), dbias_sample)


@triton.jit(launch_metadata=metadata.grad_weights)
def grad_weights_kernel(
    batch,
    weights,
    grads,
    partials,
    split_rows,
    eps: tl.float64,
    units,
    FORM: tl.constexpr,
    TILE: tl.constexpr,
):
    """A program for each tile of W and part of the batch."""
    if len(units) > 0:
        batch = batch_of_unit(batch, units.batch)
        weights = weights_of_unit(weights, units.weights)
        grads = gradients_of_unit(grads, units.grads)
        partials = partials_of_unit(partials, units.partials)
    program, split = tl.program_id(0), tl.program_id(1)
    grad_weights_tile(program, split, batch, weights, grads, partials, split_rows, eps, FORM, TILE)


@triton.jit
def sum_parts(partials, at, mask, count, size):
    """The parts' sum, always in the same order."""
    total = tl.zeros(at.shape, partials.dtype.element_ty)
    for part in range(count):
        total += tl.load(partials + tl.full([1], part, tl.int64) * size + at, mask=mask, other=0.0)
    return total


@triton.jit(launch_metadata=metadata.finish)
def finish_kernel(weights, grads, partials, sizes, counts, units, BLOCK: tl.constexpr):
    """The second stage: sums the parts of each gradient and passes dW on to W_hat and M_hat.

    ``sizes``: the elements of (W, G, gate_bias); ``counts``: the parts of (W, G and gate_bias).
    """
    if len(units) > 0:
        weights = weights_of_unit(weights, units.weights)
        grads = gradients_of_unit(grads, units.grads)
        partials = partials_of_unit(partials, units.partials)
    at = indices(tl.program_id(0), BLOCK)
    if partials.W is not None:
        mask = at < sizes[0]
        dW = sum_parts(partials.W, at, mask, counts[0], sizes[0])
        _finish_W(dW, weights, grads, at, mask, dW.dtype)
    if partials.W_mul is not None:
        mask = at < sizes[0]
        dW_mul = sum_parts(partials.W_mul, at, mask, counts[0], sizes[0])
        _finish_W_mul(dW_mul, weights, grads, at, mask, dW_mul.dtype)
    if partials.G is not None:
        mask = at < sizes[1]
        _store(grads.G, at, mask, sum_parts(partials.G, at, mask, counts[1], sizes[1]))
    if partials.gate_bias is not None:
        mask = at < sizes[2]
        dbias = sum_parts(partials.gate_bias, at, mask, counts[1], sizes[2])
        _store(grads.gate_bias, at, mask, dbias)
