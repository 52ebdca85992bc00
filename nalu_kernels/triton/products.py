"""Matrix products of float32 tiles on tensor cores that multiply bfloat16 or float16.

A number is written as a sum of bfloat16 pieces of 8 bits each, and the product of two tiles as the
sum of the pieces' products, which tensor cores compute exactly and sum in float32. Three pieces are
all of a float32: ``bf16x6`` leaves out the three smallest of the nine products, 2^-24 of the
result and less. Two pieces: ``bf16x3``, about 2^-16.

Source: Henry, Tang and Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype
For Higher-Precision Computations", section III.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .conversions import INTERPRETED, rounded, widened

_LARGEST_BF16 = tl.constexpr(3.3895313892515355e38)


@triton.jit
def _dot(a, b, acc):
    if INTERPRETED:  # by NumPy, which has no bfloat16, and sums float32 in an order of its own
        part = tl.dot(widened(a, tl.float64), widened(b, tl.float64), out_dtype=tl.float64)
        return acc + part.to(acc.dtype)
    else:
        # "Imprecise" (which only float8 is) keeps Triton from making one long sum of acc + dot.
        return tl.dot(
            a, b, acc, input_precision="ieee", max_num_imprecise_acc=1, out_dtype=acc.dtype
        )


@triton.jit
def _first_piece(v):
    """v rounded to bfloat16, but towards zero where it would become infinite."""
    truncated = (v.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)
    size = tl.abs(v)
    overflows = (size > _LARGEST_BF16) & (size < float("inf"))
    return rounded(tl.where(overflows, truncated, v), tl.bfloat16)


@triton.jit
def product(a, b, acc, HOW: tl.constexpr):
    """acc + a b, for tiles a of shape [M, K] and b of shape [K, N] in the compute type.

    HOW is ieee, bf16, fp16, bf16x3 or bf16x6. The pieces' smaller products are summed first and
    from zero, and ``acc`` is added last, rounded as float32 is: tensor cores truncate. Where a
    number is not finite its smaller pieces mean nothing (inf - inf), and the first pieces'
    product alone decides.
    """
    if HOW == "ieee":
        # A sum of short sums: in a long one the roundings of like terms all go one way.
        return acc + _dot(a, b, tl.zeros(acc.shape, acc.dtype))
    elif HOW == "bf16":
        return _dot(rounded(a, tl.bfloat16), rounded(b, tl.bfloat16), acc)
    elif HOW == "fp16":
        return _dot(rounded(a, tl.float16), rounded(b, tl.float16), acc)
    else:
        a1 = _first_piece(a)
        b1 = _first_piece(b)
        a_rest = a - widened(a1, tl.float32)
        b_rest = b - widened(b1, tl.float32)
        a2 = rounded(a_rest, tl.bfloat16)
        b2 = rounded(b_rest, tl.bfloat16)
        part = tl.zeros(acc.shape, tl.float32)
        if HOW == "bf16x6":
            a3 = rounded(a_rest - widened(a2, tl.float32), tl.bfloat16)
            b3 = rounded(b_rest - widened(b2, tl.float32), tl.bfloat16)
            part = _dot(a2, b2, part)
            part = _dot(a3, b1, part)
            part = _dot(a1, b3, part)
        part = _dot(a2, b1, part)
        part = _dot(a1, b2, part)
        part = tl.where(tl.abs(part) < float("inf"), part, 0.0)
        return acc + _dot(a1, b1, part)
