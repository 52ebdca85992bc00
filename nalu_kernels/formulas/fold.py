"""Expressions as numbers: on rows of inputs, and on a box of them by interval arithmetic.

Both walk over the same few kinds of nodes, those that :mod:`.expressions` makes and sympy's
simplification leaves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from mpmath import iv
from torch import Tensor

Box = Mapping[sympy.Symbol, tuple[float, float]]


def evaluate(expression: sympy.Expr, columns: Mapping[sympy.Symbol, Tensor]) -> Tensor:
    """The expression's values (rows,), float64, of a column (rows,) for each symbol."""
    rows = next(iter(columns.values()))
    number: Callable[[float], Tensor] = functools.partial(torch.full_like, rows)
    value: Tensor = _fold(expression, dict(columns), number, _TENSORS)
    return value


def bounds(expression: sympy.Expr, box: Box) -> tuple[float, float]:
    """Numbers between which the expression lies wherever its symbols lie in the box.

    mpmath rounds them outwards, so that they prove what they say; -inf and inf where nothing is
    known. What an expression has twice counts as two things, so they may be far apart.
    """
    known = {symbol: iv.mpf(list(sides)) for symbol, sides in box.items()}
    try:
        found = _fold(expression, known, iv.mpf, _INTERVALS)
    except (ValueError, ZeroDivisionError, OverflowError, NotImplementedError):
        return -math.inf, math.inf
    low, high = float(found.a), float(found.b)
    if math.isnan(low) or math.isnan(high):
        return -math.inf, math.inf
    return low, high


def _fold(
    expression: sympy.Expr,
    known: dict[Any, Any],
    number: Callable[[float], Any],
    functions: Mapping[type, Callable[..., Any]],
) -> Any:
    """The value of the expression, and into ``known`` of all in it, so that each is taken once."""

    def value(of: Any) -> Any:
        if of not in known:
            known[of] = made(of)
        return known[of]

    def made(of: Any) -> Any:
        if of is sympy.zoo:  # 1/0, of either sign
            return number(math.nan)
        if of.is_Number or of.is_NumberSymbol:
            return number(float(of))
        if isinstance(of, sympy.Pow):
            base, exponent = of.args
            return functions[sympy.Pow](value(base), value(exponent), exponent)
        parts = [value(part) for part in of.args]
        if isinstance(of, (sympy.Add, sympy.Mul, sympy.Max, sympy.Min)):
            return functools.reduce(functions[of.func], parts)
        return functions[of.func](*parts)

    return value(expression)


def _power(base: Tensor, exponent: Tensor, of: sympy.Expr) -> Tensor:
    return torch.sqrt(base) if of == sympy.S.Half else torch.pow(base, exponent)


_TENSORS: Mapping[type, Callable[..., Any]] = {
    sympy.Add: torch.add,
    sympy.Mul: torch.mul,
    sympy.Pow: _power,
    sympy.Max: torch.maximum,
    sympy.Min: torch.minimum,
    sympy.Abs: torch.abs,
    sympy.sign: torch.sign,
    sympy.exp: torch.exp,
    sympy.log: torch.log,
    sympy.cos: torch.cos,
    sympy.sin: torch.sin,
}


def _interval_power(base: Any, exponent: Any, of: sympy.Expr) -> Any:
    everything = iv.mpf([-math.inf, math.inf])
    if of.is_Integer:
        power = int(of)
        if power < 0 and base.a <= 0 <= base.b:
            return everything
        if power % 2 == 0:
            base = _size(base)  # whose power is no less than 0
        return base**power
    if base.a > 0 or (base.a == 0 and exponent.a > 0):
        return base**exponent
    return iv.mpf([-1, 1]) if base == -1 else everything  # (-1)^n: a cosine, as sympy writes it


def _size(of: Any) -> Any:
    if of.a >= 0:
        return of
    if of.b <= 0:
        return -of
    return iv.mpf([0, max(-of.a, of.b)])


def _sign(of: Any) -> Any:
    return iv.mpf([_sign_of(of.a), _sign_of(of.b)])


def _sign_of(side: Any) -> int:
    return 1 if side > 0 else -1 if side < 0 else 0


_INTERVALS: Mapping[type, Callable[..., Any]] = {
    sympy.Add: lambda a, b: a + b,
    sympy.Mul: lambda a, b: a * b,
    sympy.Pow: _interval_power,
    sympy.Max: lambda a, b: iv.mpf([max(a.a, b.a), max(a.b, b.b)]),
    sympy.Min: lambda a, b: iv.mpf([min(a.a, b.a), min(a.b, b.b)]),
    sympy.Abs: _size,
    sympy.sign: _sign,
    sympy.exp: iv.exp,
    sympy.log: iv.log,
    sympy.cos: iv.cos,
    sympy.sin: iv.sin,
}
