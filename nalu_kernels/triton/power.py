"""A neural power unit's kernels:

    r = gate (|x| + eps) + 1 - gate, k = pi gate where x < 0 and else 0, for g clamped to [0, 1],
    y = exp(log(r) W_re^T - k W_im^T) cos(k W_re^T + log(r) W_im^T).

Source: Heim, Pevny and Smidl 2020, "Neural Power Units"; of a RealNPU, W_im is 0, and None here.
All products are sums of the compute type, by multiply-add.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import maths, metadata
from .conversions import compute_type, rounded
from .grad_weights import sum_parts
from .loads import dense, indices, load, tile_indices
from .products import product
from .units import batch_of_unit, of_unit

_PI = tl.constexpr(math.pi)


class Powers(NamedTuple):
    """The layer's parameters, their gradients or these gradients' parts; None: there is none."""

    W_re: Any = None
    g: Any = None
    W_im: Any = None


@triton.jit
def powers_of_unit(powers, strides):
    return Powers(
        of_unit(powers.W_re, strides.W_re),
        of_unit(powers.g, strides.g),
        of_unit(powers.W_im, strides.W_im),
    )


@triton.jit
def clamped(g):
    """The gate, within [0, 1]; a NaN passes."""
    return tl.where(g < 0, 0.0, tl.where(g > 1, 1.0, g))


@triton.jit
def planes(x, gate, shift):
    """log r and k"""
    log = tl.log(gate * (tl.abs(x) + shift) + (1.0 - gate))
    return log, gate * _angle(x)


@triton.jit
def _angle(x):
    """pi where x is negative."""
    return tl.where(x < 0, tl.full([1, 1], _PI, x.dtype), 0.0)


@triton.jit
def through_planes(of_log, of_k, x, gate, shift):
    """From log r and k to x and to the gate."""
    size = tl.abs(x) + shift
    of_r = maths.quotient_of_any(of_log, gate * size + (1.0 - gate))
    return (of_r * gate) * maths.sign(x), of_r * size - of_r + of_k * _angle(x)


@triton.jit
def through_cosine(d, y, other):
    """From y to the logarithm of the size and to the angle; ``other`` is y with the sine."""
    return d * y, -(d * other)


@triton.jit
def _load_x(batch, b, i, mask, C: tl.constexpr):
    return load(batch.x + (b * batch.x_row + i.to(tl.int64) * batch.x_col), mask, C)


@triton.jit
def _planes(batch, g, b, i, end, shift):
    """Tiles of log r and of k, rows b before ``end``; 0 outside of the tensor."""
    C: tl.constexpr = shift.dtype
    mask = (b < end) & (i < batch.I)
    x = _load_x(batch, b, i, mask, C)
    log, angle = planes(x, clamped(load(g + i, i < batch.I, C)), shift)
    return tl.where(mask, log, 0.0), tl.where(mask, angle, 0.0)


@triton.jit
def _gradients(batch, b, o, end):
    """Tiles of the gradients of the size's logarithm and of the angle, rows b before ``end``."""
    C: tl.constexpr = compute_type(batch.dy)
    mask = (b < end) & (o < batch.O)
    d = load(batch.dy + (b * batch.dy_row + o.to(tl.int64) * batch.dy_col), mask, C)
    at = batch.saved + (b * batch.O + o)
    plane = tl.full([1, 1], batch.B, tl.int64) * batch.O
    cosine = tl.load(at, mask=mask, other=0.0)
    sine = tl.load(at + plane, mask=mask, other=0.0)
    return through_cosine(d, cosine, sine)


@triton.jit(launch_metadata=metadata.power)
def power_kernel(batch, weights, y, saved, eps: tl.float64, units, TILE: tl.constexpr):
    """A tile of y, [B, O]. ``saved``, if not None, receives what the backward takes: y, and the
    same with the sine, in the compute type."""
    if len(units) > 0:
        batch = batch_of_unit(batch, units.batch)
        weights = powers_of_unit(weights, units.weights)
        y, saved = of_unit(y, units.y), of_unit(saved, units.saved)
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    C: tl.constexpr = compute_type(batch.x)
    B, I, O = batch.B, batch.I, batch.O  # noqa: E741
    _, _, rows, cols = tile_indices(tl.program_id(0), B, O, TILE)
    shift = tl.full([1, 1], eps, C)
    size = tl.zeros([ROWS, COLS], C)
    angle = tl.zeros([ROWS, COLS], C)
    for start in range(0, I, TILE.depth):
        i = start + tl.arange(0, TILE.depth)
        log, k = _planes(batch, weights.g, rows[:, None], i[None, :], B, shift)
        at, mask = dense(cols[None, :], i[:, None], O, I)
        W_re = load(weights.W_re + at, mask, C)
        size = product(log, W_re, size, "ieee")
        angle = product(k, W_re, angle, "ieee")
        if weights.W_im is not None:
            W_im = load(weights.W_im + at, mask, C)
            size = product(-k, W_im, size, "ieee")
            angle = product(log, W_im, angle, "ieee")
    size = maths.exp(size)
    sine, cosine = maths.sine_cosine(angle)
    at, mask = dense(rows[:, None], cols[None, :], B, O)
    if saved is not None:
        plane = tl.full([1, 1], B, tl.int64) * O
        tl.store(saved + at, size * cosine, mask=mask)
        tl.store(saved + plane + at, size * sine, mask=mask)
    tl.store(y + at, rounded(size * cosine, y.dtype.element_ty), mask=mask)


