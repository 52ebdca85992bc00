"""Replaces the NAC and NALU modules of other implementations by this library's layers.

A module is recognised by the names and shapes of its parameters (``recognise.py``), and replaced
only if a layer of this library gives the same outputs and gradients.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .layers import NAC, NALU
from .recognise import Candidate, Parts, candidates, parts_of

# Of outputs and gradients in float64, relative to the largest number of each.
_TOLERANCE = 1e-8
_ROWS, _HUGE = 24, slice(12, 16)


class Replaced(NamedTuple):
    """A layer that took a module's place, and the largest difference that was found, in float64,
    relative to the largest number."""

    path: str
    module: nn.Module
    layer: NAC | NALU
    difference: float
    candidate: Candidate

    def __str__(self) -> str:
        copied = ", its transposed weights copied" if self.candidate.transposed else ""
        return (
            f"{self.path or '(the model)'}: {type(self.module).__name__} -> {self.layer}, "
            f"largest difference {self.difference:.1e}{copied}"
        )


class Left(NamedTuple):
    """A module with the parameters of a NAC or a NALU that stays, and why."""

    path: str
    module: nn.Module
    reason: str

    def __str__(self) -> str:
        name = type(self.module).__name__
        return f"{self.path or '(the model)'}: {name} stays: {self.reason}"


@dataclass
class Report:
    """What :func:`nalu_kernels.convert` did; ``print`` it. ``model`` is the converted model: the
    one that was given, unless that was itself a module to replace."""

    model: nn.Module
    replaced: list[Replaced] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def revert(self) -> nn.Module:
        """Puts the original modules back, with the values that the parameters have now, and returns
        the original model."""
        while self.replaced:
            entry = self.replaced.pop()
            _return_parameters(entry)
            self.model = _exchange(self.model, entry.layer, entry.module)
        return self.model

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} replaced, {len(self.left)} left"]
        return "\n  ".join([*lines, *map(str, self.replaced), *map(str, self.left)])


def convert(model: nn.Module) -> Report:
    """Replaces, in place, the NACs and NALUs of other PyTorch implementations by this library's.

    Recognised are modules that have Ŵ and M̂, called ``W_hat`` and ``M_hat``, ``W_`` and ``M_``,
    ``W`` and ``M`` or the same in small letters, once or twice, themselves or in a child such as
    ``nac``, and, for a NALU, a gate ``G``, a parameter or a Linear; and nothing else. Of all layers
    that these could mean (in log space or not, tied or not, with which eps) that one takes the
    module's place whose outputs and gradients are the module's: on random inputs of many magnitudes
    and zeros, with the module's parameters and with random ones, in float64. If there is none, the
    module stays, and the report says so.

    A layer has the very parameters that the module had, so an optimizer goes on with them; only
    weights stored as (in_features, out_features) are copied, and the report says that too.
    ``load_state_dict`` takes checkpoints of the original model and of the converted one.

    Args:
        model: changed in place. If it is itself such a module, take ``Report.model``.

    Returns:
        What was replaced and what was left; ``Report.revert()`` undoes it.

    Raises:
        TypeError: model is not a torch.nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    report = Report(model)
    _visit(report, "", model, set())
    return report


def _visit(report: Report, path: str, module: nn.Module, seen: set[nn.Module]) -> None:
    """Outermost first: a NALU is replaced as a whole, before its NAC could be."""
    if module in seen or isinstance(module, (NAC, NALU, torch.jit.ScriptModule)):
        return
    seen.add(module)
    parts = parts_of(module)
    if parts is not None:
        try:
            candidate, difference = _counterpart(report.model, module, parts)
        except _NoCounterpart as reason:
            report.left.append(Left(path, module, str(reason)))
        else:
            layer = candidate.layer(module)
            layer.register_load_state_dict_pre_hook(_OldNames(module, candidate))
            report.replaced.append(Replaced(path, module, layer, difference, candidate))
            report.model = _exchange(report.model, module, layer)
            return
    for name, child in list(module.named_children()):
        _visit(report, f"{path}.{name}" if path else name, child, seen)


class _NoCounterpart(Exception):
    """The module stays; the message says why."""


def _counterpart(model: nn.Module, module: nn.Module, parts: Parts) -> tuple[Candidate, float]:
    """The layer that can take the module's place, and the largest difference."""
    if any(_has_hooks(part) for part in module.modules()):
        raise _NoCounterpart("it has hooks, which would be lost")
    if any("eps" not in name for name, _ in module.named_buffers()):
        raise _NoCounterpart("it has buffers, which would be lost")
    if any(parameter.is_meta for parameter in module.parameters()):
        raise _NoCounterpart("it is on the meta device, where there is nothing to compare")
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        candidate, difference = _agreeing(module, parts)
    theirs = {old for old, _ in candidate.roles.values()}
    if theirs <= candidate.roles.keys() and any(
        name != old for name, (old, _) in candidate.roles.items()
    ):
        raise _NoCounterpart("its names are NALU's for other parameters, as in a checkpoint")
    if candidate.transposed:
        if _is_shared(model, module):
            raise _NoCounterpart("its transposed weights are shared with another module")
        for name, (old, _) in candidate.roles.items():
            rows, cols = getattr(module, old, torch.empty(0, 1)).shape[:2]
            if name == old and rows == cols:
                raise _NoCounterpart(
                    f"its {old} is square and transposed, so a checkpoint could not tell which way"
                )
    return candidate, difference


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    return any(getattr(module, f"_{kind}_hooks") for kind in kinds)


