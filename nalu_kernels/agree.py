"""Whether a layer of this library computes what another implementation's module does: outputs and
gradients, in float64, on a copy of the module."""

from __future__ import annotations

import copy
import types
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .recognise import (
    USUAL_EPS,
    Candidate,
    candidates,
    every_eps,
    is_foreign,
    named_eps,
    shapes_of,
)
from .references import reachable

# Of outputs and gradients, relative to the largest number of each row.
_TOLERANCE = 1e-8
_ROUNDING = 1e-12  # which no other ε improves
# Of four outputs in five, whichever ε it is: if it is more, the parameters are in other places.
_ROUGHLY, _MOST = 0.1, 0.8
_FEW = 8  # outputs, enough to tell that a layer is another one
# Begins a reason; the parameters follow.
NOT_OF_ONE = "its parameters are not those of a layer: "
_ROWS, _HUGE, _PLAIN = 24, slice(12, 16), slice(16, 24)


class NoCounterpart(Exception):
    """The module stays; the message says why."""


class Agreement(NamedTuple):
    """The layer, the largest difference, and which attributes the module's forward has set."""

    candidate: Candidate
    difference: float
    written: list[str]


def agreeing(module: nn.Module, weights: tuple[int, ...]) -> Agreement:
    """The layer that computes what the module does, whose weights have that shape or are turned;
    raises NoCounterpart if there is none."""
    rows, cols = weights
    failure: Exception | None = None
    fits = True
    for in_features in dict.fromkeys((cols, rows)):
        tried = list(candidates(module, in_features))
        if not tried:
            fits = False
            continue
        try:
            rounds = [_Round(module, in_features, seed) for seed in (1, 0, 2, 3)]
        except NoCounterpart:
            raise
        except Exception as error:  # whatever a stranger's forward raises
            failure = failure or error
            continue
        candidate, difference = _closest(module, tried, rounds)
        if candidate is None:
            if rounds[0].answers_anew():
                raise NoCounterpart("its forward answers otherwise each time, as if by chance")
            raise NoCounterpart(_disagreement(len(tried), difference))
        written = [name for each in rounds for name in each.written]
        return Agreement(candidate, difference, written)
    if failure is None or not fits:
        raise NoCounterpart(f"{NOT_OF_ONE}{shapes_of(module)}")
    raise NoCounterpart(
        f"its forward fails on (rows, in_features): {type(failure).__name__}: {failure}"
    ) from failure


def _closest(
    module: nn.Module, tried: list[Candidate], rounds: list[_Round]
) -> tuple[Candidate | None, float]:
    """The first that agrees, with the ε that does best, or None; and the least difference."""
    closest = float("inf")
    some_eps, all_eps = [*named_eps(module), USUAL_EPS], every_eps(module)
    for candidate in tried:
        few = some_eps if candidate.form.has_eps else some_eps[:1]
        rough = min(rounds[0].roughly(candidate._replace(eps=eps)) for eps in few)
        if not rough < _ROUGHLY:
            closest = min(closest, rough)
            continue
        best, least = candidate, float("inf")
        for eps in all_eps if candidate.form.has_eps else all_eps[:1]:
            exact = candidate._replace(eps=eps)
            difference = max(each.difference(exact) for each in rounds)
            if difference < least:
                best, least = exact, difference
            if least <= _ROUNDING:
                break
        if least <= _TOLERANCE:
            return best, least
        closest = min(closest, least)
    return None, closest


def _disagreement(tried: int, closest: float) -> str:
    if closest == float("inf"):
        return (
            f"none of {tried} layers agrees with it; each is finite where it is infinite or NaN, "
            "or the other way round"
        )
    return f"none of {tried} layers agrees with it; the closest is off by {closest:.1e}"


class _Round:
    """Outputs and gradients of a module's twin in float64: in evaluation with its own parameters
    (seed 0), which may be too small to tell formulas apart; else in training with random ones, and
    with rows in two dimensions. All of seed 2 are beyond 1 or -1, where some formulas clamp, and
    those of seed 3 are their opposites."""

    def __init__(self, module: nn.Module, in_features: int, seed: int) -> None:
        rng = torch.Generator().manual_seed(min(seed, 2))
        twin = copied(module).to("cpu", torch.float64).requires_grad_().train(bool(seed))
        self.written: list[str] = []
        self._twin = twin
        _record(twin, self.written)
        self.parameters: dict[str, Tensor] = dict(twin.named_parameters())
        if seed:
            with torch.no_grad():
                for parameter in self.parameters.values():
                    parameter.normal_(generator=rng)
                    if seed > 1:
                        parameter.add_(parameter.sign()).mul_(5 - 2 * seed)
        given = [parameter.detach().clone() for parameter in self.parameters.values()]
        self.input = _inputs(in_features, rng)
        output = twin(self.input) if not seed else _of_two_dimensions(twin, self.input)
        if not all(map(torch.equal, given, self.parameters.values())):
            raise NoCounterpart("its forward changes its parameters")
        _check(output, module, in_features)
        self.expected = self._outcome(output)

    @torch.no_grad()
    def roughly(self, candidate: Candidate) -> float:
        """The difference of some outputs where ε hardly counts."""
        found = candidate.call(self.input[_PLAIN], self.parameters, _FEW)
        return mostly(found, self.expected[0][_PLAIN, :_FEW])

    def answers_anew(self) -> bool:
        """Whether the module's twin has another output than it had."""
        with torch.no_grad():
            again = _of_two_dimensions(self._twin, self.input)
        return not torch.equal(again.nan_to_num(), self.expected[0].nan_to_num())

    def difference(self, candidate: Candidate) -> float:
        found = self._outcome(candidate.call(self.input, self.parameters))
        return max(map(relative, found, self.expected))

    def _outcome(self, output: Tensor) -> list[Tensor]:
        """The output, and the gradients of the input and the parameters."""
        upstream = torch.linspace(0.5, 1.5, output.numel()).to(output).view_as(output)
        upstream[_HUGE] = 0  # beside which nothing else would count in a sum over rows
        leaves = [self.input, *self.parameters.values()]
        grads = torch.autograd.grad(output, leaves, upstream, materialize_grads=True)
        return [output.detach(), *grads]


