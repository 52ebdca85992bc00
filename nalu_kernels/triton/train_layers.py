"""A stack's forward and backward over a block of rows of one run; numbers: docs/triton.md.

A value of every row is a vector; outputs are taken a tile of [outputs, rows] at a time, inputs one
after the other. What passes from layer to layer lies in the run's scratch. Of rows beyond the
batch, whatever reaches a product is 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import maths
from .loads import log_tile
from .train_random import following, generator, number

_TRAINING = tl.constexpr(0)  # stream


class Run(NamedTuple):
    """Pointers of one run: parameters, their first and second moment, the best ones and scratch;
    and its seed and its subsets' starts."""

    parameters: Any
    first: Any
    second: Any
    best: Any
    scratch: Any
    seed: Any
    start_a: Any
    start_b: Any


class Block(NamedTuple):
    """Rows of a batch, or of a test: ``number`` in it, whether they ``exist``, and where their
    inputs and targets begin. Where these are drawn, by ``constants`` for this ``step``."""

    number: Any
    exist: Any
    x: Any
    y: Any
    constants: Any
    step: Any


@triton.jit
def _begin(run, block, DRAWN: tl.constexpr):
    """The generators of the block's rows; what is read needs none."""
    rows = block.number.to(tl.uint32)
    if DRAWN:
        return generator(run.seed, _TRAINING, block.step, rows)
    else:
        return rows, rows, rows, rows


@triton.jit
def _input(i, state, block, FORM: tl.constexpr, DRAWN: tl.constexpr, C: tl.constexpr):
    """Input i of the block's rows, and the generators after it."""
    s0, s1, s2, s3 = state
    if DRAWN:
        bits, s0, s1, s2, s3 = following(s0, s1, s2, s3)
        x = number(bits, block.constants, FORM.normal, FORM.two_parts, C)
    else:
        x = tl.load(block.x + i, mask=block.exist, other=0.0)
    return tl.where(block.exist, x, 0.0), (s0, s1, s2, s3)


@triton.jit
def _operand(total, x, i, start, FORM: tl.constexpr):
    """The sum of a subset of the inputs, with input i if it is of it."""
    of_it = (i >= start) & (i < start + FORM.subset)
    return tl.where(i == start, x, tl.where(of_it, total + x, total))


@triton.jit
def _target(a, b, FORM: tl.constexpr):
    if FORM.operation == "add":
        return a + b
    elif FORM.operation == "subtract":
        return a - b
    elif FORM.operation == "multiply":
        return a * b
    elif FORM.operation == "divide":
        return maths.quotient_of_any(tl.where(b < 0, -a, a), tl.abs(b))
    elif FORM.operation == "square":
        return a * a
    else:
        return maths.square_root(a)


@triton.jit
def _keep_inputs(run, block, FORM: tl.constexpr, DRAWN: tl.constexpr):
    """The inputs and their logarithms, and an arithmetic task's targets, into scratch."""
    C: tl.constexpr = run.scratch.dtype.element_ty
    ROWS: tl.constexpr = FORM.rows
    r = tl.arange(0, ROWS)
    a = tl.zeros([ROWS], C)
    b = tl.zeros([ROWS], C)
    state = _begin(run, block, DRAWN)
    for i in range(FORM.I):
        x, state = _input(i, state, block, FORM, DRAWN, C)
        tl.store(run.scratch + (FORM.x + i * FORM.rows) + r, x)
        if FORM.logs >= 0:
            L = log_tile(x, block.exist, tl.full([1], FORM.eps, C))
            tl.store(run.scratch + (FORM.logs + i * FORM.rows) + r, L)
        if FORM.source == "arithmetic":
            a = _operand(a, x, i, run.start_a, FORM)
            b = _operand(b, x, i, run.start_b, FORM)
    if FORM.source == "arithmetic":
        tl.store(run.scratch + FORM.target + r, _target(a, b, FORM))


@triton.jit
def _row_sum(values):
    """Over the rows, of each output."""
    return tl.sum(values, axis=1)


@triton.jit
def _store_outputs(run, at, has, y, UNIT: tl.constexpr):
    """A tile of outputs, or one output, and the logarithms that the next layer takes of it."""
    C: tl.constexpr = run.scratch.dtype.element_ty
    tl.store(run.scratch + UNIT.y + at, y, mask=has)
    if UNIT.y_logs >= 0:
        L = maths.log_abs(y, tl.full([1], UNIT.y_eps, C))
        tl.store(run.scratch + UNIT.y_logs + at, L, mask=has)


