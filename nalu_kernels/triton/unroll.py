"""A recurrent cell over the steps of a sequence, h' = layer([x, h]): the loop is in the launch.

A program takes a block of rows through all steps. The states lie in global memory, where each step
reads what the one before it wrote: they are the result, or few enough for the caches. No other
program touches them. Rows behind their end take a step on ones, and what comes of it is dropped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .conversions import compute_type, rounded
from .loads import load, tiles
from .unroll_columns import begins, store_no_x, store_states, store_x, wide, with_states, x_columns
from .unroll_step import gradients, matrices, no_sums, store_sums, values


class Sequence(NamedTuple):
    """What the kernels read beside the weights: x, [T, B, I] with strides; hx, [B, H], and
    ``lengths``, [B], and ``reset``, [T, B], all dense; None for zeros, for T and for nowhere."""

    T: Any
    B: Any
    x: Any
    x_step: Any
    x_row: Any
    x_col: Any
    hx: Any
    lengths: Any
    reset: Any


class Upstream(NamedTuple):
    """What a backward reads beside: dy with strides, of the last state alone those of one step; and
    the states: all, or every so many that the forward kept. ``between`` is room for the states
    between two of these, ``carried`` and ``of_start``, [B, H], for gradients on their way: of the
    state before a step, and of the first state."""

    dy: Any
    dy_step: Any
    dy_row: Any
    dy_col: Any
    states: Any
    between: Any
    carried: Any
    of_start: Any


class Block(NamedTuple):
    """Rows of the batch from ``first`` on: their numbers ``r`` in the block, whether they
    ``exist``, after how many steps each ends, and the last of them; and the columns: ``k`` counts x
    and h, ``o`` h. Where something lies is a number for the block and a short one for each element,
    which takes half the registers of a whole one."""

    first: Any
    r: Any
    exist: Any
    length: Any
    longest: Any
    k: Any
    o: Any


@triton.jit
def _block(sequence, number, CELL: tl.constexpr):
    first = wide(number) * CELL.rows
    r = tl.arange(0, CELL.rows)[:, None]
    exist = r < sequence.B - first
    longest = tl.full([], sequence.T, tl.int32)
    length = tl.where(exist, longest, 0)
    if sequence.lengths is not None:
        length = tl.load(sequence.lengths + first + r, mask=exist, other=0).to(tl.int32)
        longest = tl.max(tl.max(length, axis=1), axis=0)
    k = tl.arange(0, CELL.columns)[None, :]
    return Block(first, r, exist, length, longest, k, tl.arange(0, CELL.states)[None, :])


@triton.jit
def _step(columns, block, w, eps, C: tl.constexpr, CELL: tl.constexpr):
    return values(columns, block.k < CELL.I + CELL.H, w, eps, C, CELL)


@triton.jit
def _own(block, CELL: tl.constexpr):
    """A block's states: where they lie from the first on, and which exist."""
    return block.r * CELL.H + block.o, block.exist & (block.o < CELL.H)


@triton.jit
def _copy(source, to, block, CELL: tl.constexpr):
    """A block's states of [B, H]; None stands for zeros."""
    at, has = _own(block, CELL)
    at += block.first * CELL.H
    state = tl.zeros(at.shape, to.dtype.element_ty)
    if source is not None:
        state = tl.load(source + at, mask=has, other=0.0)
    tl.store(to + at, state, mask=has)


