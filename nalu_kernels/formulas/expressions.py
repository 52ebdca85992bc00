"""What a layer computes as expressions of its inputs, by the layers' equations (docs/family.md).

|x| and sign(x) are printed only where the box of the given inputs leaves x both signs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, nn

from ..layers import (
    INALU,
    NAC,
    NACNMU,
    NALU,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    NACSigma,
    RealNPU,
)
from .fold import Box, bounds
from .whole import fraction

Expressions = list[sympy.Expr]


def express(layer: nn.Module, inputs: Sequence[sympy.Expr], box: Box) -> Expressions:
    """The outputs of a rounded layer, whose inputs are expressions themselves."""
    return _EXPRESSIONS[type(layer)](layer, [_Input(of, box) for of in inputs])


def number(value: float | Tensor) -> sympy.Expr:
    """A float64 as an integer or a small fraction, where it is one, or at full precision."""
    value = float(value)
    exact = fraction(value)
    if exact is not None:
        return sympy.Rational(exact.numerator, exact.denominator)
    return sympy.Float(repr(value))


class _Input:
    """An input of a layer, with what its bounds tell about its sign."""

    def __init__(self, value: sympy.Expr, box: Box) -> None:
        self.value = value
        self.low, self.high = bounds(value, box)

    @property
    def size(self) -> sympy.Expr:
        if self.low >= 0:
            return self.value
        return -self.value if self.high <= 0 else sympy.Abs(self.value)

    @property
    def sign(self) -> sympy.Expr:
        if self.low > 0:
            return sympy.S.One
        return sympy.S.NegativeOne if self.high < 0 else sympy.sign(self.value)

    @property
    def is_negative(self) -> sympy.Expr:
        """1 where it is below 0, else 0."""
        if self.low >= 0:
            return sympy.S.Zero
        return sympy.S.One if self.high < 0 else sympy.Max(0, -sympy.sign(self.value))


def _sum(row: Tensor, inputs: Sequence[_Input]) -> sympy.Expr:
    return sympy.Add(*(number(w) * x.value for w, x in zip(row, inputs, strict=True)))


def _sums(W: Tensor, inputs: Sequence[_Input]) -> Expressions:
    return [_sum(row, inputs) for row in W]


def _eps(value: float) -> sympy.Expr:
    """One of 1e-300 stands for none."""
    return sympy.S.Zero if value < 1e-200 else number(value)


def _product(row: Tensor, inputs: Sequence[_Input], eps: float) -> sympy.Expr:
    """exp(log(|x| + eps) w)"""
    added = _eps(eps)
    return sympy.Mul(
        *((x.size + added) ** number(w) for w, x in zip(row, inputs, strict=True) if w != 0)
    )


def _sigmoid(z: sympy.Expr) -> sympy.Expr:
    if z.is_Number:
        return number(torch.sigmoid(torch.tensor(float(z), dtype=torch.float64)))
    return 1 / (1 + sympy.exp(-z))


def _mixed(gate: sympy.Expr, a: sympy.Expr, m: sympy.Expr) -> sympy.Expr:
    """One that is 0 or 1 leaves one of the two, whatever the other is."""
    return m if gate == 0 else a if gate == 1 else gate * a + (1 - gate) * m


def _nac(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    if not layer.log_space:
        return _sums(layer.W, inputs)
    return [_product(row, inputs, layer.eps) for row in layer.W]


def _log_space(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    return [_product(row, inputs, layer.eps) for row in layer.W]


def _nau(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    return _sums(layer.W.clamp(-1, 1), inputs)


def _selected(row: Tensor, inputs: Sequence[sympy.Expr]) -> sympy.Expr:
    """An NMU's product of w x + 1 - w."""
    return sympy.Mul(
        *(number(w) * x + number(1 - w) for w, x in zip(row, inputs, strict=True) if w != 0)
    )


