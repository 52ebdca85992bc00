"""A step of a recurrent cell, on tiles: the layer of a block's [x, h], and its gradients.

A tile of the columns is [rows, x and h], one of the outputs [rows, h]. Numbers: docs/triton.md.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths, power, unroll_factors, unroll_power
from .conversions import widened
from .grad_input import through_size
from .loads import load, log_tile, product_weight_tile, seen_by_gate, weight_tile
from .products import product
from .unroll_forms import Columns, Matrices, Sums, Values


@triton.jit
def _elements(o, k, CELL: tl.constexpr):
    """Of a matrix of weights, too small for offsets of 64 bits: where they are, and which exist."""
    width: tl.constexpr = CELL.I + CELL.H
    return o[:, None] * width + k[None, :], (o < CELL.H)[:, None] & (k < width)[None, :]


@triton.jit
def matrices(weights, C: tl.constexpr, CELL: tl.constexpr):
    """Of ``Weights``, or of an NPU's ``Powers``."""
    LAYER: tl.constexpr = CELL.layer
    width: tl.constexpr = CELL.I + CELL.H
    o = tl.arange(0, CELL.states)
    k = tl.arange(0, CELL.columns)
    at, mask = _elements(o, k, CELL)
    nothing = tl.zeros([1, 1], C)
    if CELL.layer == "nmu":
        return Matrices(nothing, nothing, nothing, nothing, weights.W_hat)
    elif CELL.layer == "npu":
        W = load(weights.W_re + at, mask, C)
        gate = power.clamped(load(weights.g + k, k < width, C))[None, :]
        return Matrices(W, W, gate, nothing, weights.W_re)
    else:
        W = weight_tile(weights.W_hat, weights.M_hat, at, mask, C, LAYER)
        W_mul = product_weight_tile(weights, W, at, mask, C)
        G, gate_bias = nothing, nothing
        if CELL.gates == "output":
            G = load(weights.G + at, mask, C)
        elif CELL.gates == "sample":
            G = load(weights.G + k, k < width, C)[None, :]
        if weights.gate_bias is not None:
            if CELL.gates == "sample":
                gate_bias = widened(tl.load(weights.gate_bias + tl.arange(0, 1)), C)[None, :]
            else:
                gate_bias = load(weights.gate_bias + o, o < CELL.H, C)[None, :]
        of_product = weights.W_hat_mul if CELL.untied else weights.W_hat
        return Matrices(W, W_mul, G, gate_bias, of_product)


@triton.jit
def values(columns, there, weights, eps, C: tl.constexpr, CELL: tl.constexpr):
    """The layer of ``Columns``. ``there``: which exist; in the others x is 0."""
    if CELL.layer == "nmu":
        y, befores = unroll_factors.multiplied(columns.each, weights.of_product, C, CELL)
        return Values(y, y, y, y, y, y, befores)
    elif CELL.layer == "npu":
        y, other, log, k = unroll_power.values(columns.tile, there, weights, eps, CELL)
        return Values(y, log, k, other, y, y, ())
    else:
        return _mixed(columns, there, weights, eps, C, CELL)


