"""What keeps layers from being the units of one: each answer is the words of an exception, None if
there is nothing."""

from __future__ import annotations

from typing import Any

from torch import nn


def not_own(layer: Any, kind: str) -> str | None:
    """Which parameter is not, in words."""
    missing = [name for name in layer._names if name not in layer._parameters]
    if not missing:
        return None
    return (
        f"expected a {kind} whose {missing[0]} is its own parameter, got one that computes it of "
        "others (parametrized, pruned)"
    )


def more_than_a_layer(layer: nn.Module) -> str | None:
    """What of it would be lost, or stand for all units, in words."""
    kind = type(layer).__name__
    if found := not_own(layer, kind):
        return found
    for name in (*layer._buffers, *layer._modules):
        return f"expected a {kind} of parameters alone, got one that also holds {name}"
    for name, hooks in _hooks(layer).items():
        if hooks and name != _RENAMES:
            hook = next(iter(hooks.values()))
            called = getattr(hook, "__qualname__", type(hook).__qualname__)
            what = name.strip("_").removesuffix("s").replace("_", " ")
            return f"expected a {kind} without hooks, got one with a {what}, {called}"
    for name, parameter in layer.named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return f"expected a {kind} without hooks, got one whose {name} has some"
    return None


# A converted layer has one, for the names of single layers in old checkpoints.
_RENAMES = "_load_state_dict_pre_hooks"


def _hooks(layer: nn.Module) -> dict[str, Any]:
    return {name: of for name, of in vars(layer).items() if name.endswith("_hooks")}


def difference(one: nn.Module, other: nn.Module) -> str | None:
    """The first of what has to be the same of two units and is not, in words."""
    wanted, found = _about(one), _about(other)
    for name in {**wanted, **found}:
        if not _same(wanted.get(name), found.get(name)):
            return f"{name} is {wanted.get(name)!r}, got {found.get(name)!r}"
    return None


def _about(layer: nn.Module) -> dict[str, Any]:
    """All that has to be the same of two units, by name."""
    parameters = {
        name: None
        if given is None
        else f"{tuple(given.shape)}, {given.dtype} on {given.device}"
        + ("" if given.requires_grad else ", frozen")
        for name, given in layer._parameters.items()
    }
    own = {name: of for name, of in vars(layer).items() if name not in _OF_EVERY_MODULE}
    return {**own, **parameters, "training": layer.training}


# The last by a module's compile(), which no copy takes over.
_OF_EVERY_MODULE = {*vars(nn.Module()), "_compiled_call_impl"}


def _same(one: Any, other: Any) -> bool:
    try:
        return one is other or bool(one == other)
    except (RuntimeError, TypeError, ValueError):  # arrays, whose equality is no bool
        return False
