"""[x, h] of a step: read as ``Columns``, and their gradients written.

What has a product over its columns reads each of them by itself; an NMU reads nothing else.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .conversions import compute_type, rounded
from .loads import load
from .unroll_forms import Columns


@triton.jit
def wide(number):
    """With 64 bits, for offsets beyond 2^31."""
    return tl.full([], number, tl.int64)


@triton.jit
def _column(j):
    """As the number of one column alone, in the place of ``Block.k``."""
    return tl.full([1, 1], j, tl.int32)


@triton.jit
def _load_x(sequence, block, t, k, CELL: tl.constexpr):
    """The columns k of x for step t; 0 in the others, and behind a row's end."""
    mask = (t < block.length) & (k < CELL.I)
    x = sequence.x + (wide(t) * sequence.x_step + block.first * sequence.x_row)
    at = block.r.to(tl.int64) * sequence.x_row + k.to(tl.int64) * sequence.x_col
    return load(x + at, mask, compute_type(sequence.x))


@triton.jit
def x_columns(sequence, block, t, CELL: tl.constexpr):
    """``Columns`` of step t, without the state."""
    COUNT: tl.constexpr = CELL.I + CELL.H
    tile = tl.zeros([1, 1], compute_type(sequence.x))
    each = ()
    if CELL.layer != "nmu":
        tile = _load_x(sequence, block, t, block.k, CELL)
    if CELL.factor != "":
        for j in tl.static_range(COUNT):
            x = _load_x(sequence, block, t, _column(j), CELL)
            each = each + (x,)  # type: ignore[assignment]  # noqa: RUF005
    return Columns(tile, each)


@triton.jit
def _state_columns(block, k, CELL: tl.constexpr):
    """Of the columns k of [x, h]: where a row's states lie from those of the block's first on, and
    which columns have one."""
    h = k - CELL.I
    return block.r * CELL.H + h, block.exist & (h >= 0) & (h < CELL.H)


@triton.jit
def begins(sequence, block, t):
    """The rows whose state is hx again before step t, if they take it."""
    anew = block.length < 0
    if sequence.reset is not None:
        marks = sequence.reset + (wide(t) * sequence.B + block.first) + block.r
        anew = tl.load(marks, mask=t < block.length, other=0) != 0
    return anew


@triton.jit
def _with_state(x, before, sequence, block, anew, t, k, CELL: tl.constexpr):
    at, has = _state_columns(block, k, CELL)
    going = t < block.length
    columns = x + load(before + at, has & going & ~anew, x.dtype)
    if sequence.hx is not None:
        hx = sequence.hx + block.first * CELL.H
        columns += load(hx + at, has & going & anew, x.dtype)
    return tl.where((k < CELL.I + CELL.H) & ~going, 1.0, columns)


@triton.jit
def with_states(x, before, sequence, block, t, CELL: tl.constexpr):
    """``Columns`` of step t, of x and the block's states ``before`` it."""
    COUNT: tl.constexpr = CELL.I + CELL.H
    anew = begins(sequence, block, t) | (t == 0)
    tile = x.tile
    each = ()
    if CELL.layer != "nmu":
        tile = _with_state(x.tile, before, sequence, block, anew, t, block.k, CELL)
    if CELL.factor != "":
        for j in tl.static_range(COUNT):
            one = _with_state(x.each[j], before, sequence, block, anew, t, _column(j), CELL)
            each = each + (one,)  # type: ignore[assignment]  # noqa: RUF005
    return Columns(tile, each)


@triton.jit
def _store_some_x(dx, d, sequence, block, t, k, CELL: tl.constexpr):
    """The columns k of x, in step t; 0 behind a row's end."""
    step = dx + (wide(t) * sequence.B + block.first) * CELL.I
    mask = block.exist & (k < CELL.I)
    d = rounded(tl.where(t < block.length, d, 0.0), dx.dtype.element_ty)
    tl.store(step + (block.r * CELL.I + k), d, mask=mask)


@triton.jit
def store_x(dx, d, sequence, block, t, CELL: tl.constexpr):
    """Of ``Columns``."""
    COUNT: tl.constexpr = CELL.I
    if CELL.layer == "nmu":
        for j in tl.static_range(COUNT):
            _store_some_x(dx, d.each[j], sequence, block, t, _column(j), CELL)
    else:
        _store_some_x(dx, d.tile, sequence, block, t, block.k, CELL)


@triton.jit
def store_no_x(dx, sequence, block, t, CELL: tl.constexpr):
    """0 in a step behind all rows' ends."""
    ROWS: tl.constexpr = CELL.rows
    COLUMNS: tl.constexpr = CELL.columns
    nothing = tl.zeros([ROWS, COLUMNS], compute_type(sequence.x))
    _store_some_x(dx, nothing, sequence, block, t, block.k, CELL)


@triton.jit
def _store_some_states(carried, d, block, t, k, CELL: tl.constexpr):
    """The columns k of [x, h] that are states', for the step before."""
    at, has = _state_columns(block, k, CELL)
    tl.store(carried + at, d, mask=has & (t < block.length))


@triton.jit
def store_states(carried, d, block, t, CELL: tl.constexpr):
    """Of ``Columns``."""
    COUNT: tl.constexpr = CELL.H
    if CELL.layer == "nmu":
        for h in tl.static_range(COUNT):
            _store_some_states(carried, d.each[CELL.I + h], block, t, _column(CELL.I + h), CELL)
    else:
        _store_some_states(carried, d.tile, block, t, block.k, CELL)
