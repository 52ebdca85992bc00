"""Initial values of the layers' parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def init_range(in_features: int, out_features: int) -> float:
    r"""The r for which W has Glorot's variance when W_hat and M_hat are uniform on (-r, r).

    Var(tanh Ŵ · σ M̂) = (1 - tanh(r)/r) (r - tanh(r/2)) / (2r) = 2 / (in + out).

    The left side grows from 0 to 1/2 with r; in + out below 5 would ask for (nearly) more than
    that, so it counts as 5. Source: Madsen and Johansen 2020, "Neural Arithmetic Units", appendix.
    """
    target = 2 / max(in_features + out_features, 5)

    def variance(r: float) -> float:
        return (1 - math.tanh(r) / r) * (r - math.tanh(r / 2)) / (2 * r)

    low, high = 1e-4, 100.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if variance(middle) < target:
            low = middle
        else:
            high = middle
    return high


def draw_weights(*parameters: Tensor | None) -> None:
    """Draws parameters of shape (out_features, in_features), W_hat and the like, in this order."""
    for parameter in parameters:
        if parameter is not None:
            out_features, in_features = parameter.shape[-2:]
            r = init_range(in_features, out_features)
            with torch.no_grad():
                parameter.uniform_(-r, r)


def nau_range(in_features: int, out_features: int) -> float:
    r"""The r of an NAU's W, uniform on (-r, r): :math:`\min(1/2, \sqrt{6 / (in + out)})`.

    Glorot's range, within the half of [-1, 1] that is closer to 0 than to ±1. Source: Madsen and
    Johansen 2020, "Neural Arithmetic Units", section 2.4, and their code.
    """
    return min(0.5, math.sqrt(6 / max(in_features + out_features, 1)))


def draw_xavier(parameter: Tensor) -> None:
    """Draws a parameter uniformly within Glorot's range, which the sigmoid's gain of 1 keeps."""
    if parameter.numel():
        with torch.no_grad():
            for unit in parameter.unbind(0) if parameter.dim() == 3 else (parameter,):
                nn.init.xavier_uniform_(unit)


def xavier_std(in_features: int, out_features: int) -> float:
    """The standard deviation that Glorot's normal start has."""
    return math.sqrt(2 / max(in_features + out_features, 1))


def draw_uniform(parameter: Tensor, low: float, high: float) -> None:
    """Draws a parameter uniformly on (low, high)."""
    with torch.no_grad():
        parameter.uniform_(low, high)


def draw_normal(parameter: Tensor | None, mean: float, std: float) -> None:
    """Draws a parameter of that mean and standard deviation; None has nothing to draw."""
    if parameter is not None:
        with torch.no_grad():
            parameter.normal_(mean, std)
