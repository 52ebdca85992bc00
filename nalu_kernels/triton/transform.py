"""The weight transform on its own, for when many tiles of rows will share it."""

from __future__ import annotations

import triton
import triton.language as tl

from . import metadata
from .loads import indices, weight_tile
from .units import of_unit, weights_of_unit


@triton.jit(launch_metadata=metadata.transform)
def transform_kernel(weights, W, W_mul, size, units, BLOCK: tl.constexpr):
    """W and, where the product has weights of its own, W_mul, of ``size`` elements: equation 1."""
    if len(units) > 0:
        weights = weights_of_unit(weights, units.weights)
        W, W_mul = of_unit(W, units.W), of_unit(W_mul, units.W_mul)
    at = indices(tl.program_id(0), BLOCK)
    mask = at < size
    C: tl.constexpr = W.dtype.element_ty
    tl.store(W + at, weight_tile(weights.W_hat, weights.M_hat, at, mask, C), mask=mask)
    if W_mul is not None:
        tile = weight_tile(weights.W_hat_mul, weights.M_hat_mul, at, mask, C)
        tl.store(W_mul + at, tile, mask=mask)
