"""The trainer's random stream, as nalu_kernels/sweep/stream.py defines it, bit for bit.

Sources: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32, seven
rounds); Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators" (xoshiro128+);
Wichura 1988, algorithm AS 241 (PPND16).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ..sweep import stream
from . import maths

_SHUFFLE = tl.constexpr(stream.SHUFFLE)
_CENTRE = tl.constexpr(stream.CENTRE)
_MIDDLE = tl.constexpr(stream.MIDDLE)
_TAIL = tl.constexpr(stream.TAIL)


@triton.jit
def words(seed, stream, step, rows):
    """Four words for each of ``rows``; ``step`` is one for all, or one for each."""
    zero = rows * 0
    key0 = zero + seed.to(tl.uint32)
    key1 = zero + (seed >> 32).to(tl.uint32)
    c0 = rows
    c1 = zero + step.to(tl.uint32)
    c2 = zero + (step >> 32).to(tl.uint32)
    c3 = zero + stream
    for _ in tl.static_range(7):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0 = high1 ^ c1 ^ key0
        c1 = low1
        c2 = high0 ^ c3 ^ key1
        c3 = low0
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def generator(seed, stream, step, rows):
    """The state of each row's generator before its first column."""
    s0, s1, s2, s3 = words(seed, stream, step, rows)
    return s0, s1, s2, tl.where((s0 | s1 | s2 | s3) == 0, 1, s3).to(tl.uint32)


@triton.jit
def following(s0, s1, s2, s3):
    """24 random bits for each row, and the state after them."""
    bits = (s0 + s3) >> 8
    t = s1 << 9
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    return bits, s0, s1, s2, (s3 << 11) | (s3 >> 21)


@triton.jit
def unit_interval(bits, C: tl.constexpr):
    """u in [0, 1), exactly."""
    return bits.to(C) * (2.0**-24)


@triton.jit
def _ratio(r, POLYNOMIALS: tl.constexpr):
    above = tl.full(r.shape, POLYNOMIALS[0][0], tl.float64)
    below = tl.full(r.shape, POLYNOMIALS[1][0], tl.float64)
    for k in tl.static_range(1, 8):
        above = above * r + POLYNOMIALS[0][k]
        below = below * r + POLYNOMIALS[1][k]
    return above / below


@triton.jit
def quantile(p):
    """The inverse of the normal distribution's function, in float64."""
    q = p - 0.5
    centre = q * _ratio(0.180625 - q * q, _CENTRE)
    r = tl.sqrt(-tl.log(tl.where(q < 0, p, 1.0 - p)))
    tail = tl.where(r <= 5, _ratio(r - 1.6, _MIDDLE), _ratio(r - 5, _TAIL))
    return tl.where(tl.abs(q) <= 0.425, centre, tl.where(q < 0, -tail, tail))


class Constants(NamedTuple):
    """Of a uniform distribution its parts' low and high, the same twice for one part; of a normal
    one mean, standard deviation, p_low, p_width, least and most. In float64."""

    c0: Any
    c1: Any
    c2: Any
    c3: Any
    c4: Any
    c5: Any


@triton.jit
def load_constants(at):
    return Constants(
        tl.load(at),
        tl.load(at + 1),
        tl.load(at + 2),
        tl.load(at + 3),
        tl.load(at + 4),
        tl.load(at + 5),
    )


@triton.jit
def number(bits, constants, NORMAL: tl.constexpr, TWO_PARTS: tl.constexpr, C: tl.constexpr):
    """An input, distributed as the training's are: each operation is rounded."""
    if NORMAL:
        mean, deviation, p_low, p_width, least, most = constants
        middle = unit_interval(bits, tl.float64) + 2.0**-25
        p = p_low + maths.product(p_width, middle)
        x = mean + maths.product(deviation, quantile(p))
        return tl.where(x < least, least, tl.where(x > most, most, x)).to(C)
    else:
        low, width = constants.c0.to(C), constants.c1.to(C) - constants.c0.to(C)
        u = unit_interval(bits, C)
        if TWO_PARTS:
            low_2, width_2 = constants.c2.to(C), constants.c3.to(C) - constants.c2.to(C)
            u = u * 2.0
            second = u >= 1.0
            u = tl.where(second, u - 1.0, u)
            low, width = tl.where(second, low_2, low), tl.where(second, width_2, width)
        return low + maths.product(width, u)


@triton.jit
def _mix(x):
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def _network(place, k0, k1, k2, k3, half):
    """Four Feistel rounds on the two halves of a place's bits."""
    mask = ((place * 0 + 1) << half) - 1
    left = place >> half
    right = place & mask
    for r in tl.static_range(4):
        key = k0 if r == 0 else k1 if r == 1 else k2 if r == 2 else k3
        mixed = _mix(right.to(tl.uint32) + key).to(tl.int64) & mask
        left, right = right, left ^ mixed
    return (left << half) | right


@triton.jit
def shuffled(seed, sample, size, half):
    """Which of a table's ``size`` rows each sample of the training is; ``half``: of the bits that a
    row's number has."""
    epoch = sample // size
    k0, k1, k2, k3 = words(seed, _SHUFFLE, epoch, (sample * 0).to(tl.uint32))
    place = _network(sample % size, k0, k1, k2, k3, half)
    while tl.max(place) >= size:
        place = tl.where(place < size, place, _network(place, k0, k1, k2, k3, half))
    return place


@triton.jit(do_not_specialize=["stream", "step", "rows", "columns"])
def draw_kernel(
    seeds, to, stream, step: tl.int64, rows: tl.int64, columns: tl.int64, BLOCK: tl.constexpr
):
    """u's of a seed, for a block of rows."""
    run = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = to + (run * rows + row) * columns
    state = generator(tl.load(seeds + run), stream, step, row.to(tl.uint32))
    s0, s1, s2, s3 = state
    for column in range(columns):
        bits, s0, s1, s2, s3 = following(s0, s1, s2, s3)
        tl.store(at + column, unit_interval(bits, tl.float32), mask=row < rows)
