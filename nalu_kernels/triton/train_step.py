"""The trainer's kernel: a program trains a run, step after step, and tests it."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import maths
from .train_layers import Block, Run, backward, forward
from .train_random import load_constants, shuffled

_RUNNING, _OUT_OF_STEPS, _SOLVED, _DIVERGED = (tl.constexpr(status) for status in (1, 2, 3, 4))
# Of csrc/training.h: hyperparameters a run, of which the last is the threshold, and numbers a test.
_HYPER, _CURVE = tl.constexpr(23), tl.constexpr(4)
# Places among the numbers of a training: the operator's settings, and seven after them.
_STEPS, _TEST_EVERY, _FIRST_GIVEN, _UNTIL = (tl.constexpr(place) for place in (1, 2, 10, 11))
_TABLE_ROWS, _HALF_BITS, _GIVEN_STEPS, _INSIDE, _OUTSIDE, _PARAMETERS, _SCRATCH = (
    tl.constexpr(place) for place in range(12, 19)
)


class Trainings(NamedTuple):
    """The operator's arguments, as the kernel reads them. ``numbers``: int64, the settings, then
    the table's rows, half of the bits of a row's number, the steps given, the tests' rows, and how
    many parameters and numbers of scratch a run has.

    The last two are in ``FORM`` too. As strides the compiler must not know them: what may be
    aligned it would load several at a time, and then move from thread to thread."""

    numbers: Any
    constants: Any
    seeds: Any
    starts: Any
    hyper: Any
    x: Any
    y: Any
    x_inside: Any
    y_inside: Any
    x_outside: Any
    y_outside: Any
    parameters: Any
    moments: Any
    best: Any
    progress: Any
    scores: Any
    curves: Any
    scratch: Any


@triton.jit
def _prepare(run, FORM: tl.constexpr):
    """Equation 1 for every layer."""
    DEPTH: tl.constexpr = FORM.depth
    for depth in tl.static_range(DEPTH):
        _prepare_layer(run, depth, FORM)
    tl.debug_barrier()


@triton.jit
def _prepare_layer(run, AT: tl.constexpr, FORM: tl.constexpr):
    UNIT: tl.constexpr = FORM.units[AT]
    if UNIT.W >= 0:
        _transform(run.parameters + UNIT.at, run.scratch + UNIT.W, UNIT, FORM)
        if UNIT.untied:
            _transform(run.parameters + UNIT.mul, run.scratch + UNIT.W_mul, UNIT, FORM)


@triton.jit
def _transform(W_hat, W, UNIT: tl.constexpr, FORM: tl.constexpr):
    SIZE: tl.constexpr = UNIT.I * UNIT.O
    for start in range(0, SIZE, FORM.elements):
        k = start + tl.arange(0, FORM.elements)
        mask = k < SIZE
        hat = tl.load(W_hat + k, mask=mask, other=0.0)
        t, s = maths.factors(hat, tl.load(W_hat + SIZE + k, mask=mask, other=0.0))
        tl.store(W + k, t * s, mask=mask)
        tl.store(W + SIZE + k, t, mask=mask)
        tl.store(W + 2 * SIZE + k, s, mask=mask)


@triton.jit
def _finish(run, FORM: tl.constexpr):
    """Equations 10 and 11 for every layer: dW lies in the place of W_hat's gradient."""
    DEPTH: tl.constexpr = FORM.depth
    for depth in tl.static_range(DEPTH):
        _finish_layer(run, depth, FORM)
    tl.debug_barrier()


@triton.jit
def _finish_layer(run, AT: tl.constexpr, FORM: tl.constexpr):
    UNIT: tl.constexpr = FORM.units[AT]
    grads = run.scratch + FORM.grads
    if UNIT.W >= 0:
        _grad_transform(grads + UNIT.at, run.scratch + UNIT.W, UNIT, FORM)
        if UNIT.untied:
            _grad_transform(grads + UNIT.mul, run.scratch + UNIT.W_mul, UNIT, FORM)


