"""The layers whose output is a product over the inputs: forward, and all gradients.

A program has a tile of y, outputs along its columns, in registers and takes one input after the
other. Nothing is divided by a factor: the product of the others is that of those before it and of
those behind it, so that factors of 0 are like any others.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import factors, maths, metadata
from .conversions import compute_type, rounded
from .grad_weights import sum_parts
from .loads import dense, indices, load, tile_indices, tiles
from .units import batch_of_unit, of_unit


@triton.jit(launch_metadata=metadata.reduction)
def reduction_kernel(
    batch, W, y, saved, eps: tl.float64, units, LAYER: tl.constexpr, TILE: tl.constexpr
):
    """A tile of y, [B, O]. Of an NMRU ``saved``, if not None, receives what its backward takes: the
    cosine, and the product times the sine."""
    if len(units) > 0:
        batch = batch_of_unit(batch, units.batch)
        W, y, saved = of_unit(W, units.W), of_unit(y, units.y), of_unit(saved, units.saved)
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    C: tl.constexpr = compute_type(batch.x)
    B, I, O = batch.B, batch.I, batch.O  # noqa: E741
    columns = 2 * I if LAYER == "nmru" else I
    _, _, rows, cols = tile_indices(tl.program_id(0), B, O, TILE)
    rows, cols = rows[:, None], cols[None, :]
    shift = tl.full([1, 1], eps, C)
    product = tl.full([ROWS, COLS], 1.0, C)
    angle = tl.zeros([ROWS, COLS], C)
    for j in range(0, columns):
        input = factors.load_input(batch, rows, j, columns, shift, LAYER)
        terms = factors.load_terms(W, cols, j, O, columns, C, LAYER)
        product *= factors.value(input, terms, LAYER)
        if LAYER == "nmru":
            angle += input.other * terms.w
    at, mask = dense(rows, cols, B, O)
    if LAYER == "nmru":
        sine, cosine = maths.sine_cosine(angle)
        if saved is not None:
            plane = tl.full([1, 1], B, tl.int64) * O
            tl.store(saved + at, cosine, mask=mask)
            tl.store(saved + plane + at, product * sine, mask=mask)
        product *= cosine
    tl.store(y + at, rounded(product, y.dtype.element_ty), mask=mask)


@triton.jit
def _upstream(batch, rows, cols, LAYER: tl.constexpr):
    """A tile of the product's gradient and of the angle's."""
    C: tl.constexpr = compute_type(batch.dy)
    at, mask = dense(rows, cols, batch.B, batch.O)
    d = load(batch.dy + (rows * batch.dy_row + cols * batch.dy_col), mask, C)
    if LAYER == "nmru":
        plane = tl.full([1, 1], batch.B, tl.int64) * batch.O
        cosine = tl.load(batch.saved + at, mask=mask, other=0.0)
        sine = tl.load(batch.saved + plane + at, mask=mask, other=0.0)
        return d * cosine, -(d * sine)
    elif LAYER == "inalu":
        plane = tl.full([1, 1], batch.B, tl.int64) * batch.O
        m = tl.load(batch.saved + plane + at, mask=mask, other=0.0)
        g = tl.load(batch.saved + 3 * plane + at, mask=mask, other=0.0)
        return maths.grad_sign(d, m, g), d
    else:
        return d, d


@triton.jit(launch_metadata=metadata.reduction_gradient)
def reduction_gradient_kernel(
    batch,
    W,
    scratch,
    W_parts,
    x_parts,
    split_tiles,
    eps: tl.float64,
    units,
    LAYER: tl.constexpr,
    TILE: tl.constexpr,
):
    """The sums that gradients are made of, for a column of tiles of y and a split of the batch,
    ``split_tiles`` of its rows.

    Inputs are taken in blocks of ``TILE.depth``. ``scratch``, None for one block, keeps the product
    of the factors before each block; those before each input of a block are made again from it.
    ``W_parts``, [splits, columns of W, O], receives the sums over rows, ``x_parts``, [parts, I, B],
    those over columns: an NMRU's reciprocals are parts of their own.
    """
    if len(units) > 0:
        batch, W = batch_of_unit(batch, units.batch), of_unit(W, units.W)
        scratch = of_unit(scratch, units.scratch)
        W_parts, x_parts = of_unit(W_parts, units.W_parts), of_unit(x_parts, units.x_parts)
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    SIZE: tl.constexpr = ROWS * COLS
    C: tl.constexpr = compute_type(batch.x)
    DEPTH: tl.constexpr = TILE.depth
    B, I, O = batch.B, batch.I, batch.O  # noqa: E741
    columns = 2 * I if LAYER == "nmru" else I
    blocks = tiles(columns, DEPTH)
    col, split = tl.program_id(0), tl.program_id(1).to(tl.int64)
    cols = indices(col, TILE.cols)[None, :]
    shift = tl.full([1, 1], eps, C)
    if scratch is not None:
        within = tl.arange(0, ROWS)[:, None] * COLS + tl.arange(0, COLS)[None, :]
        scratch += (split * tl.num_programs(0) + col) * blocks * SIZE + within
    first = split * split_tiles
    for row in range(first, tl.minimum(first + split_tiles, tiles(B, ROWS))):
        rows = indices(tl.full([], row, tl.int64), ROWS)[:, None]
        mask = (rows < B) & (cols < O)
        behind, of_angle = _upstream(batch, rows, cols, LAYER)
        before = tl.full([ROWS, COLS], 1.0, C)
        if scratch is not None:
            for block in range(0, blocks):
                tl.store(scratch + tl.full([1, 1], block, tl.int64) * SIZE, before)
                for k in range(0, DEPTH):
                    j = block * DEPTH + k
                    input = factors.load_input(batch, rows, j, columns, shift, LAYER)
                    terms = factors.load_terms(W, cols, j, O, columns, C, LAYER)
                    before *= factors.value(input, terms, LAYER)
            tl.debug_barrier()
        for n in range(0, blocks):
            block = blocks - 1 - n
            if scratch is not None:
                before = tl.load(scratch + tl.full([1, 1], block, tl.int64) * SIZE)
            befores = ()
            for k in tl.static_range(DEPTH):
                befores = befores + (before,)  # type: ignore[assignment]  # noqa: RUF005
                j = block * DEPTH + k
                input = factors.load_input(batch, rows, j, columns, shift, LAYER)
                terms = factors.load_terms(W, cols, j, O, columns, C, LAYER)
                before *= factors.value(input, terms, LAYER)
            for back in tl.static_range(DEPTH):
                j = block * DEPTH + DEPTH - 1 - back
                input = factors.load_input(batch, rows, j, columns, shift, LAYER)
                terms = factors.load_terms(W, cols, j, O, columns, C, LAYER)
                grad = behind * befores[DEPTH - 1 - back]
                if W_parts is not None:
                    slope = factors.grad_weight(grad, input, terms, LAYER)
                    if LAYER == "nmru":
                        slope += of_angle * input.other
                    dW = tl.sum(tl.where(mask, slope, 0.0), axis=0)[None, :]
                    at = W_parts + (split * columns + j) * O + cols
                    W_mask = (cols < O) & (j < columns)
                    if row > first:
                        dW += tl.load(at, mask=W_mask, other=0.0)
                    tl.store(at, dW, mask=W_mask)
                if x_parts is not None:
                    slope = tl.where(mask, factors.grad_input(grad, input, terms, LAYER), 0.0)
                    dx = factors.through_X(tl.sum(slope, axis=1)[:, None], input, j, I, LAYER)
                    # Part and input are one number: an NMRU's reciprocals come after its inputs.
                    at = x_parts + (col.to(tl.int64) * columns + j) * B + rows
                    tl.store(at, dx, mask=(rows < B) & (j < columns))
                behind *= factors.value(input, terms, LAYER)
        tl.debug_barrier()


@triton.jit
def _finish(parts, grad, program, count, height, width, BLOCK: tl.constexpr):
    """A stretch of grad, [height, width], of ``count`` parts of [width, height]: their sum, always
    in the same order."""
    if grad is not None:
        at = indices(program, BLOCK)
        mask = at < height * width
        row, column = at // tl.maximum(width, 1), at % tl.maximum(width, 1)
        at_part = column * height + row
        total = sum_parts(parts, at_part, mask, count, height * width)
        tl.store(grad + at, rounded(total, grad.dtype.element_ty), mask=mask)


@triton.jit(launch_metadata=metadata.finish_reduction)
def finish_reduction_kernel(
    batch, W_parts, dW, x_parts, dx, splits, x_count, columns, units, BLOCK: tl.constexpr
):
    """The gradients of what ``reduction_gradient_kernel`` leaves."""
    if len(units) > 0:
        W_parts, dW = of_unit(W_parts, units.W_parts), of_unit(dW, units.dW)
        x_parts, dx = of_unit(x_parts, units.x_parts), of_unit(dx, units.dx)
    program = tl.program_id(0)
    _finish(W_parts, dW, program, splits, tl.full([], batch.O, tl.int64), columns, BLOCK)
    _finish(x_parts, dx, program, x_count, tl.full([], batch.B, tl.int64), batch.I, BLOCK)
