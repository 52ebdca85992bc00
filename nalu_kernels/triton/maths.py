"""The scalar mathematics of a NALU, once for every kernel; numbers refer to docs/triton.md.

Plain arithmetic wherever a hardware function would be inexact (its ``exp`` drifts with the size of
its argument), so that the interpreter on a CPU and a GPU compute alike. NaN, infinities and
subnormal numbers come out as eager PyTorch has them.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equations 1 and 2.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1 / math.log(2))
# log 2 in two parts, the first so short that its product with any exponent is exact.
_LN2_HIGH = tl.constexpr(0.693145751953125)
_LN2_LOW = tl.constexpr(1.4286068203094172321e-6)
_LARGE, _SMALL = tl.constexpr(2.0**100), tl.constexpr(2.0**-100)
_SCALE_DOWN, _SCALE_UP = tl.constexpr(2.0**-64), tl.constexpr(2.0**64)

_TWO_OVER_PI = tl.constexpr(2 / math.pi)
# pi / 2 in three parts, of which the first two are so short that their products with a number of
# quadrants below 2^20 are exact.
_HALF_PI = tl.constexpr(
    tuple(map(float.fromhex, ("0x1.921fb544p0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69")))
)
# From the highest power of the square down: sin r = r + r^3 (...), cos r = 1 - r^2 / 2 + r^4 (...).
_SINE_32 = tl.constexpr((-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1))
_COSINE_32 = tl.constexpr((2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2))
_SINE = tl.constexpr(
    (
        1.58962301576546568060e-10,
        -2.50507477628578072866e-8,
        2.75573136213857245213e-6,
        -1.98412698295895385996e-4,
        8.33333333332211858878e-3,
        -1.66666666666666307295e-1,
    )
)
_COSINE = tl.constexpr(
    (
        -1.13585365213876817300e-11,
        2.08757008419747316778e-9,
        -2.75573141792967388112e-7,
        2.48015872888517045348e-5,
        -1.38888888888730564116e-3,
        4.16666666666665929218e-2,
    )
)


@triton.jit
def _quotient(a, b):
    """a / b to an ulp, for b from 2^-100 to 2^100. (`/` of float32 is off by up to two ulps and 0
    where b is beyond 2^126; tl.div_rn is neither, but takes a call and makes kernels spill.)"""
    if a.dtype == tl.float64:
        return a / b
    else:
        inverse = 1.0 / b
        q = a * inverse
        rest = tl.fma(-q, b, a)
        return tl.where(tl.abs(rest) < float("inf"), tl.fma(rest, inverse, q), q)


@triton.jit
def quotient_of_any(a, b):
    """a / b to an ulp for any b > 0."""
    if a.dtype == tl.float64:
        return a / b
    else:
        # Where a becomes 0 or infinite by this, so does the quotient.
        scale = tl.where(b > _LARGE, _SCALE_DOWN, tl.where(b < _SMALL, _SCALE_UP, 1.0))
        return _quotient(a * scale, b * scale)


@triton.jit
def _power_of_two(n, C: tl.constexpr):
    """2^n for a whole number n whose power is a normal number."""
    if C == tl.float64:
        return ((n.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        return ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _reduced_expm1(v, C: tl.constexpr):
    """(n, q) with exp(v) = 2^n (1 + q) and |q| <= 0.42; the series ends below half an ulp."""
    n = tl.floor(v * _LOG2E + 0.5)
    r = (v - n * _LN2_HIGH) - n * _LN2_LOW
    TERMS: tl.constexpr = 13 if C == tl.float64 else 7
    p = r * (1.0 / TERMS)
    for k in tl.static_range(TERMS - 1, 1, -1):
        p = (r + r * p) * (1.0 / k)
    return n, r + r * p


@triton.jit
def exp(v):
    C: tl.constexpr = v.dtype
    # Beyond these the result is 0 or infinity; NaN is neither below nor above.
    LOW: tl.constexpr = -750.0 if C == tl.float64 else -105.0
    HIGH: tl.constexpr = 720.0 if C == tl.float64 else 90.0
    v = tl.where(v < LOW, LOW, v)
    v = tl.where(v > HIGH, HIGH, v)
    n, q = _reduced_expm1(v, C)
    # In two steps: 2^n itself may be too large or too small for a normal number.
    half = tl.floor(n * 0.5)
    return ((q + 1.0) * _power_of_two(half, C)) * _power_of_two(n - half, C)


@triton.jit
def tanh(v):
    """tanh |v| = e / (e + 2) with e = exp(2 |v|) - 1, which keeps its digits near 0."""
    C: tl.constexpr = v.dtype
    size = tl.abs(v) * 2.0
    size = tl.where(size > 40.0, 40.0, size)  # far above where tanh rounds to 1
    n, q = _reduced_expm1(size, C)
    scale = _power_of_two(n, C)
    e = scale * q + (scale - 1.0)
    magnitude = _quotient(e, e + 2.0)
    return tl.where(v < 0, -magnitude, magnitude)


@triton.jit
def sigmoid(v):
    """1 / (1 + exp(-v)), of which both sides stay in range: exp(v) / (exp(v) + 1) below 0."""
    e = exp(-tl.abs(v))
    return _quotient(tl.where(v < 0, e, 1.0), 1.0 + e)


@triton.jit
def log_abs(x, eps):
    """L = log(|x| + eps): equation 3."""
    return tl.log(tl.abs(x) + eps)


@triton.jit
def log_larger(x, eps):
    """log(max(|x|, eps)); a NaN passes."""
    size = tl.abs(x)
    return tl.log(tl.where(size < eps, eps, size))


@triton.jit
def grad_log_larger(grad, x, eps):
    """grad d/d|x| of it."""
    size = tl.abs(x)
    larger = tl.where(size < eps, eps, size)
    return tl.where(size >= eps, quotient_of_any(grad, larger), 0.0)


@triton.jit
def sign(x):
    """0 of a 0 and of a NaN."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0)).to(x.dtype)


