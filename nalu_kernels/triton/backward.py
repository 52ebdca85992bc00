"""All gradients of a small layer in one launch, which is most of what they cost."""

from __future__ import annotations

import triton
import triton.language as tl

from . import metadata
from .grad_input import grad_input_tile
from .grad_weights import grad_weights_tile


@triton.jit(launch_metadata=metadata.backward)
def backward_kernel(
    batch,
    weights,
    grads,
    partials,
    dx,
    weights_programs,
    eps: tl.float64,
    FORM: tl.constexpr,
    WEIGHTS_TILE: tl.constexpr,
    TILE: tl.constexpr,
):
    """The first ``weights_programs`` programs each compute a tile of the parameters' gradients over
    the whole batch, the others a tile of dx."""
    program = tl.program_id(0)
    if program < weights_programs:
        split = tl.program_id(1)  # 0
        grad_weights_tile(
            program, split, batch, weights, grads, partials, batch.B, eps, FORM, WEIGHTS_TILE
        )
    else:
        grad_input_tile(program - weights_programs, batch, weights, dx, eps, FORM, TILE)
