"""The gradients of the parameters: one kernel, and a second stage where the batch was split."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths, metadata
from .conversions import rounded
from .loads import gradients_tile, indices, load, log_tile, multiple, tile_of, tiles
from .products import product


@triton.jit
def _finish_weight(dW, W_hat, M_hat, dW_hat, dM_hat, W_out, at, mask, C: tl.constexpr):
    """From dW to dW_hat and dM_hat (equations 10 and 11), and W for whoever needs it next."""
    w_hat = load(W_hat + at, mask, C)
    m_hat = load(M_hat + at, mask, C)
    dw_hat, dm_hat, W = maths.grad_weight(dW, w_hat, m_hat)
    if dW_hat is not None:
        tl.store(dW_hat + at, rounded(dw_hat, dW_hat.dtype.element_ty), mask=mask)
    if dM_hat is not None:
        tl.store(dM_hat + at, rounded(dm_hat, dM_hat.dtype.element_ty), mask=mask)
    if W_out is not None:
        tl.store(W_out + at, W, mask=mask)


@triton.jit
def grad_weights_tile(
    program,
    split,
    dy,
    saved,
    x,
    weights,
    grads,
    partials,
    sizes,
    dy_strides,
    x_strides,
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
    DEPTH: tl.constexpr = TILE.depth
    LINEAR_PRODUCT: tl.constexpr = FORM.linear_product
    LOG_PRODUCT: tl.constexpr = FORM.log_product
    UNTIED: tl.constexpr = weights.W_hat_mul is not None
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
    row_tiles = tiles(O, ROWS)
    row, col = tile_of(program, row_tiles, tiles(I, COLS))
    rows = indices(row, ROWS)  # of the outputs
    cols = indices(col, COLS)  # of the inputs
    shift = tl.full([1, 1], eps, C)
    plane = tl.full([1, 1], B, tl.int64) * O
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
    for start in range(first, last, DEPTH):
        b = start + tl.arange(0, DEPTH).to(tl.int64)
        mask = (rows[:, None] < O) & (
            b[None, :] < last
        )  # [ROWS, DEPTH]: y and its like, transposed
        dy_at = rows[:, None] * dy_col + b[None, :] * dy_row
        at = b[None, :] * O + rows[:, None]
        if FORM.gates == "sample":
            da, dl, dg, g = gradients_tile(
                dy, dy_at, saved, at, b[None, :], plane, mask, b[None, :] < last, FORM
            )
        else:
            da, dl, dg, g = gradients_tile(dy, dy_at, saved, at, at, plane, mask, mask, FORM)
        x_at = b[:, None] * x_row + cols[None, :] * x_col
        x_mask = (b[:, None] < last) & (cols[None, :] < I)
        x_tile = load(x + x_at, x_mask, C)  # [DEPTH, COLS]
        if FORM.linear and WANTS_W:
            dW = product(da, x_tile, dW, LINEAR_PRODUCT)
        if WANTS_LOG:
            L = log_tile(x_tile, x_mask, shift)
            if UNTIED:
                dW_mul = product(dl, L, dW_mul, LOG_PRODUCT)
            else:
                dW = product(dl, L, dW, LOG_PRODUCT)
        if WANTS_GATE:
            if FORM.gates == "output":
                dz = maths.grad_sigmoid(dg, g)
                if grads.G is not None:
                    dG = product(dz, x_tile, dG, LINEAR_PRODUCT)
                dbias += tl.sum(dz, axis=1)
            else:
                # This tile's outputs' share of each sample's one gate.
                dz = maths.grad_sigmoid(tl.sum(dg, axis=0)[None, :], g)
                dG_sample += tl.sum(tl.trans(dz) * x_tile, axis=0)
                dbias_sample += tl.sum(dz, axis=1)

    at = rows[:, None] * I + cols[None, :]
    mask = (rows[:, None] < O) & (cols[None, :] < I)
    at += split.to(tl.int64) * O * I
    if partials.W is not None:
        tl.store(partials.W + at, dW, mask=mask)
    elif WANTS_W or grads.W is not None:
        _finish_weight(
            dW, weights.W_hat, weights.M_hat, grads.W_hat, grads.M_hat, grads.W, at, mask, C
        )
    if partials.W_mul is not None:
        tl.store(partials.W_mul + at, dW_mul, mask=mask)
    elif WANTS_W_MUL or grads.W_mul is not None:
        _finish_weight(
            dW_mul,
            weights.W_hat_mul,
            weights.M_hat_mul,
            grads.W_hat_mul,
            grads.M_hat_mul,
            grads.W_mul,
            at,
            mask,
            C,
        )
    G_out = partials.G if partials.G is not None else grads.G
    bias_out = partials.gate_bias if partials.gate_bias is not None else grads.gate_bias
    if FORM.gates == "output":
        if G_out is not None:
            tl.store(G_out + at, rounded(dG, G_out.dtype.element_ty), mask=mask)
        if bias_out is not None:
            bias_at = split.to(tl.int64) * O + rows
            bias_mask = (rows < O) & (col == 0)
            tl.store(bias_out + bias_at, rounded(dbias, bias_out.dtype.element_ty), mask=bias_mask)
    elif FORM.gates == "sample":
        part = split.to(tl.int64) * row_tiles + row
        if G_out is not None:
            tl.store(
                G_out + part * I + cols, rounded(dG_sample, G_out.dtype.element_ty), mask=cols < I
            )
        if bias_out is not None:
            at = part + tl.arange(0, 1)
            tl.store(
                bias_out + at,
                rounded(dbias_sample, bias_out.dtype.element_ty),
                mask=(col == 0) & (at >= 0),
            )


@triton.jit(launch_metadata=metadata.grad_weights)
def grad_weights_kernel(
    dy,
    saved,
    x,
    weights,
    grads,
    partials,
    sizes,
    dy_strides,
    x_strides,
    split_rows,
    eps: tl.float64,
    FORM: tl.constexpr,
    TILE: tl.constexpr,
):
    """A program for each tile of W and part of the batch."""
    grad_weights_tile(
        tl.program_id(0),
        tl.program_id(1),
        dy,
        saved,
        x,
        weights,
        grads,
        partials,
        sizes,
        dy_strides,
        x_strides,
        split_rows,
        eps,
        FORM,
        TILE,
    )


@triton.jit
def _sum_parts(partials, at, mask, count, size, C: tl.constexpr):
    """The parts' sum, always in the same order."""
    total = tl.zeros(at.shape, C)
    for part in range(count):
        total += tl.load(partials + tl.full([1], part, tl.int64) * size + at, mask=mask, other=0.0)
    return total


