"""Initial values of W_hat and M_hat."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
            out_features, in_features = parameter.shape
            r = init_range(in_features, out_features)
            with torch.no_grad():
                parameter.uniform_(-r, r)