@triton.jit
def _mixed(columns, there, weights, eps, C: tl.constexpr, CELL: tl.constexpr):
    """Equations 2 to 6, and an iNALU's."""
    LAYER: tl.constexpr = CELL.layer
    PRODUCT: tl.constexpr = CELL.product
    ROWS: tl.constexpr = CELL.rows
    STATES: tl.constexpr = CELL.states
    x = columns.tile
    nothing = tl.zeros([ROWS, STATES], C)
    L = x
    y = nothing
    if CELL.linear:
        y = product(x, tl.trans(weights.W), nothing, PRODUCT)
    a, m, g, s, befores = y, y, y, y, ()
    if CELL.log_space:
        L = log_tile(x, there, tl.full([1, 1], eps, C), LAYER)
        l = product(L, tl.trans(weights.W_mul), nothing, PRODUCT)  # noqa: E741
    if CELL.gates != "none":
        z = weights.gate_bias
        if CELL.gates == "output":
            seen = seen_by_gate(x, LAYER)
            z = product(seen, tl.trans(weights.G), nothing, PRODUCT) + z
        elif CELL.gates == "sample":
            z = tl.sum(seen_by_gate(x, LAYER) * weights.G, axis=1)[:, None] + z
        g = maths.sigmoid(z)
    if CELL.factor == "inalu":
        s, befores = unroll_factors.multiplied(columns.each, weights.of_product, C, CELL)
        y, m = maths.mix_signed(a, l, s, g, tl.full([1, 1], CELL.omega, C))
    elif CELL.log_space:
        m = maths.exp(l)
        y = maths.mix(a, m, g) if CELL.gates != "none" else m
    return Values(y, L, a, m, g, s, befores)


@triton.jit
def no_sums(C: tl.constexpr, CELL: tl.constexpr):
    COLUMNS: tl.constexpr = CELL.columns
    STATES: tl.constexpr = CELL.states
    ROWS: tl.constexpr = CELL.rows
    each = ()
    if CELL.factor != "":
        each = unroll_factors.no_sums(C, CELL)
    W = tl.zeros([STATES, COLUMNS], C)
    if CELL.layer == "npu":
        return Sums(W, W, tl.zeros([ROWS, COLUMNS], C), tl.zeros([1], C), each)
    elif CELL.gates == "sample":
        return Sums(W, W, tl.zeros([1, COLUMNS], C), tl.zeros([1], C), each)
    else:
        return Sums(W, W, W, tl.zeros([STATES], C), each)


@triton.jit
def gradients(dy, columns, going, counts, found, weights, sums, parts, eps, CELL: tl.constexpr):
    """From dy to the ``Columns``, with ``Values`` found; and the sums of the weights, with this
    step's, of W in place of its factors. Rows that are not ``going``, and states that do not exist,
    have no part in them: ``counts`` tells both."""
    if CELL.layer == "nmu":
        d, each = unroll_factors.gradients(
            dy,
            columns.each,
            counts,
            found.befores,
            weights.of_product,
            sums.each,
            parts.W is not None,
            CELL,
        )
        sums = Sums(sums.W, sums.W_mul, sums.G, sums.gate_bias, each)
        return Columns(columns.tile, d), sums
    elif CELL.layer == "npu":
        d, dW, dG = unroll_power.gradients(
            dy, columns.tile, going, counts, found, weights, sums, parts, eps, CELL
        )
        return Columns(d, ()), Sums(dW, sums.W_mul, dG, sums.gate_bias, sums.each)
    else:
        return _gradients_of_mixed(
            dy, columns, going, counts, found, weights, sums, parts, eps, CELL
        )