@triton.jit
def unroll_kernel(sequence, weights, output, saved, stretch, eps: tl.float64, CELL: tl.constexpr):
    """All states, [T, B, H], or the last alone, [B, H]: then ``saved``, if not None, receives that
    before each step whose number is a multiple of ``stretch``."""
    C: tl.constexpr = compute_type(sequence.x)
    S: tl.constexpr = output.dtype.element_ty
    block = _block(sequence, tl.program_id(0), CELL)
    plane = wide(sequence.B) * CELL.H
    at, has = _own(block, CELL)
    own = output + block.first * CELL.H
    w = matrices(weights, C, CELL)
    if CELL.last_only:
        _copy(sequence.hx, output, block, CELL)
        tl.debug_barrier()
    x = x_columns(sequence, block, block.longest * 0, CELL)
    for t in range(block.longest * 0, block.longest):
        before = own if CELL.last_only else own + (t - 1) * plane
        if saved is not None:  # noqa: SIM102 - which the compiler knows, and not the rest
            if t % stretch == 0:
                _copy(output, saved + t // stretch * plane, block, CELL)
        columns = with_states(x, before, sequence, block, t, CELL)
        x = x_columns(sequence, block, t + 1, CELL)  # while this step computes
        y = rounded(_step(columns, block, w, eps, C, CELL).y, S)
        going = t < block.length
        if CELL.last_only:
            tl.debug_barrier()  # all have read what is written
            tl.store(own + at, y, mask=has & going)
        else:
            tl.store(own + t * plane + at, tl.where(going, y, 0.0).to(S), mask=has)
        tl.debug_barrier()
    if not CELL.last_only:
        for t in range(block.longest, sequence.T):
            tl.store(own + t * plane + at, tl.zeros(at.shape, S), mask=has)


@triton.jit
def _again(sequence, w, block, first, end, up, stretch, eps, CELL: tl.constexpr):
    """The states before the steps from ``first`` to ``end``, of the first of them, into
    ``between``."""
    C: tl.constexpr = compute_type(sequence.x)
    S: tl.constexpr = up.between.dtype.element_ty
    plane = wide(sequence.B) * CELL.H
    at, has = _own(block, CELL)
    _copy(up.states + first // stretch * plane, up.between, block, CELL)
    tl.debug_barrier()
    for t in range(first, end - 1):
        before = up.between + block.first * CELL.H + (t - first) * plane
        columns = with_states(x_columns(sequence, block, t, CELL), before, sequence, block, t, CELL)
        y = rounded(_step(columns, block, w, eps, C, CELL).y, S)
        tl.store(before + plane + at, y, mask=has)
        tl.debug_barrier()


@triton.jit
def _dy(up, block, t, mask):
    dy = up.dy + (wide(t) * up.dy_step + block.first * up.dy_row)
    at = block.r.to(tl.int64) * up.dy_row + block.o.to(tl.int64) * up.dy_col
    return load(dy + at, mask, up.carried.dtype.element_ty)


@triton.jit
def _step_back(
    t, before, sums, sequence, w, block, up, dx, parts, eps: tl.float64, CELL: tl.constexpr
):
    """From the gradients of the state after step t and of its output to those of x and of the state
    ``before``; and the weights' sums with this step's."""
    at, has = _own(block, CELL)
    going = t < block.length
    counts = has & going
    carried = up.carried + block.first * CELL.H
    dy = tl.load(carried + at, mask=counts, other=0.0)
    if sequence.reset is not None:  # before the step after this one the state began anew
        anew = begins(sequence, block, t + 1)
        of_start = up.of_start + block.first * CELL.H + at
        sum = tl.load(of_start, mask=counts & anew, other=0.0) + dy
        tl.store(of_start, sum, mask=counts & anew)
        dy = tl.where(anew, 0.0, dy)
    if not CELL.last_only:
        dy += _dy(up, block, t, counts)
    columns = with_states(x_columns(sequence, block, t, CELL), before, sequence, block, t, CELL)
    found = _step(columns, block, w, eps, dy.dtype, CELL)
    d, sums = gradients(dy, columns, going, counts, found, w, sums, parts, eps, CELL)
    if dx is not None:
        store_x(dx, d, sequence, block, t, CELL)
    tl.debug_barrier()  # all have read what is written
    store_states(carried, d, block, t, CELL)
    tl.debug_barrier()
    return sums


@triton.jit
def unroll_backward_kernel(
    sequence, weights, up, dx, dhx, parts, stretch, eps: tl.float64, CELL: tl.constexpr
):
    """dx, [T, B, I], and dhx, [B, H], if not None; and the sums over this program's blocks of rows
    of the gradients of W, W_mul, G and the bias, into its ``parts``."""
    C: tl.constexpr = compute_type(sequence.x)
    plane = wide(sequence.B) * CELL.H
    w = matrices(weights, C, CELL)
    sums = no_sums(C, CELL)
    for number in range(tl.program_id(0), tiles(sequence.B, CELL.rows), tl.num_programs(0)):
        block = _block(sequence, number, CELL)
        at, has = _own(block, CELL)
        own = block.first * CELL.H
        carried = tl.zeros(at.shape, C)
        if sequence.reset is not None:
            tl.store(up.of_start + own + at, carried, mask=has)
        if CELL.last_only:
            carried = _dy(up, block, 0, has)
        tl.store(up.carried + own + at, carried, mask=has)
        tl.debug_barrier()
        end = block.longest
        while end > 0:
            if CELL.last_only:
                first = (end - 1) // stretch * stretch
                before = up.between + own
                _again(sequence, w, block, first, end, up, stretch, eps, CELL)
            else:
                first = end * 0
                before = up.states + own - plane
            for back in range(first, end):
                t = end - 1 - (back - first)
                here = before + (t - first) * plane
                sums = _step_back(t, here, sums, sequence, w, block, up, dx, parts, eps, CELL)
            end = first
        if dx is not None:
            for t in range(block.longest, sequence.T):
                store_no_x(dx, sequence, block, t, CELL)
        if dhx is not None:
            of_first = tl.load(up.carried + own + at, mask=has, other=0.0)
            if sequence.reset is not None:
                of_first += tl.load(up.of_start + own + at, mask=has, other=0.0)
            tl.store(dhx + own + at, rounded(of_first, dhx.dtype.element_ty), mask=has)
    store_sums(sums, parts, CELL)