@triton.jit
def _grad_transform(grads, W, UNIT: tl.constexpr, FORM: tl.constexpr):
    SIZE: tl.constexpr = UNIT.I * UNIT.O
    for start in range(0, SIZE, FORM.elements):
        k = start + tl.arange(0, FORM.elements)
        mask = k < SIZE
        t = tl.load(W + SIZE + k, mask=mask, other=0.0)
        s = tl.load(W + 2 * SIZE + k, mask=mask, other=0.0)
        dW_hat, dM_hat = maths.grad_factors(tl.load(grads + k, mask=mask, other=0.0), t, s)
        tl.store(grads + k, dW_hat, mask=mask)
        tl.store(grads + SIZE + k, dM_hat, mask=mask)


@triton.jit
def _gradient(at, mask, most):
    """Of some parameters, clipped by value; a NaN passes."""
    g = tl.load(at, mask=mask, other=0.0)
    g = tl.where(g > most, most, g)
    return tl.where(g < -most, -most, g)


@triton.jit
def _norm_factor(run, most_value, most_norm, FORM: tl.constexpr):
    """By which clipping by norm multiplies; a NaN stays one."""
    C: tl.constexpr = run.scratch.dtype.element_ty
    ELEMENTS: tl.constexpr = FORM.elements
    squares = tl.zeros([ELEMENTS], C)
    for start in range(0, FORM.parameters, FORM.elements):
        k = start + tl.arange(0, FORM.elements)
        g = _gradient(run.scratch + FORM.grads + k, k < FORM.parameters, most_value)
        squares += g * g
    norm = maths.square_root(tl.sum(squares, axis=0))
    ratio = maths.quotient_of_any(most_norm, norm + 1e-6)
    return tl.where(ratio > 1, 1.0, ratio)


@triton.jit
def _bias_correction(beta, step):
    """1 - beta^step, which is 1 from where beta^step is below a double's last digit."""
    exponent = step.to(tl.float64) * tl.log(beta)
    correction = tl.full([], 1.0, tl.float64)
    if exponent >= -45:
        correction = 1.0 - maths.exp(exponent)
    return correction


@triton.jit
def _update(run, hyper, step, FORM: tl.constexpr):
    """The update number ``step``, counted from 1, as torch.optim's of the same name."""
    C: tl.constexpr = run.scratch.dtype.element_ty
    lr, beta1, beta2 = tl.load(hyper), tl.load(hyper + 1), tl.load(hyper + 2)
    eps, decay = tl.load(hyper + 3).to(C), tl.load(hyper + 4).to(C)
    momentum = tl.load(hyper + 5).to(C)
    most_value, most_norm = tl.load(hyper + 6).to(C), tl.load(hyper + 7).to(C)
    factor = most_norm * 0 + 1.0
    if most_norm < float("inf"):
        factor = _norm_factor(run, most_value, most_norm, FORM)
    else:
        factor = tl.full([], 1.0, C)
    rate = (-lr).to(C)
    rest = (1.0 - beta2).to(C)
    root = tl.full([], 1.0, C)
    if FORM.optimizer == "adam":
        rate = (-lr / _bias_correction(beta1, step)).to(C)
        root = tl.sqrt(_bias_correction(beta2, step)).to(C)
    for start in range(0, FORM.parameters, FORM.elements):
        k = start + tl.arange(0, FORM.elements)
        mask = k < FORM.parameters
        p = tl.load(run.parameters + k, mask=mask, other=0.0)
        g = _gradient(run.scratch + FORM.grads + k, mask, most_value) * factor
        g = tl.where(decay != 0, g + p * decay, g)
        if FORM.optimizer == "adam":
            m = tl.load(run.first + k, mask=mask, other=0.0)
            m += (1.0 - beta1).to(C) * (g - m)
            v = tl.load(run.second + k, mask=mask, other=0.0) * beta2.to(C) + (g * g) * rest
            tl.store(run.first + k, m, mask=mask)
            tl.store(run.second + k, v, mask=mask)
            size = maths.quotient_of_any(maths.square_root(v), root + tl.zeros_like(v)) + eps
            p += maths.quotient_of_any(rate * m, size)
        else:
            direction = g
            if FORM.optimizer == "rmsprop":
                v = tl.load(run.second + k, mask=mask, other=0.0) * beta2.to(C) + (g * g) * rest
                tl.store(run.second + k, v, mask=mask)
                direction = maths.quotient_of_any(g, maths.square_root(v) + eps)
            if momentum != 0:
                m = tl.load(run.first + k, mask=mask, other=0.0) * momentum + direction
                if FORM.optimizer == "sgd":
                    m = tl.where(step == 1, direction, m)
                tl.store(run.first + k, m, mask=mask)
                direction = m
            p += rate * direction
        tl.store(run.parameters + k, p, mask=mask)
    tl.debug_barrier()