@triton.jit
def _gradients_of_mixed(
    dy, columns, going, counts, found, weights, sums, parts, eps, CELL: tl.constexpr
):
    """Equations 7 to 9 and 12 to 14, and an iNALU's."""
    LAYER: tl.constexpr = CELL.layer
    PRODUCT: tl.constexpr = CELL.product
    C: tl.constexpr = dy.dtype
    x = columns.tile
    each = sums.each
    da, dl, dg = dy, dy, dy
    if CELL.factor == "inalu":
        da, dl, dg = maths.grad_mix_signed(dy, found.a, found.m, found.s, found.g)
        of_sign = maths.grad_sign(dy, found.m, found.g)
        WANTS_SIGN: tl.constexpr = parts.W_mul is not None if CELL.untied else parts.W is not None
        _, each = unroll_factors.gradients(
            of_sign, columns.each, counts, found.befores, weights.of_product, each, WANTS_SIGN, CELL
        )
    elif CELL.gates != "none":
        da, dl, dg = maths.grad_mix(dy, found.a, found.m, found.g)
    elif CELL.log_space:
        dl = dy * found.m
    da, dl, dg = tl.where(counts, da, 0.0), tl.where(counts, dl, 0.0), tl.where(counts, dg, 0.0)
    dW, dW_mul, dG, dbias = sums.W, sums.W_mul, sums.G, sums.gate_bias
    dx = tl.zeros(x.shape, C)
    of_gate = dx  # of the |x| that an iNALU's sees
    if CELL.linear:
        dx = product(da, weights.W, dx, PRODUCT)
        if parts.W is not None:
            dW = product(tl.trans(da), x, dW, PRODUCT)
    if CELL.gates == "sample":
        dz = maths.grad_sigmoid(tl.sum(dg, axis=1)[:, None], found.g)
        dz = tl.where(going, dz, 0.0)
        if CELL.factor == "":
            dx += dz * weights.G
        else:
            of_gate = dz * weights.G
        dG += tl.sum(dz * seen_by_gate(x, LAYER), axis=0)[None, :]
        dbias += tl.sum(dz, axis=0)
    elif CELL.gates != "none":
        dz = tl.where(counts, maths.grad_sigmoid(dg, found.g), 0.0)
        if CELL.gates == "output":
            if CELL.factor == "":
                dx = product(dz, weights.G, dx, PRODUCT)
            else:
                of_gate = product(dz, weights.G, of_gate, PRODUCT)
            if parts.G is not None:
                dG = product(tl.trans(dz), seen_by_gate(x, LAYER), dG, PRODUCT)
        dbias += tl.sum(dz, axis=0)
    if CELL.log_space:
        dL = product(dl, weights.W_mul, tl.zeros(x.shape, C), PRODUCT)
        dx += through_size(dL, of_gate, x, tl.full([1, 1], eps, C), LAYER)
        if CELL.untied and parts.W_mul is not None:
            dW_mul = product(tl.trans(dl), found.L, dW_mul, PRODUCT)
        elif not CELL.untied and parts.W is not None:
            dW = product(tl.trans(dl), found.L, dW, PRODUCT)
    return Columns(dx, ()), Sums(dW, dW_mul, dG, dbias, each)


@triton.jit
def store_sums(sums, parts, CELL: tl.constexpr):
    """This program's, into its place among the ``Partials``."""
    H: tl.constexpr = CELL.H
    width: tl.constexpr = CELL.I + CELL.H
    C: tl.constexpr = sums.W.dtype
    part = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, CELL.states)
    k = tl.arange(0, CELL.columns)
    at, mask = _elements(o, k, CELL)
    dW, dW_mul = sums.W, sums.W_mul
    if CELL.factor != "":
        if CELL.untied:
            dW_mul += unroll_factors.summed(sums.each, C, CELL)
        else:
            dW += unroll_factors.summed(sums.each, C, CELL)
    if parts.W is not None:
        at_W = o[:, None] + k[None, :] * H if CELL.layer == "nmu" else at  # as of ``reduction``
        tl.store(parts.W + part * H * width + at_W, dW, mask=mask)
    if parts.W_mul is not None:
        tl.store(parts.W_mul + part * H * width + at, dW_mul, mask=mask)
    if parts.G is not None:
        if CELL.layer == "npu":
            tl.store(parts.G + part * width + k, tl.sum(sums.G, axis=0), mask=k < width)
        elif CELL.gates == "sample":
            tl.store(parts.G + part * width + k[None, :], sums.G, mask=k[None, :] < width)
        else:
            tl.store(parts.G + part * H * width + at, sums.G, mask=mask)
    if parts.gate_bias is not None:
        if CELL.gates == "sample":
            tl.store(parts.gate_bias + part + tl.arange(0, 1), sums.gate_bias)
        else:
            tl.store(parts.gate_bias + part * H + o, sums.gate_bias, mask=o < H)
