"""Layers side by side in one: each parameter has a dimension of units before its own."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..checks import check_int
from .alike import difference, more_than_a_layer, not_own

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
        if found := more_than_a_layer(layer):
            raise ValueError(f"layers[{i}]: {found}")
        if found := difference(layers[0], layer):
            raise ValueError(
                f"layers[{i}]: expected the sizes, options, dtype, device and mode of layers[0], "
                f"whose {found}"
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
    if found := more_than_a_layer(layer):
        raise RuntimeError(f"unit: {found}")
    index = check_int("index", index)
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
    if found := not_own(layer, f"stacked {type(layer).__name__}"):
        raise RuntimeError(found)


def _with_parameters(layer: _Layer, parameters: dict[str, Any]) -> _Layer:
    """A copy of the layer with these parameters in the place of its own, and without hooks."""
    bare = copy.copy(layer)
    bare._parameters = dict.fromkeys(parameters)
    bare._load_state_dict_pre_hooks = OrderedDict()
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
