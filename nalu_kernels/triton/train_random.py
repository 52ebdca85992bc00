"""The trainer's random stream, as nalu_kernels/sweep/stream.py defines it, bit for bit.

Sources: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32, seven
rounds); Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators" (xoshiro128+);
Wichura 1988, algorithm AS 241 (PPND16).
"""

from __future__ import annotations

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


@triton.jit
def number(bits, constants, FORM: tl.constexpr, C: tl.constexpr):
    """An input, distributed as the training's are."""
    if FORM.normal:
        mean = tl.load(constants)
        deviation = tl.load(constants + 1)
        p_low = tl.load(constants + 2)
        p_width = tl.load(constants + 3)
        least = tl.load(constants + 4)
        most = tl.load(constants + 5)
        p = p_low + maths.product(
            p_width + tl.zeros(bits.shape, tl.float64), bits.to(tl.float64) * (2.0**-24) + 2.0**-25
        )
        x = mean + maths.product(deviation + tl.zeros_like(p), quantile(p))
        return tl.where(x < least, least, tl.where(x > most, most, x)).to(C)
    else:
        low = tl.load(constants).to(C)
        width = tl.load(constants + 1).to(C) - low
        u = unit_interval(bits, C)
        if FORM.two_parts:
            low_2 = tl.load(constants + 2).to(C)
            width_2 = tl.load(constants + 3).to(C) - low_2
            u = u * 2.0
            second = u >= 1.0
            u = tl.where(second, u - 1.0, u)
            return tl.where(second, low_2, low) + maths.product(tl.where(second, width_2, width), u)
        else:
            return low + maths.product(width + tl.zeros_like(u), u)


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
