"""A model of a skeleton: an ordinary stack, its factor and its error."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import rounding
from .candidates import Candidate

_NEAR = 1e-3  # coefficients over the largest that are so near to -1, 0 or 1 become it
_NEAR_EXPONENT = 0.1
_EXACT = 1e-9  # an error that is rounding errors
_AS_GOOD = 1.01  # times the error of all terms that fewer may have
_ONE = 1e-6  # a factor so near to 1 or -1 in size is that


class Found(NamedTuple):
    """A model: ``scale`` times ``model(x[:, columns])``.

    Attributes:
        candidate: its stack and settings.
        model: the stack in float64, in ``eval()``. All weights but the last layer's are -1, 0 or 1,
            and the last layer's where the data say so. What a weight of 0 hides has weights of 0.
        columns: the places in the table of the model's inputs; None for all. Columns without a
            weight are left out.
        scale: a factor; 1.0 for none.
        error: on the choosing rows, the mean of ``|f - y| / (|y| + t)``, t the typical size of y.
        seeds, steps: of this candidate, tried and done until the model was found.
    """

    candidate: Candidate
    model: nn.Sequential
    columns: tuple[int, ...] | None
    scale: float
    error: float
    seeds: int
    steps: int


def found(
    candidate: Candidate,
    skeleton: Tensor,
    x: Tensor,
    y: Tensor,
    choosing_x: Tensor,
    choosing_y: Tensor,
    seeds: int,
    steps: int,
) -> Found:
    """The model of a skeleton (weights,): its last layer and its factor follow from x and y."""
    skeletons = skeleton.unsqueeze(0)
    weights = [part[0].clone() for part in rounding.split(candidate, x.shape[1], skeletons)]
    if len(candidate.layers) > 1:
        numbers = rounding.hidden(candidate, skeletons, x)
        weights.append(_last(candidate, numbers, y).unsqueeze(0))
    for before, after in zip(weights[-2::-1], weights[:0:-1], strict=True):
        before[(after == 0).all(0)] = 0.0
    columns = _used(weights[0])
    if columns is not None:
        weights[0] = weights[0][:, columns]
        x, choosing_x = x[:, columns], choosing_x[:, columns]
    model = _filled(candidate, weights)
    scale = _factor(_output(model, x), y)
    if scale < 0 and candidate.multiplies_last and candidate.layers[-2] == "NAU":
        odd = (weights[-1][0].abs() == 1).nonzero()
        if len(odd):
            weights[-2][odd[0]] *= -1
            model, scale = _filled(candidate, weights), -scale
    error = relative_error(scale * _output(model, choosing_x), choosing_y)
    return Found(candidate, model, columns, scale, error, seeds, steps)


def relative_error(made: Tensor, y: Tensor) -> float:
    """The mean of ``|made - y| / (|y| + t)``, t the typical size of y; infinite instead of NaN."""
    error = float(((made - y).abs() / (y.abs() + rounding.typical(y))).mean())
    return math.inf if math.isnan(error) else error


def _last(candidate: Candidate, numbers: Tensor, y: Tensor) -> Tensor:
    """The last layer's weights (hidden,) for hidden numbers (1, hidden, rows)."""
    weights, error = rounding.last(candidate, numbers, y)
    without = numbers.clone()
    for k in range(candidate.hidden):  # numbers that others make up for, such as equal ones
        kept = without[:, k].clone()
        without[:, k] = 1.0 if candidate.multiplies_last else 0.0
        fewer, of_fewer = rounding.last(candidate, without, y)
        worse = of_fewer[0] > max(_EXACT, _AS_GOOD * float(error))
        if worse or (candidate.multiplies_last and fewer.abs().max() > 1 + _NEAR_EXPONENT):
            without[:, k] = kept
        else:
            weights = fewer
    if candidate.multiplies_last:
        near = (weights[0] - weights[0].round()).abs() < _NEAR_EXPONENT
        exponents = torch.where(near, weights[0].round(), weights[0])
        return exponents.clamp(0, 1) if candidate.layers[-1] == "NMU" else exponents
    coefficients = weights[0] / (weights.abs().max() or 1.0)
    near = (coefficients - coefficients.round()).abs() < _NEAR
    return torch.where(near, coefficients.round(), coefficients)


def _used(weights: Tensor) -> tuple[int, ...] | None:
    """The inputs with a weight; None for all, as for none."""
    used = (weights != 0).any(0)
    return None if used.all() or not used.any() else tuple(used.nonzero().flatten().tolist())


def _filled(candidate: Candidate, weights: list[Tensor]) -> nn.Sequential:
    model = candidate.stack(weights[0].shape[1]).eval()
    layers: list[Any] = list(model)
    with torch.no_grad():
        for layer, values in zip(layers, weights, strict=True):
            if hasattr(layer, "g"):
                layer.W_re.copy_(values)
                layer.g.fill_(1.0)
            else:
                layer.W.copy_(values)
    return model


def _output(model: nn.Sequential, x: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(x).squeeze(1)
    return output


def _factor(made: Tensor, y: Tensor) -> float:
    """By least squares."""
    share = 1 / (y.abs() + rounding.typical(y))
    made, y = made * share, y * share
    factor = float((made @ y) / (made @ made))
    if not math.isfinite(factor):
        return 1.0
    return math.copysign(1.0, factor) if abs(abs(factor) - 1) < _ONE else factor
