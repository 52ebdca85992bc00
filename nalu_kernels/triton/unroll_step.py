"""A step of a recurrent cell, on tiles: the layer of a block's [x, h], and its gradients.

A tile of the columns is [rows, x and h], one of the outputs [rows, h]. Numbers: docs/triton.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import maths
from .conversions import widened
from .loads import load, log_tile, product_weight_tile, weight_tile
from .products import product


class Cell(NamedTuple):
    """What the kernels are compiled for: a layer, as ``Form`` has it, a name of
    ``products.product``, the columns of x and of h, and the tiles' sizes: so many ``rows`` of the
    batch, ``columns`` of [x, h], ``states`` of h."""

    layer: str
    linear: bool
    log_space: bool
    gates: str
    untied: bool
    last_only: bool
    product: str
    I: int  # noqa: E741
    H: int
    rows: int
    columns: int
    states: int


class Matrices(NamedTuple):
    """The weights as a step multiplies by them: W's are transformed, [h, x and h]; 0 stands for
    those that the layer lacks."""

    W: Any
    W_mul: Any
    G: Any
    gate_bias: Any


@triton.jit
def _elements(o, k, CELL: tl.constexpr):
    """Of a matrix of weights, too small for offsets of 64 bits: where they are, and which exist."""
    width: tl.constexpr = CELL.I + CELL.H
    return o[:, None] * width + k[None, :], (o < CELL.H)[:, None] & (k < width)[None, :]


@triton.jit
def matrices(weights, C: tl.constexpr, CELL: tl.constexpr):
    """Of ``Weights``."""
    width: tl.constexpr = CELL.I + CELL.H
    o = tl.arange(0, CELL.states)
    k = tl.arange(0, CELL.columns)
    at, mask = _elements(o, k, CELL)
    W = weight_tile(weights.W_hat, weights.M_hat, at, mask, C, CELL.layer)
    W_mul = product_weight_tile(weights, W, at, mask, C)
    G = tl.zeros([1, 1], C)
    gate_bias = tl.zeros([1, 1], C)
    if CELL.gates == "output":
        G = load(weights.G + at, mask, C)
        if weights.gate_bias is not None:
            gate_bias = load(weights.gate_bias + o, o < CELL.H, C)[None, :]
    elif CELL.gates == "sample":
        G = load(weights.G + k, k < width, C)[None, :]
        if weights.gate_bias is not None:
            gate_bias = widened(tl.load(weights.gate_bias + tl.arange(0, 1)), C)[None, :]
    return Matrices(W, W_mul, G, gate_bias)


class Values(NamedTuple):
    """What a step comes to, ``y``, and what its gradient takes: the logarithms and equations 2, 4
    and 5. What the layer lacks is its y."""

    y: Any
    L: Any
    a: Any
    m: Any
    g: Any


@triton.jit
def values(x, there, weights, eps, CELL: tl.constexpr):
    """Equations 2 to 6. ``there``: the columns that exist; x is 0 in the others."""
    C: tl.constexpr = x.dtype
    ROWS: tl.constexpr = CELL.rows
    STATES: tl.constexpr = CELL.states
    nothing = tl.zeros([ROWS, STATES], C)
    L = x
    y = nothing
    if CELL.linear:
        y = product(x, tl.trans(weights.W), nothing, CELL.product)
    a, m, g = y, y, y
    if CELL.log_space:
        L = log_tile(x, there, tl.full([1, 1], eps, C))
        m = maths.exp(product(L, tl.trans(weights.W_mul), nothing, CELL.product))
        y = m
    if CELL.gates == "output":
        g = maths.sigmoid(
            product(x, tl.trans(weights.G), nothing, CELL.product) + weights.gate_bias
        )
        y = maths.mix(a, m, g)
    elif CELL.gates == "sample":
        g = maths.sigmoid(tl.sum(x * weights.G, axis=1)[:, None] + weights.gate_bias)
        y = maths.mix(a, m, g)
    return Values(y, L, a, m, g)


class Sums(NamedTuple):
    """Over steps and rows, of the gradients of ``Matrices``; what nobody wants stays 0."""

    W: Any
    W_mul: Any
    G: Any
    gate_bias: Any


@triton.jit
def no_sums(C: tl.constexpr, CELL: tl.constexpr):
    COLUMNS: tl.constexpr = CELL.columns
    STATES: tl.constexpr = CELL.states
    W = tl.zeros([STATES, COLUMNS], C)
    if CELL.gates == "sample":
        return Sums(W, W, tl.zeros([1, COLUMNS], C), tl.zeros([1], C))
    else:
        return Sums(W, W, W, tl.zeros([STATES], C))


@triton.jit
def gradients(dy, x, going, counts, found, weights, sums, parts, eps, CELL: tl.constexpr):
    """From dy to dx, with ``Values`` found: equations 7 to 9 and 12; and the sums of 13, 14 and of
    W in place of its factors, with this step's. Rows that are not ``going``, and states that do not
    exist, have no part in them: ``counts`` tells both."""
    C: tl.constexpr = x.dtype
    da, dl, dg = dy, dy, dy
    if CELL.gates != "none":
        da, dl, dg = maths.grad_mix(dy, found.a, found.m, found.g)
    elif CELL.log_space:
        dl = dy * found.m
    da, dl, dg = tl.where(counts, da, 0.0), tl.where(counts, dl, 0.0), tl.where(counts, dg, 0.0)
    dW, dW_mul, dG, dbias = sums.W, sums.W_mul, sums.G, sums.gate_bias
    dx = tl.zeros(x.shape, C)
    if CELL.linear:
        dx = product(da, weights.W, dx, CELL.product)
        if parts.W is not None:
            dW = product(tl.trans(da), x, dW, CELL.product)
    if CELL.gates == "output":
        dz = tl.where(counts, maths.grad_sigmoid(dg, found.g), 0.0)
        dx = product(dz, weights.G, dx, CELL.product)
        if parts.G is not None:
            dG = product(tl.trans(dz), x, dG, CELL.product)
        dbias += tl.sum(dz, axis=0)
    elif CELL.gates == "sample":
        dz = maths.grad_sigmoid(tl.sum(dg, axis=1)[:, None], found.g)
        dz = tl.where(going, dz, 0.0)
        dx += dz * weights.G
        dG += tl.sum(dz * x, axis=0)[None, :]
        dbias += tl.sum(dz, axis=0)
    if CELL.log_space:
        dL = product(dl, weights.W_mul, tl.zeros(x.shape, C), CELL.product)
        dx += maths.grad_log_abs(dL, x, tl.full([1, 1], eps, C))
        if CELL.untied and parts.W_mul is not None:
            dW_mul = product(tl.trans(dl), found.L, dW_mul, CELL.product)
        elif not CELL.untied and parts.W is not None:
            dW = product(tl.trans(dl), found.L, dW, CELL.product)
    return dx, Sums(dW, dW_mul, dG, dbias)


@triton.jit
def store_sums(sums, parts, CELL: tl.constexpr):
    """This program's, into its place among the ``Partials``."""
    H: tl.constexpr = CELL.H
    width: tl.constexpr = CELL.I + CELL.H
    part = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, CELL.states)
    k = tl.arange(0, CELL.columns)
    at, mask = _elements(o, k, CELL)
    if parts.W is not None:
        tl.store(parts.W + part * H * width + at, sums.W, mask=mask)
    if parts.W_mul is not None:
        tl.store(parts.W_mul + part * H * width + at, sums.W_mul, mask=mask)
    if parts.G is not None:
        if CELL.gates == "sample":
            tl.store(parts.G + part * width + k[None, :], sums.G, mask=k[None, :] < width)
        else:
            tl.store(parts.G + part * H * width + at, sums.G, mask=mask)
    if parts.gate_bias is not None:
        if CELL.gates == "sample":
            tl.store(parts.gate_bias + part + tl.arange(0, 1), sums.gate_bias)
        else:
            tl.store(parts.gate_bias + part * H + o, sums.gate_bias, mask=o < H)
