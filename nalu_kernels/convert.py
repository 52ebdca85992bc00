"""Replaces other implementations' modules by this library's layers.

A module is recognised by the shapes of its parameters (``recognise.py``), and replaced only if a
layer of this library gives the same outputs and gradients (``agree.py``), to inputs of every shape
and type (``trial.py``), and nothing is lost to those who call it (``callers.py``). Where something
always would be, the module stays and a layer computes its forward (``lend.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from .agree import NOT_OF_ONE, NoCounterpart, agreeing
from .callers import Surroundings, mentions, plain_attributes, what_is_lost
from .layers.base import Layer
from .lend import Lent, is_more_than_its_forward, lend, take_back, what_forward_does
from .recognise import (
    Candidate,
    is_eps,
    is_foreign,
    looks_like_one,
    shape_of_weights,
    shapes_of,
)
from .trial import answers_otherwise, squashes_parameters

_TANH, _SIGMOID = re.compile("tanh"), re.compile("sigmoid|expit")


class Replaced(NamedTuple):
    """A layer that took a module's place, or the module itself where a layer only computes its
    forward; and the largest difference that was found, in float64, relative to the largest
    number."""

    path: str
    module: nn.Module
    layer: nn.Module
    difference: float
    candidate: Candidate

    def __str__(self) -> str:
        name = type(self.module).__name__
        if self.layer is self.module:
            layer = self.candidate.layer(self.module)
            return (
                f"{self.path or '(the model)'}: {name} stays, and {layer} computes its forward, "
                f"largest difference {self.difference:.1e}"
            )
        copied = (
            ", its transposed weights copied (make the optimizer anew)"
            if self.candidate.transposed
            else ""
        )
        return (
            f"{self.path or '(the model)'}: {name} -> {self.layer}, "
            f"largest difference {self.difference:.1e}{copied}"
        )


class Left(NamedTuple):
    """A module that seems to be such a layer and stays, and why."""

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
            if isinstance(entry.layer, Lent):
                take_back(entry.layer)
                continue
            _return_parameters(entry)
            self.model = _exchange(self.model, entry.layer, entry.module)
        return self.model

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} replaced, {len(self.left)} left"]
        return "\n  ".join([*lines, *map(str, self.replaced), *map(str, self.left)])


def convert(model: nn.Module) -> Report:
    """Replaces, in place, the NACs, NALUs, G-NALUs, NAUs, NMUs, iNALUs and NPUs of other PyTorch
    implementations by this library's.

    Tried is each module that has as many parameters of each shape as such a layer, itself or in its
    children, whatever their names. Of all layers that these could mean (in log space or not,
    tied or not, with which eps) that one takes the module's place whose outputs and gradients are
    the module's: on random inputs of many magnitudes and zeros, with the module's parameters and
    with random ones, in float64.

    A module stays if there is none, or if it takes another input to which the layer says otherwise,
    or if others could use more of it than its answer: a second argument, a public method, a state
    that its forward sets or looks at, a buffer, a hook, its class, a reference. The report names it
    and says why, where the answers agree or the names are those of such a layer. Public numbers
    and strings, such as ``in_dim``, are copied to the layer as they are now.

    The modules of AndreasMadsen/stable-nalu and bmistry4/nalm-benchmark, whose networks ask them
    for regularisers and know them by their class, stay in the model with all that they have, and a
    layer computes their forward.

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
    _visit(report, Surroundings(model), "", model, set())
    return report


def _visit(
    report: Report, around: Surroundings, path: str, module: nn.Module, seen: set[nn.Module]
) -> None:
    """Outermost first: a NALU is replaced as a whole, before its NAC could be."""
    if module in seen or isinstance(module, (Layer, Lent, torch.jit.ScriptModule)):
        return
    seen.add(module)
    outcome = _outcome(around, path, module)
    if isinstance(outcome, Replaced):
        report.replaced.append(outcome)
        report.model = _exchange(report.model, module, outcome.layer)
        return
    if outcome is not None:
        report.left.append(outcome)
    for name, child in list(module.named_children()):
        _visit(report, around, f"{path}.{name}" if path else name, child, seen)


def _outcome(around: Surroundings, path: str, module: nn.Module) -> Replaced | Left | None:
    """None if the module is not, and does not seem to be, such a layer."""
    weights, reason = shape_of_weights(module), _untried(module)
    if weights is None:
        reason = reason or f"{NOT_OF_ONE}{shapes_of(module) or 'none'}"
    elif reason is None:
        try:
            return _counterpart(around, path, module, weights)
        except NoCounterpart as error:
            reason = str(error)
    seems = looks_like_one(module) or _makes_weights(module)
    return Left(path, module, reason) if seems else None