def _is_shared(model: nn.Module, module: nn.Module) -> bool:
    inside, own = set(module.modules()), set(module.parameters())
    return any(
        parameter in own
        for other in model.modules()
        if other not in inside
        for parameter in other._parameters.values()
    )


def _agreeing(module: nn.Module, parts: Parts) -> tuple[Candidate, float]:
    rows, cols = dict(module.named_parameters())[parts.pairs[0][0]].shape
    failure: Exception | None = None
    for in_features in dict.fromkeys((cols, rows)):
        try:
            rounds = [_Round(module, in_features, seed) for seed in (0, 1)]
        except Exception as error:  # whatever a stranger's forward raises
            failure = failure or error
            continue
        tried = candidates(module, parts, in_features)
        closest = float("inf")
        for candidate in tried:
            difference = max(each.difference(candidate) for each in rounds)
            if difference <= _TOLERANCE:
                return candidate, difference
            closest = min(closest, difference)
        raise _NoCounterpart(
            f"none of {len(tried)} layers agrees with it; the closest is off by {closest:.1e}"
        )
    raise _NoCounterpart(
        f"its forward fails on (rows, in_features): {type(failure).__name__}: {failure}"
    ) from failure


class _Round:
    """Outputs and gradients of a module's twin in float64: in evaluation with its own parameters
    (seed 0), which may be too small to tell formulas apart; else in training with random ones, and
    with rows in two dimensions."""

    def __init__(self, module: nn.Module, in_features: int, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        twin = copy.deepcopy(module).to("cpu", torch.float64).requires_grad_().train(bool(seed))
        self.parameters: dict[str, Tensor] = dict(twin.named_parameters())
        if seed:
            with torch.no_grad():
                for parameter in self.parameters.values():
                    parameter.normal_(generator=rng)
        self.input = _inputs(in_features, rng)
        output = twin(self.input) if not seed else _of_two_dimensions(twin, self.input)
        self.expected = self._outcome(output)

    def difference(self, candidate: Candidate) -> float:
        found = self._outcome(candidate.call(self.input, self.parameters))
        return max(map(_relative, found, self.expected))

    def _outcome(self, output: Tensor) -> list[Tensor]:
        """The output, and the gradients of the input and the parameters."""
        upstream = torch.linspace(0.5, 1.5, output.numel()).to(output).view_as(output)
        upstream[_HUGE] = 0  # beside which nothing else would count in a sum over rows
        leaves = [self.input, *self.parameters.values()]
        grads = torch.autograd.grad(output, leaves, upstream, materialize_grads=True)
        return [output.detach(), *grads]


def _of_two_dimensions(twin: nn.Module, input: Tensor) -> Tensor:
    """The output of rows in two dimensions, if the module takes those, as a matrix."""
    try:
        return twin(input.view(2, len(input) // 2, -1)).reshape(len(input), -1)
    except Exception:  # it has to take matrices
        return twin(input)


def _inputs(in_features: int, rng: torch.Generator) -> Tensor:
    """Rows of both signs, of ordinary, tiny and huge magnitude; one number in ten is 0."""
    size = (_ROWS, in_features)
    uniform = torch.rand(size, generator=rng, dtype=torch.float64, device="cpu")
    magnitude = 10 ** (2 * uniform - 1)
    magnitude[8:12] *= 1e-9
    # Products around e^100, where formulas differ that cut exponents off.
    magnitude[_HUGE] = torch.exp(100 * (1 + uniform[_HUGE]) / max(in_features, 1) ** 0.5)
    sign = torch.randn(size, generator=rng, dtype=torch.float64, device="cpu").sign()
    zero = torch.rand(size, generator=rng, device="cpu") < 0.1
    x = (sign * magnitude).masked_fill(zero, 0)
    return x.requires_grad_()


def _relative(found: Tensor, expected: Tensor) -> float:
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


def _exchange(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Puts ``new`` wherever the model has ``old``; the model, which may be ``new`` itself."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
    return new if model is old else model


def _return_parameters(entry: Replaced) -> None:
    """Gives the original module the layer's mode, and the values of what is not its own."""
    parameters = dict(entry.module.named_parameters())
    for name, (old, transposed) in entry.candidate.roles.items():
        now, then = getattr(entry.layer, name), parameters[old]
        if now is not then:
            value = now.detach().t() if transposed else now.detach()
            then.data = value.clone(memory_format=torch.contiguous_format)
            then.requires_grad_(now.requires_grad)
    entry.module.train(entry.layer.training)


class _OldNames:
    """Has a layer's load_state_dict take what the original module saved."""

    def __init__(self, module: nn.Module, candidate: Candidate) -> None:
        self.roles = dict(candidate.roles)
        self.shapes = {
            name: tensor.shape
            for name, tensor in candidate.tensors(dict(module.named_parameters())).items()
        }
        self.buffers = [name for name, _ in module.named_buffers()]

    def __call__(self, layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        given = {
            name: state.pop(prefix + old)
            for name, (old, _) in self.roles.items()
            if prefix + old in state
        }
        for name, tensor in given.items():
            old, transposed = self.roles[name]
            turn = transposed and (old != name or tensor.shape != self.shapes[name])
            state[prefix + name] = tensor.t() if turn else tensor
        for name in self.buffers:
            state.pop(prefix + name, None)
