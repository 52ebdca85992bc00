"""The factors of the layers whose output is a product over the inputs,

    y[o] = f(x[1], w[o, 1]) f(x[2], w[o, 2]) ...

and their slopes: the mathematics of csrc/factors.h. Inputs are a tile's rows, of shape [rows, 1],
weights its columns, of shape [1, columns].

- ``nmu``: f = w x + 1 - w, which is 1 for a weight of 0 and x for one of 1.
- ``nmru``: the same of |X|, where X = [x, 1 / (x + eps)]; a weight of 0 makes 1 of an infinite X.
- ``nru``: f = a sign(x) |x|^w + 1 - a with a = |w|; ``nru_training``: with a = tanh(1000 w)^2.
- ``inalu``: f = |w| sign(x) + 1 - |w|, which has no slope in x.

Sources: Madsen and Johansen 2020, "Neural Arithmetic Units", equation 9; Mistry, Farrahi and Hare
2022, "Exploring the Learning Mechanisms of Neural Division Modules"; Schlör, Ring and Hotho 2020,
"iNALU", equation 8.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import maths
from .loads import load

LAYERS = ("nmu", "nmru", "nru", "nru_training", "inalu")
_PI = tl.constexpr(math.pi)


class Input(NamedTuple):
    """What a factor sees of x: |X|, x or its sign; and log |x| of a power, or pi where X is
    negative. An NMRU's gradient goes on to ``X``, and from a reciprocal to x if that is ``smooth``:
    not infinite, or only beyond the type."""

    seen: Any
    other: Any
    X: Any
    smooth: Any


class Terms(NamedTuple):
    """What a factor sees of a weight: itself, the part of the input that counts and the rest to 1,
    and the part's slope."""

    w: Any
    part: Any
    rest: Any
    slope: Any


@triton.jit
def _reciprocal(shifted):
    """1 / shifted, infinite where that is 0."""
    size = maths.quotient_of_any(tl.full(shifted.shape, 1.0, shifted.dtype), tl.abs(shifted))
    return tl.where(shifted == 0, float("inf"), tl.where(shifted < 0, -size, size))


@triton.jit
def input_of(x, LAYER: tl.constexpr):
    """What the factors of all but an NMRU see of x."""
    if LAYER == "inalu":
        return Input(maths.sign(x), x, x, x)
    elif LAYER == "nmu":
        return Input(x, x, x, x)
    else:
        return Input(x, tl.log(tl.abs(x)), x, x)


@triton.jit
def load_input(batch, rows, j, columns, eps, LAYER: tl.constexpr):
    """Input number j of the rows; an NMRU's second half are the reciprocals."""
    C: tl.constexpr = eps.dtype
    j = tl.full([1, 1], j, tl.int64)
    i = tl.where(j >= batch.I, j - batch.I, j) if LAYER == "nmru" else j
    x = load(batch.x + (rows * batch.x_row + i * batch.x_col), (rows < batch.B) & (j < columns), C)
    if LAYER == "nmru":
        shifted = x + eps
        X = tl.where(j >= batch.I, _reciprocal(shifted), x)
        return Input(tl.abs(X), tl.where(X < 0, tl.full([1, 1], _PI, C), 0.0), X, shifted != 0)
    else:
        return input_of(x, LAYER)


@triton.jit
def load_terms(W, cols, j, O, columns, C: tl.constexpr, LAYER: tl.constexpr):  # noqa: E741
    """Of weight number j of each column; beyond the last it is 0, of which every factor is 1."""
    j = tl.full([1, 1], j, tl.int64)
    w = load(W + (cols * columns + j), (cols < O) & (j < columns), C)
    if LAYER == "nmu" or LAYER == "nmru":
        return Terms(w, w, 1.0 - w, w)
    elif LAYER == "nru_training":
        t = maths.tanh(w * 1000.0)
        return Terms(w, t * t, 1.0 - t * t, (t * 2000.0) * (1.0 - t * t))
    else:
        return Terms(w, tl.abs(w), 1.0 - tl.abs(w), maths.sign(w))


@triton.jit
def _power(log, exponent):
    """|x|^exponent; 1 for one of 0, whatever x is."""
    return tl.where(exponent == 0, 1.0, maths.exp(log * exponent))


@triton.jit
def counted(input, terms, LAYER: tl.constexpr):
    """What f is part of: f = part counted + 1 - part."""
    if LAYER == "nmru":
        return tl.where((terms.w == 0) & (input.seen == float("inf")), 1.0, input.seen)
    elif LAYER == "nru" or LAYER == "nru_training":
        size = _power(input.other, terms.w)
        return tl.where(input.seen < 0, -size, size)
    else:
        return input.seen


@triton.jit
def value(input, terms, LAYER: tl.constexpr):
    """f"""
    return counted(input, terms, LAYER) * terms.part + terms.rest


@triton.jit
def grad_weight(grad, input, terms, LAYER: tl.constexpr):
    """grad df/dw"""
    p = counted(input, terms, LAYER)
    of_part = grad * p - grad
    if LAYER == "nmu" or LAYER == "nmru":
        return of_part
    elif LAYER == "inalu":
        return of_part * terms.slope
    else:
        through = (grad * terms.part) * (p * input.other)
        through = tl.where((terms.w >= 0) & (input.seen == 0), 0.0, through)
        return through + of_part * terms.slope


@triton.jit
def grad_input(grad, input, terms, LAYER: tl.constexpr):
    """grad df/d|X| of an NMRU, grad df/dx of the others."""
    if LAYER == "nmu":
        return grad * terms.w
    elif LAYER == "nmru":
        return tl.where((terms.w == 0) & (input.seen == float("inf")), 0.0, grad * terms.w)
    else:
        rate = _power(input.other, terms.w - 1.0) * terms.w
        return tl.where(terms.w == 0, 0.0, (grad * terms.part) * rate)


@triton.jit
def through_X(grad, input, j, I, LAYER: tl.constexpr):  # noqa: E741
    """From the sum of ``grad_input`` to x; an infinite reciprocal has no slope."""
    if LAYER == "nmru":
        X = input.X
        of_X = grad * maths.sign(X)
        slope = tl.where(input.smooth, -(of_X * X) * X, 0.0)
        return tl.where(tl.full([1, 1], j, tl.int64) < I, of_X, slope)
    else:
        return grad
