"""How far from the truth may a computation land that rounds every result?

The formulas of a layer and of its gradients, written out once more in float64 on numbers that
carry a bound on their rounding error: a running error analysis to first order (Higham, "Accuracy
and Stability of Numerical Algorithms", 2nd ed., section 3.3).

The bounds are those of straightforward code: one rounding, at most u = half an ulp, for each
addition, product and quotient; 2u for exp, log, tanh and 3u for sigmoid, which are not correctly
rounded anywhere; and sqrt(K) u of the sum of the terms' magnitudes for a sum of K terms, because
roundings are as often up as down (Higham and Mary 2019, "A new approach to probabilistic rounding
error analysis").

Where operands of products are shortened before they are multiplied, each of them carries all of
that error as well, not by its square root: those of one operand are made once, for many products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from layers import Layer

# How far an operand of a product is shortened, by the name of the product: relative to itself, and
# at least, for no piece holds less than the smallest subnormal number of its format.
_TF32, _BF16, _FP16 = 2.0**-137, 2.0**-134, 2.0**-25
SHORTENED = {
    "bf16x6": (0.0, _BF16),  # otherwise by less than one rounding of the sum
    "bf16x3": (1.5 * 2.0**-16, _BF16),  # with half of the product left out, 2^-16
    "tf32": (2.0**-10, _TF32),
    "bf16": (2.0**-8, _BF16),
    "fp16": (2.0**-11, _FP16),
}


class Products(NamedTuple):
    """Which product each path takes, (linear and gate, log-space), forward and backward."""

    forward: tuple[str, str] = ("ieee", "ieee")
    backward: tuple[str, str] = ("ieee", "ieee")


FULL = Products()


@dataclass
class Arithmetic:
    """A floating-point format, and whether a computation in it came near one of its cliffs."""

    dtype: torch.dtype
    # A NaN or an infinity may then appear or not, according to how the last bit was rounded.
    near_cliff: bool = False

    @property
    def u(self) -> float:
        return torch.finfo(self.dtype).eps / 2

    def rounded(
        self, value: Tensor, inherited: Tensor, *, size: Tensor | None = None, roundings: float = 1
    ) -> Bounded:
        """``value``, with the error inherited from its operands and that of some roundings of
        numbers up to ``size`` (default: the value itself); beyond the largest number, infinite."""
        info = torch.finfo(self.dtype)
        size = value.abs() if size is None else size
        if not bool((size < info.max / 4).all()):
            # A sum of huge terms of both signs overflows first to the one side or to the other.
            mixed = size > 1.001 * value.abs()
            edge = (size > info.max / 4) & (mixed | (value.abs() < 4 * info.max))
            self.near_cliff |= bool(edge.any())
            value = torch.where(value.abs() > info.max, value.sign() * torch.inf, value)
        # Subnormal numbers are as far apart as the smallest normal ones.
        error = inherited + roundings * (self.u * size + info.eps * info.tiny)
        return Bounded(self, value, error)

    def watch_infinite_sums(self, a: Tensor, b: Tensor) -> None:
        """Beside an infinite term of ``a @ b``, one that overflows makes a NaN of the sum or, as a
        part of a multiply-add, does not."""
        if bool(a.isfinite().all()) and bool(b.isfinite().all()):
            return
        a_finite, b_finite = (torch.where(t.isfinite(), t.abs(), 0) for t in (a, b))
        huge = a_finite @ b_finite > torch.finfo(self.dtype).max / 4
        self.near_cliff |= bool((huge & ~(a @ b).isfinite()).any())


@dataclass(frozen=True)
class Bounded:
    """A value in float64, and how far from it a computation in ``arithmetic`` may have landed."""

    arithmetic: Arithmetic
    value: Tensor
    error: Tensor

    @classmethod
    def exact(cls, arithmetic: Arithmetic, value: Tensor) -> Bounded:
        return cls(arithmetic, value, torch.zeros_like(value))

    @property
    def T(self) -> Bounded:
        return Bounded(self.arithmetic, self.value.T, self.error.T)

    def __add__(self, other: Bounded) -> Bounded:
        return self.arithmetic.rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Bounded) -> Bounded:
        return self.arithmetic.rounded(self.value - other.value, self.error + other.error)

    def __rsub__(self, other: float) -> Bounded:
        return self.arithmetic.rounded(other - self.value, self.error)

    def _product_error(self, other: Bounded, product: str) -> Tensor:
        multiply = getattr(torch, product)
        return (
            multiply(self.value.abs(), other.error)
            + multiply(self.error, other.value.abs())
            + multiply(self.error, other.error)
        )

    def __mul__(self, other: Bounded) -> Bounded:
        return self.arithmetic.rounded(self.value * other.value, self._product_error(other, "mul"))

    def matmul(self, other: Bounded, product: str) -> Bounded:
        a, b = self._shortened(product), other._shortened(product)
        self.arithmetic.watch_infinite_sums(a.value, b.value)
        return self.arithmetic.rounded(
            a.value @ b.value,
            a._product_error(b, "matmul"),
            size=a.value.abs() @ b.value.abs(),
            roundings=max(1, a.value.shape[1]) ** 0.5,
        )

    def _shortened(self, product: str) -> Bounded:
        if product not in SHORTENED:
            return self
        relative, least = SHORTENED[product]
        size = self.value.abs()
        shortening = torch.where(size > 0, (relative * size).clamp(min=least), size)
        return Bounded(self.arithmetic, self.value, self.error * (1 + relative) + shortening)

    def __truediv__(self, other: Bounded) -> Bounded:
        value = self.value / other.value
        inherited = (self.error + value.abs() * other.error) / other.value.abs()
        return self.arithmetic.rounded(value, inherited)

    def sum(self, dim: int) -> Bounded:
        return self.arithmetic.rounded(
            self.value.sum(dim, keepdim=True),
            self.error.sum(dim, keepdim=True),
            size=self.value.abs().sum(dim, keepdim=True),
            roundings=max(1, self.value.shape[dim]) ** 0.5,
        )

    def exp(self) -> Bounded:
        value = self.value.exp()
        return self.arithmetic.rounded(value, value * self.error.expm1(), roundings=2)

    def log(self) -> Bounded:
        return self.arithmetic.rounded(self.value.log(), self.error / self.value, roundings=2)

    def tanh(self) -> Bounded:
        value = self.value.tanh()
        return self.arithmetic.rounded(value, (1 - value**2) * self.error, roundings=2)

    def sigmoid(self) -> Bounded:
        value = self.value.sigmoid()
        slope = value * (-self.value).sigmoid()
        # exp(-z), and with it 1 + exp(-z), overflows before its inverse underflows; 1 - sigmoid
        # reaches 0 between 15 and 20 (in float64, 34 and 38).
        tiny = torch.finfo(self.arithmetic.dtype).tiny
        flushed = torch.where(value < 4 * tiny, value, 0)
        full = -math.log(self.arithmetic.u)
        size = self.value.abs()
        cliffs = ((size > full - 2) & (size < full + 3)) | ((value < 8 * tiny) & (value > 0))
        # What is left of huge terms that cancel may be on either side.
        cliffs |= (self.error > 1) & (size - self.error < full + 3)
        self.arithmetic.near_cliff |= bool(cliffs.any())
        inherited = (slope * self.error.expm1()).clamp(max=1) + flushed
        return self.arithmetic.rounded(value, inherited, roundings=3)


def error_bounds(layer: Layer, products: Products = FULL) -> tuple[dict[str, Bounded], bool]:
    """The output and each tensor's gradient, with the error that straightforward code, taking those
    products, may make before it rounds to a half-precision dtype; and whether a computation came
    near a cliff.
    """
    dtype = layer.grad_output.dtype
    arithmetic = Arithmetic(dtype if dtype == torch.float64 else torch.float32)

    def exact(tensor: Tensor) -> Bounded:
        return Bounded.exact(arithmetic, tensor.detach().cpu().double())

    given = {name: exact(tensor) for name, tensor in layer.tensors.items()}
    B = math.prod(layer.grad_output.shape[:-1])
    x = exact(layer.tensors["input"].reshape(B, layer.tensors["input"].shape[-1]))
    dy = exact(layer.grad_output.reshape(B, layer.grad_output.shape[-1]))
    eps = torch.full_like(x.value, layer.options["eps"])
    shifted = arithmetic.rounded(x.value.abs() + eps, arithmetic.u * eps)
    L = shifted.log()
    sign = exact(x.value.sign())

    found: dict[str, Bounded] = {}
    t, s = given["W_hat"].tanh(), given["M_hat"].sigmoid()
    W = t * s
    (linear, log), (back_linear, back_log) = products

    def give_weight(dW: Bounded, t: Bounded, s: Bounded, suffix: str = "") -> None:
        found["W_hat" + suffix] = (dW * s) * (1 - t * t)
        found["M_hat" + suffix] = (dW * t) * ((1 - s) * s)

    if layer.function == "nac":
        if layer.options["log_space"]:
            m = L.matmul(W.T, log).exp()
            found["output"] = m
            if dtype != arithmetic.dtype:
                # Saved for the backward as it was returned, in half precision.
                stored = Arithmetic(dtype)
                m = Bounded(arithmetic, m.value, stored.rounded(m.value, m.error).error)
            dl = dy * m
            found["input"] = (dl.matmul(W, back_log) / shifted) * sign
            give_weight(dl.T.matmul(L, back_log), t, s)
        else:
            found["output"] = x.matmul(W.T, linear)
            found["input"] = dy.matmul(W, back_linear)
            give_weight(dy.T.matmul(x, back_linear), t, s)
        return _shaped(found, layer), arithmetic.near_cliff

    untied = "W_hat_mul" in given
    t_mul, s_mul, W_mul = t, s, W
    if untied:
        t_mul, s_mul = given["W_hat_mul"].tanh(), given["M_hat_mul"].sigmoid()
        W_mul = t_mul * s_mul
    G = given["G"]
    one_gate = G.value.shape[0] == 1
    # A gate per sample has too narrow a product to take any other.
    gate, back_gate = ("ieee", "ieee") if one_gate else (linear, back_linear)
    a, m = x.matmul(W.T, linear), L.matmul(W_mul.T, log).exp()
    z = x.matmul(G.T, gate)
    if "gate_bias" in given:
        z = z + given["gate_bias"]
    g = z.sigmoid()
    found["output"] = g * a + (1 - g) * m

    da, dl, dg = dy * g, (dy * (1 - g)) * m, dy * (a - m)
    if one_gate:
        dg = dg.sum(1)
    dz = dg * ((1 - g) * g)
    through_sum = da.matmul(W, back_linear) + dz.matmul(G, back_gate)
    found["input"] = through_sum + (dl.matmul(W_mul, back_log) / shifted) * sign
    if untied:
        give_weight(da.T.matmul(x, back_linear), t, s)
        give_weight(dl.T.matmul(L, back_log), t_mul, s_mul, "_mul")
    else:
        give_weight(da.T.matmul(x, back_linear) + dl.T.matmul(L, back_log), t, s)
    found["G"] = dz.T.matmul(x, back_gate)
    if "gate_bias" in given:
        found["gate_bias"] = dz.sum(0)
    return _shaped(found, layer), arithmetic.near_cliff


def _shaped(found: dict[str, Bounded], layer: Layer) -> dict[str, Bounded]:
    shapes = {name: tensor.shape for name, tensor in layer.tensors.items()}
    shapes["output"] = layer.grad_output.shape
    return {
        name: Bounded(b.arithmetic, b.value.reshape(shapes[name]), b.error.reshape(shapes[name]))
        for name, b in found.items()
    }