def copied(module: nn.Module) -> nn.Module:
    """A deep copy; tensors that an earlier forward computed are copied without their history, which
    deepcopy refuses to copy."""
    memo: dict[int, Any] = {
        id(each): each.detach()
        for each in reachable(module)
        if isinstance(each, Tensor) and not each.is_leaf
    }
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # whatever a stranger's attributes raise
        reason = f"it cannot be copied to try it: {type(error).__name__}: {error}"
        raise NoCounterpart(reason) from error


def _record(twin: nn.Module, written: list[str]) -> None:
    """Has ``written`` take the name of each attribute that a forward sets, even to what it was."""

    class Recorder(nn.Module):
        def __init_subclass__(cls) -> None:
            """Keeps the class out of registers that a base class may hold."""

        def __setattr__(self, name: str, value: Any) -> None:
            written.append(name)
            super().__setattr__(name, value)

    for part in twin.modules():
        if is_foreign(type(part)):
            part.__class__ = types.new_class(type(part).__name__, (Recorder, type(part)))


def _of_two_dimensions(twin: nn.Module, input: Tensor) -> Any:
    """The output of rows in two dimensions, if the module takes those, as a matrix."""
    try:
        return twin(input.view(2, len(input) // 2, -1)).reshape(len(input), -1)
    except Exception:  # it has to take matrices
        return twin(input)


def _check(output: Any, module: nn.Module, in_features: int) -> None:
    """Raises NoCounterpart unless this can be a layer's output."""
    if not isinstance(output, Tensor):
        raise NoCounterpart(f"its forward returns a {type(output).__name__}, not a tensor")
    if output.dim() != 2 or len(output) != _ROWS:
        raise NoCounterpart(
            f"its forward returns shape {tuple(output.shape)} for ({_ROWS}, {in_features}), "
            "not (rows, out_features)"
        )
    if not output.requires_grad:
        raise NoCounterpart("its output has no gradient")


def _inputs(in_features: int, rng: torch.Generator) -> Tensor:
    """Rows of both signs, of ordinary, tiny and huge magnitude, in which one number in ten is 0;
    and rows from 1 to 10 without zeros."""
    size = (_ROWS, in_features)
    uniform = torch.rand(size, generator=rng, dtype=torch.float64, device="cpu")
    magnitude = 10 ** (2 * uniform - 1)
    magnitude[8:12] *= 1e-9
    # Products from e^15 to e^200, where formulas differ that cut exponents off.
    exponent = torch.tensor([[15.0], [25.0], [40.0], [100.0]], dtype=torch.float64, device="cpu")
    magnitude[_HUGE] = torch.exp(exponent * (1 + uniform[_HUGE]) / max(in_features, 1) ** 0.5)
    magnitude[_PLAIN] = 10 ** uniform[_PLAIN]
    sign = torch.randn(size, generator=rng, dtype=torch.float64, device="cpu").sign()
    zero = torch.rand(size, generator=rng, device="cpu") < 0.1
    zero[_PLAIN] = False
    x = (sign * magnitude).masked_fill(zero, 0)
    return x.requires_grad_()


def mostly(found: Tensor, expected: Tensor) -> float:
    """The difference, relative to each number, that most keep to: where a product is large the sum
    beside it does not show, and where both cancel ε does."""
    if found.shape != expected.shape:
        return float("inf")
    same = (found == expected) | (found.isnan() & expected.isnan())
    error = ((found - expected) / expected).abs().masked_fill(same, 0)
    ranked = error.nan_to_num(nan=float("inf"), posinf=float("inf")).flatten().sort().values
    return float(ranked[int(_MOST * len(ranked))]) if len(ranked) else 0.0


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference in a row, relative to the row's largest number."""
    if found.shape != expected.shape:
        return float("inf")
    same = (found == expected) | (found.isnan() & expected.isnan())
    if bool(same.all()):
        return 0.0
    if not bool((same | (found.isfinite() & expected.isfinite())).all()):
        return float("inf")
    rows = len(expected)
    error = (found - expected).masked_fill(same, 0).abs().reshape(rows, -1).amax(1)
    largest = expected.nan_to_num(posinf=0, neginf=0).abs().reshape(rows, -1).amax(1)
    return float((error / largest.clamp_min(1e-300)).max())