@triton.jit
def _weights(run, UNIT: tl.constexpr):
    """Where the layer's own matrix, the log-space path's and the gate's lie; then comes a bias."""
    own = run.parameters + UNIT.at
    size: tl.constexpr = UNIT.I * UNIT.O
    if UNIT.kind == "linear":
        return own, own, own + size
    else:
        return run.scratch + UNIT.W, run.scratch + UNIT.W_mul, own + 2 * size


@triton.jit
def _gate_outputs(first, UNIT: tl.constexpr):
    """The gates of a tile of outputs: one each, or the first for all."""
    if UNIT.gates == UNIT.O:
        return first + tl.arange(0, UNIT.tile)
    else:
        return tl.arange(0, 1)


@triton.jit
def _forward_weighted(
    run, block, UNIT: tl.constexpr, FORM: tl.constexpr, DRAWN: tl.constexpr, KEEP: tl.constexpr
):
    """Equations 2 to 6, and a linear layer's own."""
    C: tl.constexpr = run.scratch.dtype.element_ty
    ROWS: tl.constexpr = FORM.rows
    TILE: tl.constexpr = UNIT.tile
    GATES: tl.constexpr = UNIT.tile if UNIT.gates == UNIT.O else 1
    GATED: tl.constexpr = UNIT.kind == "nalu"
    r = tl.arange(0, ROWS)
    W_at, W_mul_at, G_at = _weights(run, UNIT)
    bias_at = G_at + UNIT.gates * UNIT.I
    for first in range(0, UNIT.O, UNIT.tile):
        o = first + tl.arange(0, UNIT.tile)
        has = o < UNIT.O
        gate = _gate_outputs(first, UNIT)
        has_gate = gate < UNIT.gates
        a = tl.zeros([TILE, ROWS], C)
        l = tl.zeros([TILE, ROWS], C)  # noqa: E741
        z = tl.zeros([GATES, ROWS], C)
        operand_a = tl.zeros([ROWS], C)
        operand_b = tl.zeros([ROWS], C)
        state = _begin(run, block, DRAWN)
        for i in range(UNIT.I):
            if UNIT.streamed:
                x, state = _input(i, state, block, FORM, DRAWN, C)
                if FORM.source == "arithmetic":
                    operand_a = _operand(operand_a, x, i, run.start_a, FORM)
                    operand_b = _operand(operand_b, x, i, run.start_b, FORM)
            else:
                x = tl.load(run.scratch + (UNIT.x + i * ROWS) + r)
            if UNIT.linear:
                W = tl.load(W_at + o * UNIT.I + i, mask=has, other=0.0)
                a += W[:, None] * x[None, :]
            if UNIT.log_space:
                if UNIT.streamed:
                    L = log_tile(x, block.exist, tl.full([1], UNIT.eps, C))
                else:
                    L = tl.load(run.scratch + (UNIT.logs + i * ROWS) + r)
                W_mul = tl.load(W_mul_at + o * UNIT.I + i, mask=has, other=0.0)
                l += W_mul[:, None] * L[None, :]  # noqa: E741
            if GATED:
                G = tl.load(G_at + gate * UNIT.I + i, mask=has_gate, other=0.0)
                z += G[:, None] * x[None, :]
        if UNIT.streamed and FORM.source == "arithmetic":
            tl.store(run.scratch + FORM.target + r, _target(operand_a, operand_b, FORM))
        at = o[:, None] * ROWS + r[None, :]
        exist = has[:, None] & block.exist[None, :]
        if GATED:
            if UNIT.bias:
                z += tl.load(bias_at + gate, mask=has_gate, other=0.0)[:, None]
            m = maths.exp(l)
            g = maths.sigmoid(z)
            y = maths.mix(a, m, g)
            if KEEP:
                tl.store(run.scratch + UNIT.a + at, a, mask=has[:, None])
                tl.store(run.scratch + UNIT.m + at, m, mask=has[:, None])
                gate_at = gate[:, None] * ROWS + r[None, :]
                tl.store(run.scratch + UNIT.g + gate_at, g, mask=has_gate[:, None])
        elif UNIT.log_space:
            y = maths.exp(l)
        else:
            y = a
            if UNIT.bias:
                y += tl.load(bias_at + o, mask=has, other=0.0)[:, None]
        _store_outputs(run, at, has[:, None], tl.where(exist, y, 0.0), UNIT)