def _nmu(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    return [_selected(row, [x.value for x in inputs]) for row in layer.W]


def _nalu(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    made = []
    for output, (row, row_mul) in enumerate(zip(layer.W, layer.W_mul, strict=True)):
        at = output if len(layer.G) > 1 else 0
        gate = _sigmoid(_sum(layer.G[at], inputs) + number(layer.gate_bias[at]))
        made.append(_mixed(gate, _sum(row, inputs), _product(row_mul, inputs, layer.eps)))
    return made


def _inalu(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    added = _eps(layer.eps)
    per_sample = layer.gate == "vector"
    sizes = [x.size + added if per_sample else _at_least(x.size, added) for x in inputs]
    most = None if layer.omega >= 700 else sympy.exp(number(layer.omega))
    made = []
    for output, (row, row_mul) in enumerate(zip(layer.W, layer.W_mul, strict=True)):
        powers, signs = [], []
        for w, size, x in zip(row_mul, sizes, inputs, strict=True):
            if w in (1, -1) and added == 0 and most is None:
                powers.append(x.value ** int(w))
            elif w != 0:
                powers.append(size ** number(w))
                signs.append(number(w.abs()) * x.sign + number(1 - w.abs()))
        product = sympy.Mul(*powers)
        product = product if most is None else sympy.Min(product, most)
        if layer.g.dim() == 1:
            z = number(layer.g[output])
        else:
            gates = layer.g[output if len(layer.g) > 1 else 0]
            z = sympy.Add(*(number(w) * x.size for w, x in zip(gates, inputs, strict=True)))
        m = product * sympy.Mul(*signs)
        made.append(_mixed(_sigmoid(z), _sum(row, inputs), m))
    return made


def _at_least(size: sympy.Expr, eps: sympy.Expr) -> sympy.Expr:
    return size if eps == 0 else sympy.Max(size, eps)


def _power(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    """Products of r^w and the cosine of what the negative inputs turn by; whole powers of an input
    that counts wholly are plain powers of it."""
    added = _eps(layer.eps)
    gates = layer.g.clamp(0, 1)
    made = []
    for output, row in enumerate(layer.W_re):
        turned = layer.W_im[output] if isinstance(layer, NPU) else torch.zeros_like(row)
        factors, angles = [], []
        for w, v, g, x in zip(row, turned, gates, inputs, strict=True):
            g_of = number(g)
            size = g_of * (x.size + added) + number(1 - g)
            if v == 0 and g == 1 and float(w).is_integer():
                power = int(w)
                if added == 0:
                    factors.append(x.value**power)
                else:
                    turn = 1 - 2 * x.is_negative if power % 2 else sympy.S.One
                    factors.append(turn * size**power)
                continue
            factors.append(size ** number(w))
            turn = sympy.pi * g_of * x.is_negative
            factors.append(sympy.exp(-turn * number(v)))
            angles.append(turn * number(w))
            angles.append(number(v) * sympy.log(size) if v != 0 else sympy.S.Zero)
        made.append(sympy.Mul(*factors, _cosine(sympy.Add(*angles))))
    return made


def _cosine(angle: sympy.Expr) -> sympy.Expr:
    """A number of an angle that is one, unless sympy knows it."""
    found = sympy.cos(angle)
    return number(float(found)) if angle.is_number and found.has(sympy.cos) else found


def _nru(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    made = []
    for row in layer.W:
        factors = []
        for w, x in zip(row, inputs, strict=True):
            if w in (1, -1):
                factors.append(x.value ** int(w))
            elif w != 0:
                signed = (1 - 2 * x.is_negative) * x.size ** number(w)
                factors.append(number(w.abs()) * signed + number(1 - w.abs()))
        made.append(sympy.Mul(*factors))
    return made


def _nmru(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    made = []
    for row in layer.W:
        own, reciprocal = row.chunk(2)
        factors, angles = [], []
        for w, r, x in zip(own, reciprocal, inputs, strict=True):
            if w in (0, 1) and r in (0, 1):
                factors.append(x.value ** (int(w) - int(r)))
                continue
            factors.append(_selected(torch.stack((w, r)), [x.size, 1 / x.size]))
            angles.append(sympy.pi * number(w + r) * x.is_negative)
        made.append(sympy.Mul(*factors, _cosine(sympy.Add(*angles))))
    return made


def _linear(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    sums = _sums(layer.weight, inputs)
    if layer.bias is None:
        return sums
    return [of + number(bias) for of, bias in zip(sums, layer.bias, strict=True)]


def _relu(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    return [x.value if x.low >= 0 else sympy.Max(0, x.value) for x in inputs]


def _relu6(layer: Any, inputs: Sequence[_Input]) -> Expressions:
    return [
        of if x.high <= 6 else sympy.Min(6, of)
        for of, x in zip(_relu(layer, inputs), inputs, strict=True)
    ]


_EXPRESSIONS: dict[type, Callable[[Any, Sequence[_Input]], Expressions]] = {
    NAC: _nac,
    NACSigma: _log_space,
    NACNMU: _log_space,
    NALU: _nalu,
    INALU: _inalu,
    NAU: _nau,
    NMU: _nmu,
    NPU: _power,
    RealNPU: _power,
    NRU: _nru,
    NMRU: _nmru,
    nn.Linear: _linear,
    nn.ReLU: _relu,
    nn.ReLU6: _relu6,
}
