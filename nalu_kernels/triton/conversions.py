"""Between the type that a tensor is stored in and the one that is computed in."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.constexpr_function
def compute_type(tensor: Any) -> tl.dtype:
    """The type that numbers read from ``tensor`` are computed in."""
    return tl.float64 if tensor.dtype.element_ty == tl.float64 else tl.float32


@triton.jit
def rounded(v, T: tl.constexpr):
    """v as a T, rounded to nearest, ties to even."""
    if INTERPRETED and T == tl.bfloat16 and v.dtype == tl.float32:
        # The interpreter's own conversion cuts off, and is wrong for subnormal numbers.
        bits = v.to(tl.int32, bitcast=True)
        bits = tl.where(v == v, bits + 0x7FFF + ((bits >> 16) & 1), bits | 0x400000)
        return (bits >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return v.to(T)


@triton.jit
def widened(v, T: tl.constexpr):
    """v, exactly, as a T that holds it."""
    if INTERPRETED and v.dtype == tl.bfloat16:
        # The interpreter's own conversion is wrong for subnormal numbers.
        bits = v.to(tl.int16, bitcast=True).to(tl.int32) << 16
        return bits.to(tl.float32, bitcast=True).to(T)
    else:
        return v.to(T)