def _makes_weights(module: nn.Module) -> bool:
    """Whether it takes tanh and sigmoid of parameters, as far as its code has both."""
    if not is_foreign(type(module)):
        return False
    words = {*mentions(module).words, *(type(part).__name__.lower() for part in module.modules())}
    if not all(any(map(each.search, words)) for each in (_TANH, _SIGMOID)):
        return False
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
            return squashes_parameters(module)
    except NoCounterpart:
        return False


def _counterpart(
    around: Surroundings, path: str, module: nn.Module, weights: tuple[int, ...]
) -> Replaced | Left:
    """The layer that computes the same, or why it cannot take the module's place; raises
    NoCounterpart if there is none."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        candidate, difference, written = agreeing(module, weights)
        with torch.autocast("cpu", enabled=False):
            stays = is_more_than_its_forward(module)
            otherwise = answers_otherwise(module, candidate, matrices=stays)
            if stays:
                in_features, _ = candidate.features(dict(module.named_parameters()))
                reason = what_forward_does(module, in_features, written) or otherwise
                if reason is not None:
                    return Left(path, module, reason)
                lend(module, candidate)
                return Replaced(path, module, module, difference, candidate)
    layer = candidate.layer(module)
    reason = (
        _names_in_the_way(module, candidate)
        or (
            _transposed_in_the_way(around.model, module, candidate)
            if candidate.transposed
            else None
        )
        or what_is_lost(around, module, layer, candidate, written)
        or otherwise
    )
    if reason is not None:
        return Left(path, module, reason)
    for name, value in plain_attributes(module).items():
        if not hasattr(layer, name):
            setattr(layer, name, value)
    layer.register_load_state_dict_pre_hook(_OldNames(module, candidate))
    return Replaced(path, module, layer, difference, candidate)


def _untried(module: nn.Module) -> str | None:
    """Why there is no trying whether a layer computes the same, or no use in it."""
    if any(parametrize.is_parametrized(part) for part in module.modules()):
        return "it is parametrized, which would be lost"
    if any(_has_hooks(part) for part in module.modules()):
        return "it has hooks, which would be lost"
    if any(not is_eps(name) for part in module.modules() for name in part._buffers):
        return "it has buffers, which would be lost"
    if any(parameter.is_meta for parameter in module.parameters()):
        return "it is on the meta device, where there is nothing to compare"
    return None


def _has_hooks(module: nn.Module) -> bool:
    ours = {"_load_state_dict_pre_hooks"} if isinstance(module, Layer) else set()
    kinds = {name for name in vars(nn.Module()) if name.endswith("_hooks")} - ours
    return any(getattr(module, kind) for kind in kinds)


def _names_in_the_way(module: nn.Module, candidate: Candidate) -> str | None:
    """Why a checkpoint of the module could not be told from one of the layer."""
    roles, names = candidate.roles, _every_name(module)
    theirs = {old for old, _ in roles.values()}
    swapped = theirs <= roles.keys() and any(name != old for name, (old, _) in roles.items())
    seconds = {(name, other) for name, (old, _) in roles.items() for other in names[old][1:]}
    if swapped or any(other in roles and other != name for name, other in seconds):
        return "its names are NALU's for other parameters, as in a checkpoint"
    return None


def _transposed_in_the_way(model: nn.Module, module: nn.Module, candidate: Candidate) -> str | None:
    """Why the weights cannot be copied."""
    if _is_shared(model, module):
        return "its transposed weights are shared with another module"
    parameters = dict(module.named_parameters())
    for name, (old, transposed) in candidate.roles.items():
        parameter = parameters[old]
        if transposed and (parameter._backward_hooks or parameter._post_accumulate_grad_hooks):
            return f"its transposed {old} has hooks, which would be lost"
        if transposed and name == old and parameter.shape[0] == parameter.shape[1]:
            return f"its {old} is square and transposed, so a checkpoint could not tell which way"
    return None


def _is_shared(model: nn.Module, module: nn.Module) -> bool:
    inside, own = set(module.modules()), set(module.parameters())
    return any(
        parameter in own
        for other in model.modules()
        if other not in inside
        for parameter in other._parameters.values()
    )


def _every_name(module: nn.Module) -> dict[str, list[str]]:
    """All names of a parameter, by the first."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return {every[0]: every for every in names.values()}


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
        self.names = _every_name(module)
        self.buffers = [name for name, _ in module.named_buffers()]

    def __call__(self, layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        theirs = all(prefix + old in state for old, _ in self.roles.values())
        given = {}
        for name, (old, _transposed) in self.roles.items():
            if prefix + old in state and (theirs or old == name or old not in self.roles):
                given[name] = state[prefix + old]
        for name in given:
            for old in self.names[self.roles[name][0]]:
                state.pop(prefix + old, None)
        for name, tensor in given.items():
            old, transposed = self.roles[name]
            turn = transposed and (old != name or tensor.shape != self.shapes[name])
            state[prefix + name] = tensor.t() if turn else tensor
        for name in self.buffers:
            state.pop(prefix + name, None)