@triton.jit
def _forward_layer(
    run, block, AT: tl.constexpr, FORM: tl.constexpr, DRAWN: tl.constexpr, KEEP: tl.constexpr
):
    UNIT: tl.constexpr = FORM.units[AT]
    if UNIT.kind == "relu" or UNIT.kind == "relu6":
        for o in range(UNIT.O):
            at = o * FORM.rows + tl.arange(0, FORM.rows)
            y = maths.rectify(tl.load(run.scratch + UNIT.x + at), UNIT.kind == "relu6")
            _store_outputs(run, at, None, y, UNIT)
    else:
        _forward_weighted(run, block, UNIT, FORM, DRAWN and UNIT.streamed, KEEP)


@triton.jit
def forward(run, block, FORM: tl.constexpr, DRAWN: tl.constexpr, KEEP: tl.constexpr):
    """The outputs of a block's rows. ``KEEP``: and what the backward needs."""
    if not FORM.streamed:
        _keep_inputs(run, block, FORM, DRAWN)
        tl.debug_barrier()
    DEPTH: tl.constexpr = FORM.depth
    for depth in tl.static_range(DEPTH):
        _forward_layer(run, block, depth, FORM, DRAWN, KEEP)
        tl.debug_barrier()


@triton.jit
def _gradients(run, block, first, UNIT: tl.constexpr, FORM: tl.constexpr):
    """What reaches a, log m and g of a tile of outputs: equations 7 to 9. What a layer lacks is its
    dy."""
    r = tl.arange(0, FORM.rows)
    o = first + tl.arange(0, UNIT.tile)
    has = (o < UNIT.O)[:, None]
    at = run.scratch + (o[:, None] * FORM.rows + r[None, :])
    dy = tl.load(at + UNIT.dy, mask=has, other=0.0)
    da, dl, dg = dy, dy, dy
    if UNIT.kind == "nalu":
        a = tl.load(at + UNIT.a, mask=has, other=0.0)
        m = tl.load(at + UNIT.m, mask=has, other=0.0)
        da, dl, dg = maths.grad_mix(dy, a, m, _gates(run, first, UNIT, FORM))
    elif UNIT.log_space:
        dl = dy * tl.load(at + UNIT.y, mask=has, other=0.0)
    exist = block.exist[None, :]
    return tl.where(exist, da, 0.0), tl.where(exist, dl, 0.0), tl.where(exist, dg, 0.0)


@triton.jit
def _gates(run, first, UNIT: tl.constexpr, FORM: tl.constexpr):
    gate = _gate_outputs(first, UNIT)[:, None]
    at = gate * FORM.rows + tl.arange(0, FORM.rows)[None, :]
    return tl.load(run.scratch + UNIT.g + at, mask=gate < UNIT.gates, other=0.0)


@triton.jit
def _add(at, value, mask, begun, FORM: tl.constexpr):
    """Stores, or adds to what earlier blocks of the batch have come to."""
    if FORM.batch > FORM.rows:
        value += tl.load(at, mask=mask & begun, other=0.0)
    tl.store(at, value, mask=mask)


