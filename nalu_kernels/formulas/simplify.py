"""A shorter form of an expression, if sympy finds one and it gives the same numbers."""

from __future__ import annotations

from collections.abc import Mapping

import sympy
import torch
from torch import Tensor

from .fold import evaluate

AGREE = 1e-9  # relative
_NOTHING = 1e-200  # what an eps that stands for none comes to where an input is 0
_MOST_OPERATIONS = 150  # of an expression that is worth sympy's time


def simplified(expression: sympy.Expr, columns: Mapping[sympy.Symbol, Tensor]) -> sympy.Expr:
    """The shortest of a few forms that agree with the expression on the given rows."""
    if expression.atoms(sympy.Float) or sympy.count_ops(expression) > _MOST_OPERATIONS:
        return expression
    values = evaluate(expression, columns)
    forms = [expression]
    for form in (_combined, sympy.factor, sympy.expand):
        found = form(expression)
        if disagreement(evaluate(found, columns), values) <= AGREE:
            forms.append(found)
    return min(forms, key=lambda form: (sympy.count_ops(form), len(str(form)), str(form)))


def _combined(expression: sympy.Expr) -> sympy.Expr:
    return sympy.factor(sympy.cancel(expression))


def disagreement(values: Tensor, truth: Tensor) -> float:
    """The largest difference of two columns relative to their size; infinite where one of them is
    not a number and the other is."""
    same = (values == truth) | (values.isnan() & truth.isnan())
    size = torch.maximum(values.abs(), truth.abs()).clamp(min=_NOTHING)
    off = (values - truth).abs() / size
    worst = torch.where(same, 0.0, off)
    return float(worst.nan_to_num(nan=float("inf")).max()) if len(worst) else 0.0