@triton.jit
def grad_log_abs(grad, x, eps):
    """grad dL/dx, with sign(0) = 0 as in PyTorch: the second term of equation 12."""
    size = tl.abs(x)
    # x / |x| would overflow where x is infinite; a NaN is its own sign.
    sign = tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))
    return quotient_of_any(grad, size + eps) * sign


@triton.jit
def factors(W_hat, M_hat):
    """t and s, whose product is W: equation 1."""
    return tanh(W_hat), sigmoid(M_hat)


@triton.jit
def weight(W_hat, M_hat):
    """W = tanh(W_hat) sigmoid(M_hat): equation 1."""
    t, s = factors(W_hat, M_hat)
    return t * s


@triton.jit
def grad_factors(grad, t, s):
    """From W to (W_hat, M_hat): equations 10 and 11."""
    return (grad * s) * (1.0 - t * t), (grad * t) * ((1.0 - s) * s)


@triton.jit
def grad_weight(grad, W_hat, M_hat):
    """From W to (W_hat, M_hat), and W: equations 10 and 11."""
    t, s = factors(W_hat, M_hat)
    dW_hat, dM_hat = grad_factors(grad, t, s)
    return dW_hat, dM_hat, t * s


@triton.jit
def clamp_weight(W):
    """W within [-1, 1]; a NaN passes."""
    return tl.where(W < -1.0, -1.0, tl.where(W > 1.0, 1.0, W))


@triton.jit
def grad_clamp_weight(grad, W):
    """Passes within [-1, 1], the ends included."""
    return tl.where((W >= -1.0) & (W <= 1.0), grad, 0.0)


@triton.jit
def mix(a, m, g):
    """y = g a + (1 - g) m: equation 6."""
    return g * a + (1.0 - g) * m


@triton.jit
def product(a, b):
    """a b, and never a part of a fused multiply-add: the compiler makes none of one plus 0."""
    return tl.fma(a, b, tl.zeros_like(b))


@triton.jit
def grad_mix(dy, a, m, g):
    """From y to a, to the product's logarithm, and to g: equations 7 to 9.

    Where both products of (9) overflow, their difference is NaN; fused it would be infinite.
    """
    return dy * g, (dy * (1.0 - g)) * m, product(dy, a) - product(dy, m)


@triton.jit
def mix_signed(a, l, s, g, omega):  # noqa: E741
    """(y, m): y = g a + (1 - g) m s with m = exp(min(l, omega)), here negative where l is above."""
    m = exp(tl.where(l > omega, omega, l))
    return g * a + ((1.0 - g) * m) * s, tl.where(l > omega, -m, m)


@triton.jit
def grad_mix_signed(dy, a, m, s, g):
    """From y to a, to l and to g."""
    size, rest = tl.abs(m), dy * (1.0 - g)
    dl = tl.where(m >= 0, (rest * s) * size, 0.0)
    return dy * g, dl, product(dy, a) - product(dy * s, size)


@triton.jit
def grad_sign(dy, m, g):
    """From y to the product's sign."""
    return (dy * (1.0 - g)) * tl.abs(m)


@triton.jit
def grad_sigmoid(grad, g):
    return grad * ((1.0 - g) * g)


@triton.jit
def _polynomial(z, FACTORS: tl.constexpr, COUNT: tl.constexpr):
    sum = tl.full(z.shape, FACTORS[0], z.dtype)
    for k in tl.static_range(1, COUNT):
        sum = sum * z + FACTORS[k]
    return sum


@triton.jit
def sine_cosine(v):
    """Of angles beyond 10^6 within an ulp of the angle in float64.

    Source of the polynomials: Moshier, Cephes (sin, cos, sinf, cosf).
    """
    C: tl.constexpr = v.dtype
    wide = v.to(tl.float64)
    k = tl.floor(wide * _TWO_OVER_PI + 0.5)
    r = (((wide - k * _HALF_PI[0]) - k * _HALF_PI[1]) - k * _HALF_PI[2]).to(C)
    z = r * r
    if C == tl.float64:
        s, c = _polynomial(z, _SINE, 6), _polynomial(z, _COSINE, 6)
    else:
        s, c = _polynomial(z, _SINE_32, 3), _polynomial(z, _COSINE_32, 3)
    s = s * z * r + r
    c = c * z * z - z * 0.5 + 1.0
    quadrant = k - tl.floor(k * 0.25) * 4.0
    odd = (quadrant == 1.0) | (quadrant == 3.0)
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    sine = tl.where(quadrant >= 2.0, -sine, sine)
    return sine, tl.where((quadrant == 1.0) | (quadrant == 2.0), -cosine, cosine)


@triton.jit
def rectify(v, SIX: tl.constexpr):
    """ReLU, or ReLU6; a NaN passes."""
    v = tl.where(v < 0, 0.0, v)
    return tl.where(v > 6, 6.0, v) if SIX else v


@triton.jit
def grad_rectify(grad, v, SIX: tl.constexpr):
    """0 at the corners; of a NaN ReLU passes the gradient, ReLU6 does not."""
    if SIX:
        return tl.where((v > 0) & (v < 6), grad, 0.0)
    else:
        return tl.where(v <= 0, 0.0, grad)


@triton.jit
def square_root(v):
    """To half an ulp. (tl.sqrt of float32 is approximate.)"""
    if v.dtype == tl.float64:
        return tl.sqrt(v)
    else:
        return tl.sqrt_rn(v)