@triton.jit
def _training_block(all, run, place, step, begin, FORM: tl.constexpr):
    """The rows of a step's batch from ``begin`` on; ``place`` is the run's number."""
    row = begin + tl.arange(0, FORM.rows)
    exist = row < FORM.batch
    sample = row.to(tl.int64)
    if FORM.source == "given":
        first = step - tl.load(all.numbers + _FIRST_GIVEN)
        sample += (place * tl.load(all.numbers + _GIVEN_STEPS) + first) * FORM.batch
    elif FORM.source == "table":
        size = tl.load(all.numbers + _TABLE_ROWS)
        sample += step * FORM.batch
        sample = shuffled(run.seed, sample, size, tl.load(all.numbers + _HALF_BITS))
    x, y = all.x + sample * FORM.I, all.y + sample * FORM.O
    return Block(row, exist, x, y, load_constants(all.constants), step)


@triton.jit
def _target(run, block, o, FORM: tl.constexpr):
    """Output o's, of the block's rows."""
    if FORM.source == "arithmetic":
        return tl.load(run.scratch + FORM.target + tl.arange(0, FORM.rows))
    else:
        return tl.load(block.y + o, mask=block.exist, other=0.0)


@triton.jit
def _grad_loss(run, block, FORM: tl.constexpr):
    """Of the mean over the batch and the outputs."""
    LAST: tl.constexpr = FORM.units[FORM.depth - 1]
    SCALE: tl.constexpr = 1.0 / (FORM.batch * FORM.O)
    r = tl.arange(0, FORM.rows)
    for o in range(FORM.O):
        at = run.scratch + (o * FORM.rows + r)
        error = tl.load(at + LAST.y) - _target(run, block, o, FORM)
        if FORM.loss == "mse":
            grad = error * (2 * SCALE)
        else:
            grad = tl.where(error > 0, SCALE, tl.where(error < 0, -SCALE, error * SCALE))
        tl.store(at + LAST.dy, grad)
    tl.debug_barrier()


@triton.jit
def _run(all, place):
    """Read anew in each step: the compiler would keep every address of the whole step in registers
    if it did not change."""
    stride = tl.load(all.numbers + _PARAMETERS)
    return Run(
        all.parameters + place * stride,
        all.moments + 2 * place * stride,
        all.moments + (2 * place + 1) * stride,
        all.best + place * stride,
        all.scratch + place * tl.load(all.numbers + _SCRATCH),
        tl.load(all.seeds + place),
        tl.load(all.starts + 2 * place),
        tl.load(all.starts + 2 * place + 1),
    )


@triton.jit
def _step(all, place, step, FORM: tl.constexpr):
    run = _run(all, place)
    for begin in range(0, FORM.batch, FORM.rows):
        block = _training_block(all, run, place, step, begin, FORM)
        forward(run, block, FORM, FORM.source == "arithmetic", True)
        _grad_loss(run, block, FORM)
        backward(run, block, begin > 0, FORM, FORM.source == "arithmetic")
    _finish(run, FORM)
    _update(run, all.hyper + _HYPER * place, step + 1, FORM)
    _prepare(run, FORM)


