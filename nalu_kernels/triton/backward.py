"""All gradients of a small layer in one launch, which is most of what they cost."""

from __future__ import annotations

import triton
import triton.language as tl

from . import metadata
from .grad_input import grad_input_tile
from .grad_weights import grad_weights_tile


@triton.jit(launch_metadata=metadata.backward)
def backward_kernel(
    dy,
    saved,
    x,
    weights,
    grads,
    partials,
    dx,
    sizes,
    dy_strides,
    x_strides,
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
        grad_weights_tile(
            program,
            tl.program_id(1),  # 0
            dy,
            saved,
            x,
            weights,
            grads,
            partials,
            sizes,
            dy_strides,
            x_strides,
            sizes[0],
            eps,
            FORM,
            WEIGHTS_TILE,
        )
    else:
        grad_input_tile(
            program - weights_programs,
            dy,
            saved,
            x,
            weights,
            dx,
            sizes,
            dy_strides,
            x_strides,
            eps,
            FORM,
            TILE,
        )
