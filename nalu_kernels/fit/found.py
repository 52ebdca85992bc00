"""A model of a skeleton: an ordinary stack, its factor and its error."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import rounding
from .candidates import Candidate

_NEAR = 1e-3  # coefficients so near to a whole number become it
_NEAR_EXPONENT = 0.1
_NONE = 1e-9  # a part of the target that is rounding errors
_ONE = 1e-6  # a factor so near to 1 is none


class Found(NamedTuple):
    """A model: ``scale`` times ``model(x[:, columns])``.

    Attributes:
        candidate: its stack and settings.
        model: the stack in float64, in ``eval()``. All weights but the last layer's are -1, 0 or 1,
            and the last layer's where the data say so; what a weight of 0 hides has weights of 0.
        columns: of the table, in the order of the model's inputs; None for all.
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
        closing = rounding.last(candidate, numbers, y)[0][0]
        closing = (
            _exponents(candidate, closing)
            if candidate.multiplies_last
            else _coefficients(closing, numbers[0], y)
        )
        weights[-1][closing == 0] = 0.0
        weights.append(closing.unsqueeze(0))
    model = _filled(candidate, weights)
    scale = _factor(_output(model, x), y)
    if scale < 0 and candidate.multiplies_last and candidate.layers[-2] == "NAU":
        odd = (weights[-1][0].abs() == 1).nonzero()
        if len(odd):
            weights[-2][odd[0]] *= -1
            model, scale = _filled(candidate, weights), -scale
    error = relative_error(scale * _output(model, choosing_x), choosing_y)
    return Found(candidate, model, None, scale, error, seeds, steps)


def relative_error(made: Tensor, y: Tensor) -> float:
    """The mean of ``|made - y| / (|y| + t)``, t the typical size of y; infinite instead of NaN."""
    error = float(((made - y).abs() / (y.abs() + rounding.typical(y))).mean())
    return math.inf if math.isnan(error) else error


def _exponents(candidate: Candidate, exponents: Tensor) -> Tensor:
    near = (exponents - exponents.round()).abs() < _NEAR_EXPONENT
    exponents = torch.where(near, exponents.round(), exponents)
    return exponents.clamp(0, 1) if candidate.layers[-1] == "NMU" else exponents


def _coefficients(coefficients: Tensor, numbers: Tensor, y: Tensor) -> Tensor:
    """Over the largest of them, which becomes a part of the factor."""
    share = (numbers / (y.abs() + rounding.typical(y))).abs().mean(1)
    coefficients = torch.where(share * coefficients.abs() > _NONE, coefficients, 0.0)
    coefficients = coefficients / (coefficients.abs().max() or 1.0)
    near = (coefficients - coefficients.round()).abs() < _NEAR
    return torch.where(near, coefficients.round(), coefficients)


def _filled(candidate: Candidate, weights: list[Tensor]) -> nn.Sequential:
    model = candidate.stack(weights[0].shape[1]).eval()
    with torch.no_grad():
        for layer, values in zip(model, weights, strict=True):
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
    return 1.0 if not math.isfinite(factor) or abs(factor - 1) < _ONE else factor