@triton.jit
def _error(all, run, x, y, rows, FORM: tl.constexpr):
    """The mean squared error, in double precision; NaN of no rows."""
    LAST: tl.constexpr = FORM.units[FORM.depth - 1]
    r = tl.arange(0, FORM.rows)
    ROWS: tl.constexpr = FORM.rows
    total = tl.zeros([ROWS], tl.float64)
    begin = rows * 0
    while begin < rows:
        row = begin + r
        exist = row < rows
        block = Block(row, exist, x + row * FORM.I, y + row * FORM.O, None, None)
        forward(run, block, FORM, False, False)
        for o in range(FORM.O):
            found = tl.load(run.scratch + LAST.y + o * FORM.rows + r).to(tl.float64)
            off = found - _target(run, block, o, FORM).to(tl.float64)
            total += tl.where(exist, off * off, 0.0)
        tl.debug_barrier()
        begin += FORM.rows
    return tl.sum(total, axis=0) / (rows * FORM.O).to(tl.float64)


@triton.jit
def _test(all, place, step, steps, test_every, FORM: tl.constexpr):
    """After ``step`` steps: tests, records, and returns the status."""
    run, numbers = _run(all, place), all.numbers
    inside = _error(all, run, all.x_inside, all.y_inside, tl.load(numbers + _INSIDE), FORM)
    outside = _error(all, run, all.x_outside, all.y_outside, tl.load(numbers + _OUTSIDE), FORM)
    tests = (steps + test_every - 1) // test_every
    curve = all.curves + _CURVE * (place * tests + (step - 1) // test_every)
    tl.store(curve, inside)
    tl.store(curve + 1, outside)
    scores = all.scores + 6 * place
    best_inside, at_best = tl.load(scores), tl.load(scores + 1)
    best_step, first_below = tl.load(scores + 2), tl.load(scores + 3)
    threshold = tl.load(all.hyper + _HYPER * place + _HYPER - 1)
    # NaN is below nothing; anything finite is below none.
    best = (inside < best_inside) | ((best_inside != best_inside) & (tl.abs(inside) < float("inf")))
    below = outside < threshold
    at_best = tl.where(best, outside, at_best)
    at = step.to(tl.float64)
    nan_found = 0
    for start in range(0, FORM.parameters, FORM.elements):
        k = start + tl.arange(0, FORM.elements)
        mask = k < FORM.parameters
        p = tl.load(run.parameters + k, mask=mask, other=0.0)
        if best:
            tl.store(run.best + k, p, mask=mask)
        nan_found += tl.sum((p != p).to(tl.int32), axis=0)
    tl.debug_barrier()  # all have read what is written
    tl.store(scores, tl.where(best, inside, best_inside))
    tl.store(scores + 1, at_best)
    tl.store(scores + 2, tl.where(best, at, best_step))
    tl.store(scores + 3, tl.where(below & (first_below != first_below), at, first_below))
    tl.debug_barrier()
    ended = tl.where(at_best < threshold, _SOLVED, _OUT_OF_STEPS)
    status = tl.where(step < steps, _RUNNING, ended)
    if FORM.stop_when_solved:
        status = tl.where(best & below, _SOLVED, status)
    return tl.where(nan_found > 0, _DIVERGED, status)


@triton.jit(do_not_specialize=["most"])
def train_kernel(all, most, FORM: tl.constexpr):
    """Goes on with a run for at most so many steps."""
    place = tl.program_id(0).to(tl.int64)
    progress = all.progress + 2 * place
    step, status = tl.load(progress), tl.load(progress + 1)
    steps, until = tl.load(all.numbers + _STEPS), tl.load(all.numbers + _UNTIL)
    test_every = tl.load(all.numbers + _TEST_EVERY)
    last = tl.minimum(tl.minimum(until, steps), step + most)
    if (status <= _RUNNING) & (step < last):
        status = step * 0 + _RUNNING
        _prepare(_run(all, place), FORM)
        due = tl.minimum((step // test_every + 1) * test_every, steps)
        while (status == _RUNNING) & (step < last):
            _step(all, place, step, FORM)
            step += 1
            if step == due:
                status = _test(all, place, step, steps, test_every, FORM).to(tl.int64)
                due = tl.minimum(due + test_every, steps)
        tl.debug_barrier()
        tl.store(progress, step)
        tl.store(progress + 1, status)
