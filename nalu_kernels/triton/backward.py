"""All gradients of a small layer in one launch, which is most of what they cost."""

from __future__ import annotations

import triton
import triton.language as tl

from . import metadata
from .grad_input import grad_input_tile
from .grad_weights import grad_weights_tile
from .units import batch_of_unit, gradients_of_unit, of_unit, weights_of_unit


@triton.jit(launch_metadata=metadata.backward)
def backward_kernel(
    batch,
    weights,
    grads,
    partials,
    dx,
    weights_programs,
    eps: tl.float64,
    units,
    FORM: tl.constexpr,
    WEIGHTS_TILE: tl.constexpr,
    TILE: tl.constexpr,
):
    """The first ``weights_programs`` programs each compute a tile of the parameters' gradients over
    the whole batch, the others a tile of dx."""
    if len(units) > 0:
        batch = batch_of_unit(batch, units.batch)
        weights = weights_of_unit(weights, units.weights)
        grads = gradients_of_unit(grads, units.grads)
        dx = of_unit(dx, units.dx)
    program = tl.program_id(0)
    if program < weights_programs:
        split = tl.program_id(1)  # 0
        grad_weights_tile(
            program, split, batch, weights, grads, partials, batch.B, eps, FORM, WEIGHTS_TILE
        )
    else:
        grad_input_tile(program - weights_programs, batch, weights, dx, eps, FORM, TILE)
