"""A step of a RealNPU's cell, on tiles: the formulas of ``power``."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths, power
from .products import product


@triton.jit
def values(x, there, weights, eps, CELL: tl.constexpr):
    """y, y with the sine in place of the cosine, log r and k; the last two are 0 where there is no
    column."""
    PRODUCT: tl.constexpr = CELL.product
    C: tl.constexpr = x.dtype
    ROWS: tl.constexpr = CELL.rows
    STATES: tl.constexpr = CELL.states
    nothing = tl.zeros([ROWS, STATES], C)
    log, k = power.planes(x, weights.G, tl.full([1, 1], eps, C))
    log, k = tl.where(there, log, 0.0), tl.where(there, k, 0.0)
    size = maths.exp(product(log, tl.trans(weights.W), nothing, PRODUCT))
    sine, cosine = maths.sine_cosine(product(k, tl.trans(weights.W), nothing, PRODUCT))
    return size * cosine, size * sine, log, k


@triton.jit
def gradients(dy, x, going, counts, found, weights, sums, parts, eps, CELL: tl.constexpr):
    """From dy to dx; and the sums of the weights' and the gate's with this step's."""
    PRODUCT: tl.constexpr = CELL.product
    C: tl.constexpr = x.dtype
    of_size, of_angle = power.through_cosine(dy, found.y, found.m)
    of_size, of_angle = tl.where(counts, of_size, 0.0), tl.where(counts, of_angle, 0.0)
    nothing = tl.zeros(x.shape, C)
    of_log = product(of_size, weights.W, nothing, PRODUCT)
    of_k = nothing
    if parts.G is not None:
        of_k = product(of_angle, weights.W, nothing, PRODUCT)
    dx, of_gate = power.through_planes(of_log, of_k, x, weights.G, tl.full([1, 1], eps, C))
    dW, dG = sums.W, sums.G
    if parts.W is not None:
        dW = product(tl.trans(of_size), found.L, dW, PRODUCT)
        dW = product(tl.trans(of_angle), found.a, dW, PRODUCT)
    if parts.G is not None:
        dG += tl.where(going, of_gate, 0.0)
    return dx, dW, dG