@triton.jit
def _backward_weighted(
    run, block, begun, UNIT: tl.constexpr, FORM: tl.constexpr, DRAWN: tl.constexpr
):
    """Equations 12 to 14, for W in place of its factors."""
    C: tl.constexpr = run.scratch.dtype.element_ty
    ROWS: tl.constexpr = FORM.rows
    GATED: tl.constexpr = UNIT.kind == "nalu"
    TIED: tl.constexpr = UNIT.linear and UNIT.log_space and not UNIT.untied
    SIZE: tl.constexpr = UNIT.I * UNIT.O
    r = tl.arange(0, ROWS)
    W_at, W_mul_at, G_at = _weights(run, UNIT)
    to = run.scratch + (FORM.grads + UNIT.at)  # W's in the place of W_hat's
    to_G = to + 2 * SIZE
    to_bias = to_G + UNIT.gates * UNIT.I if GATED else to + SIZE
    to_mul = run.scratch + (FORM.grads + UNIT.mul) if UNIT.untied else to
    dz = tl.zeros([1, ROWS], C)
    if GATED and UNIT.gates < UNIT.O:  # one for all outputs
        dg_sum = tl.zeros([ROWS], C)
        for first in range(0, UNIT.O, UNIT.tile):
            _, _, dg = _gradients(run, block, first, UNIT, FORM)
            dg_sum += tl.sum(dg, axis=0)
        dz = maths.grad_sigmoid(dg_sum[None, :], _gates(run, 0, UNIT, FORM))
        dz = tl.where(block.exist[None, :], dz, 0.0)
    for first in range(0, UNIT.O, UNIT.tile):
        o = first + tl.arange(0, UNIT.tile)
        has = o < UNIT.O
        da, dl, dg = _gradients(run, block, first, UNIT, FORM)
        gate = _gate_outputs(first, UNIT)
        has_gate = gate < UNIT.gates
        new_gate = has_gate
        if GATED:
            if UNIT.gates == UNIT.O:
                dz_tile = maths.grad_sigmoid(dg, _gates(run, first, UNIT, FORM))
                dz_tile = tl.where(block.exist[None, :], dz_tile, 0.0)
            else:
                dz_tile = dz
                new_gate = has_gate & (first == 0)
        else:
            dz_tile = da
        if UNIT.bias:
            if GATED:
                _add(to_bias + gate, _row_sum(dz_tile), new_gate, begun, FORM)
            else:
                _add(to_bias + o, _row_sum(da), has, begun, FORM)
        state = _begin(run, block, DRAWN)
        for i in range(UNIT.I):
            if UNIT.streamed:
                x, state = _input(i, state, block, FORM, DRAWN, C)
            else:
                x = tl.load(run.scratch + (UNIT.x + i * ROWS) + r)
            if UNIT.log_space:
                if UNIT.streamed:
                    L = log_tile(x, block.exist, tl.full([1], UNIT.eps, C))
                else:
                    L = tl.load(run.scratch + (UNIT.logs + i * ROWS) + r)
            at = o * UNIT.I + i
            if TIED:
                dW = _row_sum(da * x[None, :] + dl * L[None, :])
                _add(to + at, dW, has, begun, FORM)
            else:
                if UNIT.linear:
                    _add(to + at, _row_sum(da * x[None, :]), has, begun, FORM)
                if UNIT.log_space:
                    _add(to_mul + at, _row_sum(dl * L[None, :]), has, begun, FORM)
            gate_at = gate * UNIT.I + i
            if GATED:
                _add(to_G + gate_at, _row_sum(dz_tile * x[None, :]), new_gate, begun, FORM)
            if UNIT.dx >= 0:
                dx = tl.zeros([ROWS], C)
                if UNIT.linear:
                    W = tl.load(W_at + at, mask=has, other=0.0)
                    dx += tl.sum(W[:, None] * da, axis=0)
                if GATED:
                    G = tl.load(G_at + gate_at, mask=new_gate, other=0.0)
                    dx += tl.sum(G[:, None] * dz_tile, axis=0)
                if UNIT.log_space:
                    W_mul = tl.load(W_mul_at + at, mask=has, other=0.0)
                    dL = tl.sum(W_mul[:, None] * dl, axis=0)
                    dx += maths.grad_log_abs(dL, x, tl.full([1], UNIT.eps, C))
                dx_at = run.scratch + (UNIT.dx + i * ROWS) + r
                if UNIT.O > UNIT.tile:
                    dx += tl.load(dx_at, mask=(r >= 0) & (first > 0), other=0.0)
                tl.store(dx_at, dx)
        if UNIT.O > UNIT.tile:
            tl.debug_barrier()


@triton.jit
def _backward_layer(run, block, begun, AT: tl.constexpr, FORM: tl.constexpr, DRAWN: tl.constexpr):
    UNIT: tl.constexpr = FORM.units[AT]
    if UNIT.kind == "relu" or UNIT.kind == "relu6":
        if UNIT.dx >= 0:
            for o in range(UNIT.O):
                at = run.scratch + (o * FORM.rows + tl.arange(0, FORM.rows))
                dy, x = tl.load(at + UNIT.dy), tl.load(at + UNIT.x)
                tl.store(at + UNIT.dx, maths.grad_rectify(dy, x, UNIT.kind == "relu6"))
    else:
        _backward_weighted(run, block, begun, UNIT, FORM, DRAWN and UNIT.streamed)


@triton.jit
def backward(run, block, begun, FORM: tl.constexpr, DRAWN: tl.constexpr):
    """From the last layer's dy to the gradients of all W, G and biases; ``begun``: whether earlier
    blocks of the batch have gradients there."""
    DEPTH: tl.constexpr = FORM.depth
    for back in tl.static_range(DEPTH):
        _backward_layer(run, block, begun, DEPTH - 1 - back, FORM, DRAWN)
        tl.debug_barrier()
