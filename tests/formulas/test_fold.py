"""Expressions on rows and on boxes."""

from __future__ import annotations

import math

import pytest
import sympy
import torch

from nalu_kernels.formulas.fold import bounds, evaluate

x, y = sympy.symbols("x y", real=True)
BOX = {x: (-1.0, 2.0), y: (1.0, 3.0)}
BOUNDS = [
    (x + y, (0, 5)),
    (x * y, (-3, 6)),
    (x / y, (-1, 2)),
    (y / x, (-math.inf, math.inf)),
    (x**2, (0, 4)),
    (sympy.Abs(x), (0, 2)),
    (sympy.sign(x) * y, (-3, 3)),
    (sympy.Max(0, -sympy.sign(x)), (0, 1)),
    (sympy.Min(6, sympy.exp(x)), (math.exp(-1), 6)),
    (sympy.sqrt(y), (1, math.sqrt(3))),
    (sympy.sqrt(sympy.Abs(x)), (0, math.sqrt(2))),
    (sympy.sqrt(x), (-math.inf, math.inf)),
    (sympy.cos(x), (math.cos(2), 1)),
    (sympy.log(sympy.Abs(x)), (-math.inf, math.log(2))),
    ((-1) ** sympy.Max(0, -sympy.sign(x)), (-1, 1)),
    (1 / (1 + sympy.exp(-x)), (1 / (1 + math.e), 1 / (1 + math.exp(-2)))),
]


@pytest.mark.parametrize(("expression", "expected"), BOUNDS, ids=lambda of: str(of)[:30])
def test_bounds(expression: sympy.Expr, expected: tuple[float, float]) -> None:
    low, high = bounds(expression, BOX)
    assert (low, high) == pytest.approx(expected, rel=1e-12)
    assert low <= expected[0] or math.isclose(low, expected[0], rel_tol=1e-15)


@pytest.mark.parametrize(("expression", "_"), BOUNDS, ids=lambda of: str(of)[:30])
def test_values_are_within_bounds(expression: sympy.Expr, _: object) -> None:
    torch.manual_seed(0)
    columns = {
        symbol: low + (high - low) * torch.rand(1000, dtype=torch.float64)
        for symbol, (low, high) in BOX.items()
    }
    values = evaluate(expression, columns)
    low, high = bounds(expression, BOX)
    fits = values[~values.isnan()]
    assert bool(((low <= fits) & (fits <= high)).all())


def test_a_number_is_a_column_too() -> None:
    column = torch.zeros(3, dtype=torch.float64)
    assert evaluate(sympy.Rational(1, 3), {x: column}).tolist() == [1 / 3] * 3
    assert evaluate(sympy.zoo, {x: column}).isnan().all()
    assert bounds(sympy.pi, BOX) == (math.pi, math.pi)
