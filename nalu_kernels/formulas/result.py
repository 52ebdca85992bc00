"""What :func:`nalu_kernels.formula` returns."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sympy import Expr, Symbol, latex, preorder_traversal
from torch import Tensor, nn

from .names import in_latex, outputs, written
from .rounding import Gate
from .simplify import AGREE
from .verdict import EXACT, Errors

_MOST_RANGES = 6  # of inputs that are printed


@dataclass(frozen=True)
class LayerWeights:
    """One matrix of weights of the model, before and after.

    Attributes:
        layer: its name in the model.
        name: of the matrix.
        values: a tensor (out, k) in float64, what the layer used.
        rounded: likewise, what it was rounded to.
        distance: the farthest that a weight which counts is from a whole number.
        far: how many weights which count are farther than the tolerance, and stay as they are.
    """

    layer: str
    name: str
    values: Tensor = field(repr=False)
    rounded: Tensor = field(repr=False)
    distance: float
    far: int


@dataclass(frozen=True)
class LayerGate:
    """One gate of the model, as :class:`.Gate` has it, and the name of its layer."""

    layer: str
    gate: Gate


@dataclass(frozen=True, repr=False)
class Formula:
    """A formula that was read off a model, and checked. ``str()`` prints all there is to know.

    Attributes:
        verdict: "exact", "approximate" or "not a formula" (docs/formula.md).
        inside: the errors of the model and of the rounded module on the given rows inside.
        outside: likewise; None if none were given.
        names: of the inputs, in their order.
        tolerance: within which weights were rounded.
        weights: a :class:`.LayerWeights` for each matrix of weights.
        gates: a :class:`.LayerGate` for each gate.
        box: the least and the largest of each input in the given rows, by name. Outside of it a
            sign, eps or a gate may matter again.
        agreement: the largest relative difference of the printed formula and the rounded module on
            the given rows.
    """

    verdict: str
    inside: Errors
    outside: Errors | None
    names: tuple[str, ...]
    tolerance: float
    weights: tuple[LayerWeights, ...]
    gates: tuple[LayerGate, ...]
    agreement: float
    box: dict[str, tuple[float, float]]
    _expressions: tuple[Expr, ...]
    _module: nn.Sequential

    def sympy(self) -> Any:
        """The formula as a sympy expression of symbols with the inputs' names; of several outputs a
        list of them."""
        return list(self._expressions) if len(self._expressions) > 1 else self._expressions[0]

    def latex(self) -> str:
        """The formula in LaTeX; a line for each output."""
        names = {symbol: in_latex(symbol.name) for symbol in self._symbols}
        return "\n".join(
            f"{in_latex(name)} = {latex(of, symbol_names=names)}" for name, of in self._outputs()
        )

    def module(self) -> nn.Sequential:
        """A copy of the rounded module, in float64 and in ``eval()``: what the errors are of, and
        what the formula says."""
        return copy.deepcopy(self._module)

    @property
    def text(self) -> str:
        """The formula alone, a line for each output. A name that is no identifier stands between
        backquotes."""
        return "\n".join(f"{name} = {written(of)}" for name, of in self._outputs())

    @property
    def complexity(self) -> int:
        """How many operations, inputs and constants the formula has."""
        return sum(sum(1 for _ in preorder_traversal(of)) for of in self._expressions)

    @property
    def far(self) -> int:
        """How many weights that count were not near a whole number."""
        return sum(weight.far for weight in self.weights)

    def __str__(self) -> str:
        lines = [self.text, f"{self.verdict}: {self._errors('rounded')}"]
        lines.append(f"  before rounding: {self._errors('model')}")
        more = (*self._of_weights(), *self._of_gates(), *self._of_box())
        lines.extend(f"  {line}" for line in more)
        if self.agreement > AGREE:
            lines.append(f"  the formula and the rounded module differ by {self.agreement:.1e}")
        return "\n".join(lines)

    __repr__ = __str__

    def to_json(self) -> str:
        """All of it as JSON, weights at full precision; numbers that are not finite as null."""
        outside = self.outside
        content = {
            "formula": [written(of) for of in self._expressions],
            "verdict": self.verdict,
            "names": list(self.names),
            "box": {name: list(sides) for name, sides in self.box.items()},
            "inside": _errors(self.inside),
            "outside": None if outside is None else _errors(outside),
            "exact_up_to": EXACT,
            "tolerance": self.tolerance,
            "agreement": _finite(self.agreement),
            "weights": [
                {
                    "layer": weight.layer,
                    "name": weight.name,
                    "values": _listed(weight.values),
                    "rounded": _listed(weight.rounded),
                    "distance": _finite(weight.distance),
                    "far": weight.far,
                }
                for weight in self.weights
            ],
            "gates": [
                {
                    "layer": of.layer,
                    "output": of.gate.output,
                    "path": of.gate.path,
                    "margin": _finite(of.gate.margin),
                    "proven": of.gate.proven,
                    "logits": _listed(of.gate.logits),
                    "bias": _finite(of.gate.bias),
                }
                for of in self.gates
            ],
        }
        return json.dumps(content, indent=2, allow_nan=False)

    @property
    def _symbols(self) -> Sequence[Symbol]:
        return [Symbol(name) for name in self.names]

    def _outputs(self) -> list[tuple[str, Expr]]:
        names = outputs(len(self._expressions), self.names)
        return list(zip(names, self._expressions, strict=True))

    def _errors(self, which: str) -> str:
        inside = getattr(self.inside, which)
        said = f"largest relative error {inside.largest:.1e} inside ({self.inside.rows} rows)"
        if self.outside is None:
            return f"{said}, nothing outside"
        outside = getattr(self.outside, which)
        return f"{said}, {outside.largest:.1e} outside ({self.outside.rows} rows)"

    def _of_weights(self) -> list[str]:
        if not self.weights:
            return []
        farthest = max(weight.distance for weight in self.weights)
        said = f"weights: at most {farthest:.1e} from a whole number (tolerance {self.tolerance:g})"
        return [said + (f", {self.far} not rounded" if self.far else "")]

    def _of_box(self) -> list[str]:
        used = {symbol.name for of in self._expressions for symbol in of.free_symbols}
        ranges = [
            f"{written(Symbol(name))} from {low:.3g} to {high:.3g}"
            for name, (low, high) in self.box.items()
            if name in used
        ]
        if len(ranges) > _MOST_RANGES:
            ranges[_MOST_RANGES:] = [f"{len(ranges) - _MOST_RANGES} more"]
        return [f"rows: {', '.join(ranges)}"] if ranges else []

    def _of_gates(self) -> list[str]:
        dropped = [of.gate for of in self.gates if of.gate.dropped]
        lines = []
        if dropped:
            margin = min(gate.margin for gate in dropped)
            proven = sum(gate.proven for gate in dropped)
            lines.append(
                f"gates: {len(dropped)} dropped, least margin {margin:.1f} on the given inputs; "
                f"{proven} proven on their whole box"
            )
        if still := len(self.gates) - len(dropped):
            lines.append(f"gates: {still} open, which mix a sum and a product")
        return lines


def _errors(errors: Errors) -> dict[str, Any]:
    parts = {
        name: {key: _finite(value) for key, value in getattr(errors, name)._asdict().items()}
        for name in ("model", "rounded")
    }
    return {"rows": errors.rows, **parts}


def _listed(values: Tensor) -> Any:
    return [_listed(part) for part in values] if values.dim() else _finite(float(values))


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
