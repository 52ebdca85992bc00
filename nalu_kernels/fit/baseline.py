"""What needs no search: a sum with coefficients, and a product of powers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import RealNPU
from .found import relative_error

_NEAR = 0.05  # an exponent this near to a whole or a half is taken for it
_PLAIN = (0.5, 1.0, 2.0)  # factors
_AS_GOOD = 1.1  # times the error of the best factor


def least_squares(x: Tensor, y: Tensor) -> nn.Sequential:
    """The linear regression of ``y`` (rows,) on ``x`` (rows, inputs), in float64 and ``eval()``.

    Of several that are as good, as there are with fewer rows than inputs, the one with the least
    coefficients of scaled inputs.
    """
    size, of_y = _size(x.abs().amax(0)), _size(y.abs().amax())
    mean_x, mean_y = (x / size).mean(0), (y / of_y).mean()
    weight = _solved(x / size - mean_x, y / of_y - mean_y)
    layer = nn.Linear(x.shape[1], 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_((weight / size * of_y).nan_to_num())
        layer.bias.copy_(((mean_y - weight @ mean_x) * of_y).nan_to_num())
    return nn.Sequential(layer).eval()


def power_law(x: Tensor, y: Tensor) -> nn.Sequential | None:
    """c · Π x_j^p_j: a RealNPU and a factor, by the linear regression of log\\|y\\| on log\\|x\\|.

    Exponents near a whole or a half become it. The factor is the median's, or a plain one that may
    be it. None where numbers of 0 leave too few rows.
    """
    there = (y != 0) & (x != 0).all(1)
    x, y = x[there], y[there]
    if len(y) < 2:
        return None
    logs = x.abs().log()
    weight = _solved(logs - logs.mean(0), y.abs().log() - y.abs().log().mean())
    whole = (2 * weight).round() / 2
    exponents = torch.where((weight - whole).abs() <= _NEAR, whole, weight)
    layer = RealNPU(x.shape[1], 1, dtype=torch.float64).eval()
    factor = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.W_re.copy_(exponents)
        layer.g.fill_(1)
        product = layer(x).squeeze(1)
        plain = plain_factor(product, y)
        factor.weight.fill_((y / product).median() if plain is None else plain)
        usable = bool(factor.weight.isfinite().all() and layer.W_re.isfinite().all())
    return nn.Sequential(layer, factor).eval() if usable else None


def plain_factor(product: Tensor, y: Tensor) -> float | None:
    """One of ±1/2, ±1, ±2 that is nearly as good a factor from ``product`` to ``y``, both (rows,),
    as the median of y / ``product``."""
    ratio = (y / product)[product != 0]
    if not len(ratio):
        return None
    c = float(ratio.median())
    plain = min((sign * size for sign in (-1, 1) for size in _PLAIN), key=lambda one: abs(one - c))
    as_good = _AS_GOOD * relative_error(c * product, y)
    return plain if relative_error(plain * product, y) <= as_good else None


def _solved(x: Tensor, y: Tensor) -> Tensor:
    """The least weights (inputs,) of the least squares."""
    return torch.linalg.lstsq(x, y.unsqueeze(1), driver="gelsd").solution[:, 0]


def _size(largest: Tensor) -> Tensor:
    return torch.where(largest > 0, largest, 1.0)