@triton.jit(launch_metadata=metadata.finish)
def finish_kernel(weights, grads, partials, sizes, counts, BLOCK: tl.constexpr):
    """The second stage: sums the parts of each gradient and passes dW on to W_hat and M_hat.

    ``sizes``: the elements of (W, G, gate_bias); ``counts``: the parts of (W, G and gate_bias).
    """
    at = indices(tl.program_id(0), BLOCK)
    if partials.W is not None:
        C: tl.constexpr = partials.W.dtype.element_ty
        mask = at < sizes[0]
        dW = _sum_parts(partials.W, at, mask, counts[0], sizes[0], C)
        _finish_weight(
            dW, weights.W_hat, weights.M_hat, grads.W_hat, grads.M_hat, grads.W, at, mask, C
        )
    if partials.W_mul is not None:
        C_MUL: tl.constexpr = partials.W_mul.dtype.element_ty
        mask = at < sizes[0]
        dW_mul = _sum_parts(partials.W_mul, at, mask, counts[0], sizes[0], C_MUL)
        _finish_weight(
            dW_mul,
            weights.W_hat_mul,
            weights.M_hat_mul,
            grads.W_hat_mul,
            grads.M_hat_mul,
            grads.W_mul,
            at,
            mask,
            C_MUL,
        )
    if partials.G is not None:
        C_G: tl.constexpr = partials.G.dtype.element_ty
        mask = at < sizes[1]
        dG = _sum_parts(partials.G, at, mask, counts[1], sizes[1], C_G)
        tl.store(grads.G + at, rounded(dG, grads.G.dtype.element_ty), mask=mask)
    if partials.gate_bias is not None:
        C_B: tl.constexpr = partials.gate_bias.dtype.element_ty
        mask = at < sizes[2]
        dbias = _sum_parts(partials.gate_bias, at, mask, counts[1], sizes[2], C_B)
        tl.store(grads.gate_bias + at, rounded(dbias, grads.gate_bias.dtype.element_ty), mask=mask)