@triton.jit(launch_metadata=metadata.power_grad_input)
def power_grad_input_kernel(
    batch, weights, dx, g_parts, eps: tl.float64, units, TILE: tl.constexpr
):
    """A tile of dx, [B, I], and its rows' share of the gate's gradient."""
    if len(units) > 0:
        batch = batch_of_unit(batch, units.batch)
        weights = powers_of_unit(weights, units.weights)
        dx, g_parts = of_unit(dx, units.dx), of_unit(g_parts, units.g_parts)
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    C: tl.constexpr = compute_type(batch.x)
    B, I, O = batch.B, batch.I, batch.O  # noqa: E741
    row, _, rows, cols = tile_indices(tl.program_id(0), B, I, TILE)
    of_log = tl.zeros([ROWS, COLS], C)
    of_k = tl.zeros([ROWS, COLS], C)
    for start in range(0, O, TILE.depth):
        o = start + tl.arange(0, TILE.depth)
        of_size, of_angle = _gradients(batch, rows[:, None], o[None, :], B)
        at, mask = dense(o[:, None], cols[None, :], O, I)
        W_re = load(weights.W_re + at, mask, C)
        of_log = product(of_size, W_re, of_log, "ieee")
        if g_parts is not None:
            of_k = product(of_angle, W_re, of_k, "ieee")
        if weights.W_im is not None:
            W_im = load(weights.W_im + at, mask, C)
            of_log = product(of_angle, W_im, of_log, "ieee")
            if g_parts is not None:
                of_k = product(-of_size, W_im, of_k, "ieee")

    mask = (rows[:, None] < B) & (cols[None, :] < I)
    x = _load_x(batch, rows[:, None], cols[None, :], mask, C)
    gate = clamped(load(weights.g + cols, cols < I, C))[None, :]
    of_x, of_gate = through_planes(of_log, of_k, x, gate, tl.full([1, 1], eps, C))
    if dx is not None:
        at = rows[:, None] * I + cols[None, :]
        tl.store(dx + at, rounded(of_x, dx.dtype.element_ty), mask=mask)
    if g_parts is not None:
        sums = tl.sum(tl.where(mask, of_gate, 0.0), axis=0)
        tl.store(g_parts + row.to(tl.int64) * I + cols, sums, mask=cols < I)


@triton.jit(launch_metadata=metadata.power_grad_weights)
def power_grad_weights_kernel(
    batch, weights, parts, split_rows, eps: tl.float64, units, TILE: tl.constexpr
):
    """A tile of the sums over one part of the batch of the gradients of W_re and W_im, [O, I]."""
    if len(units) > 0:
        batch = batch_of_unit(batch, units.batch)
        weights = powers_of_unit(weights, units.weights)
        parts = powers_of_unit(parts, units.parts)
    ROWS: tl.constexpr = TILE.rows
    COLS: tl.constexpr = TILE.cols
    C: tl.constexpr = compute_type(batch.x)
    I, O = batch.I, batch.O  # noqa: E741
    _, _, rows, cols = tile_indices(tl.program_id(0), O, I, TILE)
    split = tl.program_id(1).to(tl.int64)
    first = split * split_rows
    last = tl.minimum(first + split_rows, batch.B)
    shift = tl.full([1, 1], eps, C)
    re = tl.zeros([ROWS, COLS], C)
    im = tl.zeros([ROWS, COLS], C)
    for start in range(first, last, TILE.depth):
        b = start + tl.arange(0, TILE.depth).to(tl.int64)
        of_size, of_angle = _gradients(batch, b[None, :], rows[:, None], last)
        log, k = _planes(batch, weights.g, b[:, None], cols[None, :], last, shift)
        if parts.W_re is not None:
            re = product(of_size, log, re, "ieee")
            re = product(of_angle, k, re, "ieee")
        if parts.W_im is not None:
            im = product(of_angle, log, im, "ieee")
            im = product(-of_size, k, im, "ieee")
    at, mask = dense(rows[:, None], cols[None, :], O, I)
    at += split * O * I
    if parts.W_re is not None:
        tl.store(parts.W_re + at, re, mask=mask)
    if parts.W_im is not None:
        tl.store(parts.W_im + at, im, mask=mask)


@triton.jit(launch_metadata=metadata.finish_power)
def finish_power_kernel(
    batch, g, parts, grads, splits, row_tiles, units, PASSES: tl.constexpr, BLOCK: tl.constexpr
):
    """The sums of the parts, always in the same order. ``PASSES``: the gate's clamp passes its
    gradient even where it holds."""
    if len(units) > 0:
        g = of_unit(g, units.g)
        parts = powers_of_unit(parts, units.parts)
        grads = powers_of_unit(grads, units.grads)
    at = indices(tl.program_id(0), BLOCK)
    size = tl.full([], batch.O, tl.int64) * batch.I
    if grads.W_re is not None:
        total = sum_parts(parts.W_re, at, at < size, splits, size)
        tl.store(grads.W_re + at, rounded(total, grads.W_re.dtype.element_ty), mask=at < size)
    if grads.W_im is not None:
        total = sum_parts(parts.W_im, at, at < size, splits, size)
        tl.store(grads.W_im + at, rounded(total, grads.W_im.dtype.element_ty), mask=at < size)
    if grads.g is not None:
        mask = at < batch.I
        total = sum_parts(parts.g, at, mask, row_tiles, batch.I)
        if not PASSES:
            gate = load(g + at, mask, total.dtype)
            total = tl.where((gate >= 0) & (gate <= 1), total, 0.0)
        tl.store(grads.g + at, rounded(total, grads.g.dtype.element_ty), mask=mask)
