"""A step's product over its columns, and its gradients: as ``reduction`` takes them, in the same
order, with every column of [x, h] at hand."""

from __future__ import annotations

import triton
import triton.language as tl

from . import factors


@triton.jit
def _terms(W, j, C: tl.constexpr, CELL: tl.constexpr):
    """Of weight number j of each output; read at each step, for all of them would leave no
    registers for the rest."""
    FACTOR: tl.constexpr = CELL.factor
    COUNT: tl.constexpr = CELL.I + CELL.H
    o = tl.arange(0, CELL.states)[None, :]
    return factors.load_terms(W, o, j, CELL.H, COUNT, C, FACTOR)


@triton.jit
def multiplied(columns, W, C: tl.constexpr, CELL: tl.constexpr):
    """The product of all factors, [rows, h], and the products before each."""
    FACTOR: tl.constexpr = CELL.factor
    ROWS: tl.constexpr = CELL.rows
    STATES: tl.constexpr = CELL.states
    COUNT: tl.constexpr = CELL.I + CELL.H
    product = tl.full([ROWS, STATES], 1.0, C)
    befores = ()
    for j in tl.static_range(COUNT):
        befores = befores + (product,)  # type: ignore[assignment]  # noqa: RUF005
        input = factors.input_of(columns[j], FACTOR)
        terms = _terms(W, j, C, CELL)
        product *= factors.value(input, terms, FACTOR)
    return product, befores


@triton.jit
def no_sums(C: tl.constexpr, CELL: tl.constexpr):
    ROWS: tl.constexpr = CELL.rows
    STATES: tl.constexpr = CELL.states
    COUNT: tl.constexpr = CELL.I + CELL.H
    each = ()
    for _ in tl.static_range(COUNT):
        each = each + (tl.zeros([ROWS, STATES], C),)  # type: ignore[assignment]  # noqa: RUF005
    return each


@triton.jit
def gradients(dy, columns, counts, befores, W, sums, WANTS_W: tl.constexpr, CELL: tl.constexpr):
    """From the product to each column, [rows, 1], if it has a slope in them; and the sums of the
    weights', which keep the rows apart, with this step's. ``counts``: what is among them."""
    FACTOR: tl.constexpr = CELL.factor
    COUNT: tl.constexpr = CELL.I + CELL.H
    behind = dy
    of_columns = ()
    of_weights = ()
    for back in tl.static_range(COUNT):
        input = factors.input_of(columns[COUNT - 1 - back], FACTOR)
        terms = _terms(W, COUNT - 1 - back, dy.dtype, CELL)
        grad = behind * befores[COUNT - 1 - back]
        if WANTS_W:
            slope = tl.where(counts, factors.grad_weight(grad, input, terms, FACTOR), 0.0)
            of_weights = (sums[COUNT - 1 - back] + slope,) + of_weights  # type: ignore[assignment]  # noqa: RUF005
        if CELL.factor == "nmu":
            slope = tl.where(counts, factors.grad_input(grad, input, terms, FACTOR), 0.0)
            of_columns = (tl.sum(slope, axis=1)[:, None],) + of_columns  # type: ignore[assignment]  # noqa: RUF005
        behind *= factors.value(input, terms, FACTOR)
    if WANTS_W:
        return of_columns, of_weights
    else:
        return of_columns, sums


@triton.jit
def summed(sums, C: tl.constexpr, CELL: tl.constexpr):
    """Over the rows: [h, x and h]."""
    STATES: tl.constexpr = CELL.states
    COLUMNS: tl.constexpr = CELL.columns
    COUNT: tl.constexpr = CELL.I + CELL.H
    k = tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros([STATES, COLUMNS], C)
    for j in tl.static_range(COUNT):
        total += tl.where(k == j, tl.sum(sums[j], axis=0)[:, None], 0.0)
    return total
