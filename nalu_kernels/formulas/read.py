"""``nalu_kernels.formula``: reads a formula off a model, and checks it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, nn

from ..sweep.stack import has_hooks, leaves
from .expressions import express, number
from .fold import Box, bounds, evaluate
from .result import Formula, LayerGate, LayerWeights
from .rounding import KINDS, Gate, RoundedLayer, blank, copied, round_layer
from .simplify import AGREE, disagreement, simplified
from .verdict import VERDICTS, Errors, error_of, verdict
from .whole import fraction

_MOST_TERMS = 2_000  # of a formula, if it were multiplied out layer by layer
_OF_OPEN_GATES = 4  # how often an input stands in what a gate mixes


def formula(
    model: nn.Module,
    names: Sequence[str] | None = None,
    *,
    inside: tuple[Tensor, Tensor],
    outside: tuple[Tensor, Tensor] | None = None,
    tolerance: float = 0.01,
) -> Formula:
    """Reads the formula off a model of this library's layers, and says whether it holds.

    Weights within the tolerance of a whole number become it: -1, 0, 1, and in a power also
    fractions with denominators up to 4. A gate that is shut or open on all given inputs, to within
    the tolerance, is dropped. :math:`|x|` and eps stay unless the given inputs make them needless.
    The module with the rounded weights is built and run on the given rows, and the verdict is on
    what it computes there: "exact", "approximate" or "not a formula" (docs/formula.md). So give
    rows that neither training nor the choice of the model has seen.

    Args:
        model: a layer of this library, or an ``nn.Sequential`` of such layers, ``nn.Linear``, ReLU,
            ReLU6 and Identity. It is not changed.
        names: of the inputs; x0, x1 and so on if None.
        inside: inputs (rows, in_features) and targets (rows, out_features), or (rows,) for one
            output, in the range that the model was trained on.
        outside: likewise, outside of that range.
        tolerance: how far a weight may be from the whole number that it is rounded to, and a gate
            from 0 or 1. The numbers of an ``nn.Linear``, which tend to none, are rounded within a
            hundredth of it, relative to those above 1.

    Returns:
        the :class:`Formula`.

    Raises:
        TypeError: a layer of another kind, or one that is changed by hooks or parametrizations.
        ValueError: tensors of the wrong shape, numbers that are not finite, a tolerance that is not
            in [0, 0.1], stacked units, or a model too large to be read.
    """
    layers = _checked_layers(model)
    width_in, width_out = _widths(layers)
    symbols = _symbols(names, width_in)
    tolerance = _tolerance(tolerance)
    x, y = _rows("inside", inside, width_in, width_out)
    x_outside, y_outside = (
        (x[:0], y[:0]) if outside is None else _rows("outside", outside, width_in, width_out)
    )
    given, targets = torch.cat((x, x_outside)), torch.cat((y, y_outside))
    with torch.no_grad():
        own = [(name, copied(layer)) for name, layer in layers]
        of_model = _through([layer for _, layer in own], given)
        rounded = _round(own, given, tolerance)
        _blank_unused([of for _, of in rounded])
        _check_terms(rounded)
        module = nn.Sequential(*(of.layer for _, of in rounded))
        of_rounded = module(given)
        box, real = _box(given, symbols)
        columns = dict(zip(real, given.T, strict=True))
        expressions = [
            simplified(of, columns) for of in _expressions(rounded, real, box, tolerance)
        ]
        agreement = max(
            disagreement(evaluate(of, columns), found)
            for of, found in zip(expressions, of_rounded.T, strict=True)
        )
        rows = len(x)
        parts = (slice(0, rows), slice(rows, None))
        errors = [
            Errors(
                error_of(of_model[part], targets[part]),
                error_of(of_rounded[part], targets[part]),
                len(targets[part]),
            )
            for part in parts[: 1 if outside is None else 2]
        ]
    weights = tuple(_weights(name, of) for name, part in rounded for of in part.weights)
    gates = tuple(LayerGate(name, gate) for name, part in rounded for gate in part.gates)
    readable = not any(of.far for of in weights) and all(of.gate.dropped for of in gates)
    readable = readable and _plain_but_for_the_last(module)
    found = verdict(readable, errors[0], errors[1] if len(errors) > 1 else None)
    plain = dict(zip(real, symbols, strict=True))
    return Formula(
        found if agreement <= AGREE else VERDICTS[2],
        errors[0],
        errors[1] if len(errors) > 1 else None,
        tuple(symbol.name for symbol in symbols),
        tolerance,
        weights,
        gates,
        agreement,
        dict(zip([symbol.name for symbol in symbols], box.values(), strict=True)),
        tuple(of.xreplace(plain) for of in expressions),
        module,
    )


def _checked_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    found = []
    for name, layer in leaves("", model):
        called = f"{name or 'it'} ({type(layer).__name__})"
        if has_hooks(layer):
            raise TypeError(f"model: {called} has hooks, which may change what it computes")
        if type(layer) not in KINDS:
            known = ", ".join(kind.__name__ for kind in KINDS)
            raise TypeError(f"model: {called} is none of the layers that can be read: {known}")
        if getattr(layer, "units", None) is not None:
            raise ValueError(f"model: {called} is of stacked units; take one by layer.unit(i)")
        for parameter in layer.parameters():
            if not bool(parameter.isfinite().all()):
                raise ValueError(f"model: {called} has a parameter that is not finite")
        if type(layer) is not nn.Identity:
            found.append((name, layer))
    if not any(hasattr(layer, "in_features") for _, layer in found):
        raise ValueError("model: expected a layer with weights, found none")
    return found


def _widths(layers: Sequence[tuple[str, nn.Module]]) -> tuple[int, int]:
    sized: list[tuple[str, Any]] = [of for of in layers if hasattr(of[1], "in_features")]
    first = width = int(sized[0][1].in_features)
    for name, layer in sized:
        if layer.in_features != width:
            raise ValueError(
                f"model: {name} ({type(layer).__name__}) expects {layer.in_features} inputs, and "
                f"gets {width}"
            )
        width = int(layer.out_features)
    if min(first, width) < 1:
        raise ValueError("model: expected inputs and outputs, got none")
    return first, width


def _symbols(names: Sequence[str] | None, width: int) -> list[sympy.Symbol]:
    if names is None:
        names = [f"x{i}" for i in range(width)]
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError("names: expected a sequence of str")
    if len(names) != width or len(set(names)) != width or not all(names):
        raise ValueError(f"names: expected {width} different names, got {list(names)}")
    return [sympy.Symbol(name) for name in names]


def _tolerance(tolerance: float) -> float:
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
        raise TypeError(f"tolerance: expected a float, got {type(tolerance).__name__}")
    if not 0 <= tolerance <= 0.1:
        raise ValueError(f"tolerance: expected a number in [0, 0.1], got {tolerance}")
    return float(tolerance)


def _rows(name: str, given: Any, width_in: int, width_out: int) -> tuple[Tensor, Tensor]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"{name}: expected a pair of inputs and targets")
    for tensor in given:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected tensors, got {type(tensor).__name__}")
    x, y = (tensor.detach().to("cpu", torch.float64) for tensor in given)
    y = y.unsqueeze(-1) if y.dim() == 1 else y
    if x.dim() != 2 or x.shape[1] != width_in or not len(x):
        raise ValueError(f"{name}: expected inputs (rows, {width_in}), got {tuple(x.shape)}")
    if tuple(y.shape) != (len(x), width_out):
        raise ValueError(
            f"{name}: expected targets ({len(x)}, {width_out}), got {tuple(given[1].shape)}"
        )
    for part in (x, y):
        if not bool(part.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers")
    return x, y


def _through(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _round(
    layers: Sequence[tuple[str, nn.Module]], x: Tensor, tolerance: float
) -> list[tuple[str, RoundedLayer]]:
    rounded = []
    for name, layer in layers:
        of = round_layer(layer, tolerance, x)
        rounded.append((name, of))
        x = of.layer(x)
    return rounded


def _blank_unused(layers: Sequence[RoundedLayer]) -> None:
    """From the outputs back: what no later layer needs is no matter of the formula."""
    used = torch.ones(layers[-1].depends.shape[0], dtype=torch.bool)
    for rounded in reversed(layers):
        for output in (~used).nonzero().flatten().tolist():
            blank(rounded, output)
        used = rounded.depends.any(0)


def _check_terms(layers: Sequence[tuple[str, RoundedLayer]]) -> None:
    """Of the largest output, if every layer's terms were those of the layers below."""
    below: Tensor | None = None
    for _, rounded in layers:
        is_open = any(not gate.dropped for gate in rounded.gates)
        needs = rounded.depends.double() * (_OF_OPEN_GATES if is_open else 1)
        below = needs.sum(1) if below is None else needs @ below
    assert below is not None
    terms = float(below.sum())
    if terms > _MOST_TERMS:
        raise ValueError(
            f"model: its formula would have some {terms:,.0f} terms, of which nobody reads more "
            f"than {_MOST_TERMS:,}"
        )


