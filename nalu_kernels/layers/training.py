"""What the publications add to a training: regularisers with their schedules, and the weights that
are put back within bounds after each step of the optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..checks import check_number, is_dtensor
from .base import Layer, MeanLayer


def regularizer(model: nn.Module, term: str = "regularizer") -> Tensor:
    """A term of a model's layers, summed over them, to be added to the loss::

        loss = criterion(model(x), y) + ramp(step) * nalu_kernels.regularizer(model)

    The terms have the names, and are the same, as in ``published.SETTINGS`` and in the columns of
    :func:`nalu_kernels.sweep.run`, whose "l1" has those of torch's layers too.

    Args:
        model: a layer, or a module that holds layers (also in cells) anywhere.
        term: "regularizer" is ``layer.regularizer()``, 0 of a layer whose publications have none;
            "l1" is the sum of the sizes of all parameters of the layers, with which NPUs are
            trained, and what stands before them.

    Raises:
        TypeError: model is not a module.
        ValueError: it holds no layer of this library, or there is no such term.
    """
    layers = _layers(model)
    if term not in ("regularizer", "l1"):
        raise ValueError(f"term: expected 'regularizer' or 'l1', got {term!r}")
    terms = [layer._l1() if term == "l1" else layer.regularizer() for layer in layers]
    return torch.stack([_whole(term).sum() for term in terms]).sum()


class input_regularizer:
    r"""Watches the inputs of a model's NAUs, NMUs, SNMUs and NACNMUs for the term of them::

        inputs = nalu_kernels.input_regularizer(model)
        loss = criterion(model(x), y) + inputs()

    A call is the sum of ``layer.input_regularizer`` of what the layers have been given since the
    last call, in training: a layer that was called several times, as in a recurrent network, takes
    the mean of all rows. In ``eval()`` nothing is watched.

    It consists of forward pre-hooks, and works from its making until :meth:`remove`, or as a
    context until the end of the ``with`` block.

    Args:
        model: a layer, or a module that holds layers (also in cells) anywhere.

    Raises:
        TypeError: model is not a module.
        ValueError: it holds no layer that has such a term.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", their sequential MNIST.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [layer for layer in _layers(model) if isinstance(layer, MeanLayer)]
        if not layers:
            raise ValueError(
                "model: expected an NAU, an NMU, an SNMU or a NACNMU in it, found none"
            )
        if any(layer.units is not None for layer in layers):
            raise ValueError(
                "model: expected layers that are not stacked, whose own input_regularizer is one "
                "for each unit"
            )
        self._seen: dict[MeanLayer, tuple[Tensor, int]] = {}
        self._handles = [
            layer.register_forward_pre_hook(self._see, with_kwargs=True) for layer in layers
        ]

    def _see(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if layer.training:
            given = layer._rows(args[0] if args else kwargs.get("input"))
            total, rows = self._seen.get(layer, (given.new_zeros(layer.in_features), 0))
            self._seen[layer] = (total + given.sum(0), rows + len(given))

    def __call__(self) -> Tensor:
        """The term of what has been seen, a scalar; 0 of nothing."""
        seen, self._seen = self._seen, {}
        terms = [
            _whole(layer._input_term(total / rows)) for layer, (total, rows) in seen.items() if rows
        ]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def remove(self) -> None:
        """Ends the watch. May be called again."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> input_regularizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


@dataclass(frozen=True)
class Ramp:
    r"""A regulariser's weight that rises in a line: 0 until a step, all of it from another on.

    .. math::
        \lambda(t) = \text{scale} \cdot
        \operatorname{clip}\Bigl(\frac{t - \text{start}}{\text{stop} - \text{start}},\; 0,\; 1\Bigr)

    Args:
        start, stop: steps, start <= stop. Where they are equal, the weight is 0 up to this step
            and all of it after, as by a sweep's columns ``ramp_start`` and ``ramp_stop``.
        scale: the weight from stop on.

    Raises:
        TypeError: an argument is no number.
        ValueError: stop is before start, start or scale is not finite, or scale is below 0. A
            stop may be infinite: then the weight stays 0.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 2.2.
    """

    start: float
    stop: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("start", "stop", "scale"):
            check_number(name, getattr(self, name))
        if not math.isfinite(self.start):
            raise ValueError(f"start: expected a finite step, got {self.start}")
        if not self.start <= self.stop:
            raise ValueError(
                f"stop: expected a step not before start = {self.start}, got {self.stop}"
            )
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"scale: expected a finite number, at least 0, got {self.scale}")

    def __call__(self, step: float) -> float:
        """The weight at a step, a finite number."""
        _check_step(step)
        if step <= self.start:
            return 0.0
        if step >= self.stop:
            return self.scale
        return self.scale * ((step - self.start) / (self.stop - self.start))


@dataclass(frozen=True)
class Stairs:
    r"""A regulariser's weight that is multiplied every so many steps, up to a last one.

    .. math::
        \beta(t) = \min(\text{first} \cdot \text{factor}^{\lfloor t / \text{every} \rfloor},\;
        \text{last})

    Args:
        first, last: the weight at first, and the largest.
        every: how many steps a stair has.
        factor: how much higher the next one is.

    Raises:
        TypeError: an argument is no number.
        ValueError: first is not positive and finite, last below it, every not positive, or factor
            at most 1.

    Source: Heim, Pevný and Šmídl 2020, "Neural Power Units": the L1 term of their large tasks.
    """

    first: float
    last: float
    every: int = 10_000
    factor: float = 10.0

    def __post_init__(self) -> None:
        for name in ("first", "last", "every", "factor"):
            check_number(name, getattr(self, name))
        if not 0 < self.first <= self.last or math.isinf(self.first):
            raise ValueError(
                f"first: expected a finite 0 < first <= last = {self.last}, got {self.first}"
            )
        if not self.every > 0:
            raise ValueError(f"every: expected a positive number of steps, got {self.every}")
        if not self.factor > 1:
            raise ValueError(f"factor: expected more than 1, got {self.factor}")

    def __call__(self, step: float) -> float:
        """The weight at a step, a finite number."""
        _check_step(step)
        weight = self.first
        for _ in range(int(step // self.every)):
            if weight >= self.last:
                break
            weight *= self.factor
        return min(weight, self.last)


def _check_step(step: float) -> None:
    check_number("step", step)
    if not math.isfinite(step):
        raise ValueError(f"step: expected a finite number, got {step}")


def clamp_(model: nn.Module) -> None:
    """Has each of a model's layers put its weights back within bounds: ``layer.clamp_()``.

    Args:
        model: a layer, or a module that holds layers (also in cells) anywhere.

    Raises:
        TypeError: model is not a module.
        ValueError: it holds no layer of this library.
        RuntimeError: a weight with bounds is computed from others (parametrized, pruned).
    """
    for layer in _layers(model):
        layer.clamp_()


def clamp_after_step(optimizer: torch.optim.Optimizer, model: nn.Module) -> RemovableHandle:
    """Has :func:`clamp_` follow each step of an optimizer, any of torch's::

        optimizer = torch.optim.Adam(model.parameters())
        nalu_kernels.clamp_after_step(optimizer, model)

    Args:
        optimizer: whose ``step`` is meant.
        model: as of :func:`clamp_`.

    Returns:
        a handle, whose ``remove()`` ends it.

    Raises:
        TypeError: optimizer is no optimizer.
        ValueError: model holds no layer of this library, or optimizer no parameter of model.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    _layers(model)
    held = {id(held) for group in optimizer.param_groups for held in group["params"]}
    if not any(id(parameter) in held for parameter in model.parameters()):
        raise ValueError("optimizer: expected one that holds parameters of model, it holds none")
    return optimizer.register_step_post_hook(lambda *_: clamp_(model))


def _layers(model: nn.Module) -> list[Layer]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    layers = [layer for layer in model.modules() if isinstance(layer, Layer)]
    if not layers:
        raise ValueError("model: expected a layer of this library in it, found none")
    return layers


def _whole(term: Tensor) -> Tensor:
    """Of weights that are shared out, the term of all of them."""
    return term.full_tensor() if is_dtensor(term) else term  # type: ignore[attr-defined]
