"""Layers side by side: how a kernel of one layer serves many.

The third dimension of the grid is the units'. A kernel takes ``units``: () for one layer, else the
strides (``recipe``) from a unit's part of each of its other arguments to the next one's, by the
same names and in tuples where those are tuples; None stands for what has no units. It moves its
pointers first, and is a kernel of one layer from then on: so a unit has a layer's own bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .forms import Batch, Gradients, Partials, Weights


@triton.jit
def of_unit(one, stride):
    """A pointer to what this program's unit has of a tensor; or what is no pointer, as it is."""
    if stride is None:
        return one
    else:
        return one + tl.program_id(2).to(tl.int64) * stride


@triton.jit
def batch_of_unit(batch, strides):
    return Batch(
        batch.B,
        batch.I,
        batch.O,
        of_unit(batch.x, strides.x),
        batch.x_row,
        batch.x_col,
        of_unit(batch.dy, strides.dy),
        batch.dy_row,
        batch.dy_col,
        of_unit(batch.saved, strides.saved),
    )


@triton.jit
def weights_of_unit(weights, strides):
    return Weights(
        of_unit(weights.W_hat, strides.W_hat),
        of_unit(weights.M_hat, strides.M_hat),
        of_unit(weights.G, strides.G),
        of_unit(weights.gate_bias, strides.gate_bias),
        of_unit(weights.W_hat_mul, strides.W_hat_mul),
        of_unit(weights.M_hat_mul, strides.M_hat_mul),
    )


@triton.jit
def gradients_of_unit(grads, strides):
    return Gradients(
        of_unit(grads.W_hat, strides.W_hat),
        of_unit(grads.M_hat, strides.M_hat),
        of_unit(grads.G, strides.G),
        of_unit(grads.gate_bias, strides.gate_bias),
        of_unit(grads.W_hat_mul, strides.W_hat_mul),
        of_unit(grads.M_hat_mul, strides.M_hat_mul),
        of_unit(grads.W, strides.W),
        of_unit(grads.W_mul, strides.W_mul),
        of_unit(grads.signs, strides.signs),
    )


@triton.jit
def partials_of_unit(partials, strides):
    return Partials(
        of_unit(partials.W, strides.W),
        of_unit(partials.W_mul, strides.W_mul),
        of_unit(partials.G, strides.G),
        of_unit(partials.gate_bias, strides.gate_bias),
    )
