"""How kernels find their tile and read the tensors they share."""

from __future__ import annotations

import triton
import triton.language as tl

from . import maths
from .conversions import compute_type, widened
from .forms import Sizes

# Programs that run at the same time should share what they read: they take their tiles in bands of
# this many rows of tiles, down each column of the band.
_BAND = tl.constexpr(8)
_NALU = tl.constexpr("nalu")


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
def sizes_of(batch, FORM: tl.constexpr):
    """The sizes and strides, of which the compiler now knows the divisors in FORM."""
    return Sizes(
        batch.B,
        multiple(batch.I, FORM.I_multiple),
        multiple(batch.O, FORM.O_multiple),
        multiple(batch.x_row, FORM.x_row_multiple),
        multiple(batch.x_col, FORM.x_col_multiple),
        multiple(batch.dy_row, FORM.dy_row_multiple),
        multiple(batch.dy_col, FORM.dy_col_multiple),
    )


@triton.jit
def indices(tile, SIZE: tl.constexpr):
    """The rows or columns of a tile; 64 bits, for offsets beyond 2^31."""
    return tile.to(tl.int64) * SIZE + tl.arange(0, SIZE)


@triton.jit
def tile_indices(program, height, width, TILE: tl.constexpr):
    """A program's tile of a [height, width] result: its (row, column) among the tiles, and the
    rows and columns that it holds."""
    row, col = tile_of(program, tiles(height, TILE.rows), tiles(width, TILE.cols))
    return row, col, indices(row, TILE.rows), indices(col, TILE.cols)


@triton.jit
def dense(row, col, height, width):
    """Of elements of a dense [height, width] matrix: where they are, and whether they exist."""
    return row.to(tl.int64) * width + col, (row < height) & (col < width)


@triton.jit
def load(at, mask, C: tl.constexpr):
    """A tile in the compute type, 0 where it sticks out."""
    return widened(tl.load(at, mask=mask, other=0.0), C)


@triton.jit
def x_tile(x, sizes, b, i, mask, C: tl.constexpr):
    """A tile of x: rows b, columns i."""
    at = b * sizes.x_row + i.to(tl.int64) * sizes.x_col
    return load(x + at, mask, C)


@triton.jit
def log_tile(x, mask, shift, LAYER: tl.constexpr = _NALU):
    """Equation 3, and 0 outside of the tensor, where log(0 + eps) is infinite if eps is 0 in the
    compute type."""
    if LAYER == "inalu":
        return tl.where(mask, maths.log_larger(x, shift), 0.0)
    else:
        return tl.where(mask, maths.log_abs(x, shift), 0.0)


@triton.jit
def seen_by_gate(x, LAYER: tl.constexpr):
    """A tile of what the gate's weights multiply: an iNALU's see |x|."""
    return tl.abs(x) if LAYER == "inalu" or LAYER == "inalu_sum" else x


@triton.jit
def weight_tile(W_hat, M_hat, at, mask, C: tl.constexpr, LAYER: tl.constexpr = _NALU):
    """A tile of W: transformed here from W_hat and M_hat, or read where M_hat is None."""
    W = load(W_hat + at, mask, C)
    if M_hat is not None:
        W = maths.weight(W, load(M_hat + at, mask, C))
    elif LAYER == "nau":
        W = maths.clamp_weight(W)
    return W


@triton.jit
def product_weight_tile(weights, W, at, mask, C: tl.constexpr):
    """A tile of the product's own weights, which in a tied layer are those of the sum, W."""
    if weights.W_hat_mul is not None:
        return weight_tile(weights.W_hat_mul, weights.M_hat_mul, at, mask, C)
    else:
        return W


@triton.jit
def gradients_tile(batch, sizes, b, o, end, FORM: tl.constexpr):
    """A tile of what reaches a, log m and g from the output, rows b before ``end`` and columns o,
    and g itself, which has one column for a gate per sample: equations 7 to 9.

    What a layer lacks is its dy.
    """
    C: tl.constexpr = compute_type(batch.dy)
    O, saved = sizes.O, batch.saved  # noqa: E741
    mask = (b < end) & (o < O)
    d = load(batch.dy + (b * sizes.dy_row + o.to(tl.int64) * sizes.dy_col), mask, C)
    at = b * O + o
    if FORM.layer == "inalu" or FORM.layer == "inalu_sum":
        plane = tl.full([1, 1], sizes.B, tl.int64) * O
        gate_at, gate_mask = (b * O, (b < end) & (O > 0)) if FORM.gates == "sample" else (at, mask)
        a = tl.load(saved + at, mask=mask, other=0.0)
        m = tl.load(saved + plane + at, mask=mask, other=0.0)
        s = tl.load(saved + 2 * plane + at, mask=mask, other=0.0)
        g = tl.load(saved + 3 * plane + gate_at, mask=gate_mask, other=0.0)
        da, dl, dg = maths.grad_mix_signed(d, a, m, s, g)
        return da, dl, dg, g
    elif FORM.gates != "none":
        plane = tl.full([1, 1], sizes.B, tl.int64) * O
        gate_at, gate_mask = (b, b < end) if FORM.gates == "sample" else (at, mask)
        a = tl.load(saved + at, mask=mask, other=0.0)
        m = tl.load(saved + plane + at, mask=mask, other=0.0)
        g = tl.load(saved + 2 * plane + gate_at, mask=gate_mask, other=0.0)
        da, dl, dg = maths.grad_mix(d, a, m, g)
        return da, dl, dg, g
    elif FORM.log_space:
        return d, d * load(saved + at, mask, C), d, d
    else:
        return d, d, d, d
