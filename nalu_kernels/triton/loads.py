"""How kernels find their tile and read the tensors they share."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths
from .conversions import widened

# Programs that run at the same time should share what they read: they take their tiles in bands of
# this many rows of tiles, down each column of the band.
_BAND = tl.constexpr(8)


@triton.jit
def tile_of(program, row_tiles, col_tiles):
    """The (row, column) of a program's tile."""
    in_band = _BAND * col_tiles
    first = program // in_band * _BAND
    height = tl.minimum(row_tiles - first, _BAND)
    return first + program % in_band % height, program % in_band // height


@triton.jit
def tiles(size, SIZE: tl.constexpr):
    """How many tiles of SIZE hold ``size``; one for none. (tl.cdiv overflows near 2^31.)"""
    return tl.maximum(size - 1, 0) // SIZE + 1


@triton.jit
def multiple(size, OF: tl.constexpr):
    """``size``, of which the compiler now knows that it is a multiple of OF."""
    return size // OF * OF


@triton.jit
def indices(tile, SIZE: tl.constexpr):
    """The rows or columns of a tile; 64 bits, for offsets beyond 2^31."""
    return tile.to(tl.int64) * SIZE + tl.arange(0, SIZE)


@triton.jit
def load(at, mask, C: tl.constexpr):
    """A tile in the compute type, 0 where it sticks out."""
    return widened(tl.load(at, mask=mask, other=0.0), C)


@triton.jit
def log_tile(x_tile, mask, shift):
    """Equation 3, and 0 outside of the tensor, where log(0 + eps) is infinite if eps is 0 in the
    compute type."""
    return tl.where(mask, maths.log_abs(x_tile, shift), 0.0)


@triton.jit
def weight_tile(W_hat, M_hat, at, mask, C: tl.constexpr):
    """A tile of W: transformed here from W_hat and M_hat, or read where M_hat is None."""
    W = load(W_hat + at, mask, C)
    if M_hat is not None:
        W = maths.weight(W, load(M_hat + at, mask, C))
    return W


@triton.jit
def gradients_tile(dy, dy_at, saved, at, gate_at, plane, mask, gate_mask, FORM: tl.constexpr):
    """A tile of what reaches a, log m and g from the output: equations 7 to 9.

    ``saved`` is nalu_forward's flat a, m, g (``plane`` elements each, the last maybe fewer), or
    the output of a NAC in log space; None for a linear one. What a layer lacks is its dy.
    """
    C: tl.constexpr = tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32
    d = load(dy + dy_at, mask, C)
    if FORM.gates != "none":
        a = tl.load(saved + at, mask=mask, other=0.0)
        m = tl.load(saved + plane + at, mask=mask, other=0.0)
        g = tl.load(saved + 2 * plane + gate_at, mask=gate_mask, other=0.0)
        da, dl, dg = maths.grad_mix(d, a, m, g)
        return da, dl, dg, g
    elif FORM.log_space:
        return d, d * load(saved + at, mask, C), d, d
    else:
        return d, d, d, d