def _box(x: Tensor, symbols: Sequence[sympy.Symbol]) -> tuple[Box, list[sympy.Symbol]]:
    """The least and largest of each input, by symbols that know what sign it has."""
    box, real = {}, []
    for symbol, low, high in zip(symbols, x.amin(0).tolist(), x.amax(0).tolist(), strict=True):
        sign = {"positive": True} if low > 0 else {"negative": True} if high < 0 else {}
        real.append(sympy.Symbol(symbol.name, real=True, **sign))
        box[real[-1]] = (low, high)
    return box, real


def _expressions(
    layers: Sequence[tuple[str, RoundedLayer]],
    inputs: Sequence[sympy.Expr],
    box: Box,
    tolerance: float,
) -> list[sympy.Expr]:
    values = list(inputs)
    for _, rounded in layers:
        for gate in rounded.gates:
            gate.proven = gate.dropped and _is_proven(gate, values, box, tolerance)
        values = express(rounded.layer, values, box)
    return values


def _is_proven(gate: Gate, inputs: Sequence[sympy.Expr], box: Box, tolerance: float) -> bool:
    """Whether the gate is within the tolerance of its side wherever the inputs lie in the box."""
    terms = [
        number(w) * (sympy.Abs(x) if gate.sizes else x)
        for w, x in zip(gate.logits, inputs, strict=True)
    ]
    low, high = bounds(sympy.Add(*terms) + number(gate.bias), box)
    margin = low if gate.path == "sum" else -high
    return margin > 0 and 1 / (1 + math.exp(min(margin, 700.0))) <= tolerance


def _plain_but_for_the_last(module: nn.Sequential) -> bool:
    """Whether the numbers of each nn.Linear are plain, but for those of the last layer, which may
    be a law's constants."""
    numbers = [
        float(value)
        for layer in list(module)[:-1]
        if type(layer) is nn.Linear
        for parameter in layer.parameters()
        for value in parameter.flatten()
    ]
    return all(fraction(value, 4) is not None for value in numbers)


def _weights(layer: str, weight: Any) -> LayerWeights:
    far = weight.used & ~weight.whole
    counted = weight.distance[weight.used]
    return LayerWeights(
        layer,
        weight.name,
        weight.values,
        weight.rounded,
        float(counted.max()) if counted.numel() else 0.0,
        int(far.sum()),
    )
