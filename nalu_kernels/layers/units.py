"""Layers side by side in one: each parameter has a dimension of units before its own."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Layer = TypeVar("_Layer", bound=nn.Module)
_Method = TypeVar("_Method", bound=Callable[..., Tensor])


def stacked(kind: type[_Layer], layers: Sequence[_Layer]) -> _Layer:
    """A layer of which these are the units; see :meth:`Layer.stack`."""
    layers = list(layers)
    if not layers:
        raise ValueError(f"layers: expected at least one {kind.__name__}, got none")
    for i, layer in enumerate(layers):
        if type(layer) is not kind:
            got = type(layer).__name__
            raise TypeError(f"layers[{i}]: expected a {kind.__name__}, got {got}")
        if _about(layer) != _about(layers[0]):
            raise ValueError(
                f"layers[{i}]: expected the sizes, options, dtype and device of layers[0], "
                f"{_about(layers[0])}, got {_about(layer)}"
            )
    first = layers[0]
    if getattr(first, "units", None) is not None:
        raise ValueError("layers[0]: expected one layer, got one of units")
    return _with_parameters(
        first,
        {
            name: None
            if given is None
            else nn.Parameter(
                torch.stack([layer._parameters[name].detach() for layer in layers]),  # type: ignore[union-attr]
                given.requires_grad,
            )
            for name, given in first._parameters.items()
        },
    )


def unit_of(layer: _Layer, units: int | None, index: int) -> _Layer:
    """A unit as a layer of its own; see :meth:`Layer.unit`."""
    if units is None:
        raise RuntimeError("unit: expected a layer of units (stack), got one without")
    _require_own(layer)
    if not -units <= index < units:
        raise IndexError(f"index: expected -{units} to {units - 1}, got {index}")
    return _with_parameters(
        layer,
        {
            name: None
            if given is None
            else nn.Parameter(given.detach()[index].clone(), given.requires_grad)
            for name, given in layer._parameters.items()
        },
    )


def _require_own(layer: Any) -> None:
    """Raises RuntimeError unless a stacked layer's parameters are its own."""
    missing = [name for name in layer._names if name not in layer._parameters]
    if missing:
        raise RuntimeError(
            f"expected a stacked {type(layer).__name__} whose {missing[0]} is its own parameter, "
            "got one that computes it of others (parametrized, pruned)"
        )


def _about(layer: nn.Module) -> str:
    """All that has to be the same of two units."""
    first = next(layer.parameters())
    names = ", ".join(
        name if given.requires_grad else f"{name} (frozen)"
        for name, given in layer._parameters.items()
        if given is not None
    )
    mode = "training" if layer.training else "eval"
    return f"({layer.extra_repr()}) {first.dtype} {first.device} {names} {mode}"


def _with_parameters(layer: _Layer, parameters: dict[str, Any]) -> _Layer:
    """A copy of the layer with these parameters in the place of its own."""
    bare = copy.copy(layer)
    bare._parameters = dict.fromkeys(parameters)
    new = copy.deepcopy(bare)
    new._parameters.update(parameters)
    return new


def of_each_unit(method: _Method) -> _Method:
    """A layer's method whose result is a tensor: of units, a result for each. Of tensors among the
    arguments those of three dimensions and more have units too, as an input has."""

    @functools.wraps(method)
    def each(self: Any, *arguments: Any, **named: Any) -> Tensor:
        if self.units is None:
            return method(self, *arguments, **named)
        _require_own(self)
        own = {name: given for name, given in self._parameters.items() if given is not None}

        def one(parameters: dict[str, Tensor], *given: Any) -> Tensor:
            unit = copy.copy(self)
            unit._parameters = {**dict.fromkeys(self._parameters), **parameters}
            return method(unit, *given, **named)

        dims = [0 if isinstance(of, Tensor) and of.dim() >= 3 else None for of in arguments]
        result: Tensor = torch.func.vmap(one, in_dims=(0, *dims))(own, *arguments)
        return result

    return each  # type: ignore[return-value]
