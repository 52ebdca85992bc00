"""An operator's launches, worked out once for each kind of call and repeated from then on.

A tiny layer's time is the host's. So what depends only on the arguments' shapes, strides, dtypes
and alignment (tiles, grids, specialised kernels) is kept as a recipe, which names tensors by their
place, and a repeated call does no more than allocate, and launch.
"""

from __future__ import annotations

import functools
import math
import operator
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver

# Kinds of calls kept; a model has a few for each of its layers, unless its batches keep changing.
RECIPES = 4096

Prepare = Callable[[Tensor], Tensor]


def blocks(size: int, block: int) -> int:
    """How many blocks hold ``size``."""
    return -(-size // block)


# Of the units of one launch: a grid's third dimension, and bytes of what lies between launches.
MOST_UNITS, MOST_SCRATCH = 65535, 1 << 28


class TooManyUnits(Exception):
    """For one launch; ``most``: not too many."""

    def __init__(self, most: int) -> None:
        self.most = most


class Units(NamedTuple):
    """Layers side by side: how many, and the strides of a recipe's given tensors from one to the
    next; None for a tensor that is not there."""

    number: int
    strides: tuple[int | None, ...]


@functools.cache
def _strides_of(kernel: Any) -> Any:
    """A type with a field for each argument of the kernel ahead of ``units``; None if it has no
    such argument, as kernels that serve one layer alone."""
    names = kernel.arg_names
    if "units" not in names:
        return None
    return namedtuple("Strides", names[: names.index("units")])


class Slot:
    """Stands for the tensor at ``index`` of those that a recipe runs on."""

    def __init__(self, index: int) -> None:
        self.index = index


class Room(NamedTuple):
    """A tensor that a recipe allocates; ``like`` is the place of one that has its shape and dtype
    and is contiguous: for PyTorch half the work."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    like: int | None


def _has_slots(template: Any) -> bool:
    if isinstance(template, tuple):
        return any(map(_has_slots, template))
    return isinstance(template, Slot)


def bind(template: Any) -> Callable[[Sequence[Tensor | None]], Any]:
    """From tensors to ``template`` (tuples, named or not, of constants and slots) with the tensors
    in the places of their slots."""
    if isinstance(template, Slot):
        return operator.itemgetter(template.index)
    assert isinstance(template, tuple)
    filled = [(place, bind(part)) for place, part in enumerate(template) if _has_slots(part)]
    make = getattr(type(template), "_make", tuple)

    def fill(tensors: Sequence[Tensor | None]) -> Any:
        parts = list(template)
        for place, part in filled:
            parts[place] = part(tensors)
        return make(parts)

    return fill


def _listens(hook: Any) -> bool:
    """Whether anything would be called: by a chain of hooks, or one that was put in its place."""
    return bool(getattr(hook, "calls", hook))


# Versions of Triton whose launchers take what ``_again`` gives them.
_KNOWN_LAUNCHERS = ("3.6", "3.7")


def _again(compiled: Any, grid: tuple[int, ...], constants: list[Any]) -> Callable[..., None]:
    """Launches ``compiled`` as Triton does, less the search for it among the arguments, and less
    the description that it makes of each launch where no profiler has a hook to hear it."""
    x, y, z = (*grid, 1, 1)[:3]
    described = compiled[x, y, z]
    if ".".join(triton.__version__.split(".")[:2]) not in _KNOWN_LAUNCHERS:
        return lambda *args: described(*args, *constants)
    run, function, metadata = compiled.run, compiled.function, compiled.packed_metadata
    hooks = knobs.runtime

    def launch(*args: Any) -> None:
        if _listens(hooks.launch_enter_hook) or _listens(hooks.launch_exit_hook):
            described(*args, *constants)
            return
        active = driver.active
        stream = active.get_current_stream(active.get_current_device())
        run(x, y, z, stream, function, metadata, None, None, None, *args, *constants)

    return launch


class Step:
    """A launch: ``kernel[grid](*args, **options)``."""

    def __init__(
        self, kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self.kernel, self.grid, self.args, self.options = kernel, grid, args, options
        self._bind = bind(args)
        self._again: Callable[..., None] | None = None

    def bound(self, tensors: Sequence[Tensor | None]) -> tuple[Any, ...]:
        args: tuple[Any, ...] = self._bind(tensors)
        return args

    def launch(self, tensors: Sequence[Tensor | None]) -> None:
        """On the current device and stream."""
        args = self._bind(tensors)
        if self._again is not None:
            self._again(*args)
            return
        compiled = self.kernel[self.grid](*args, **self.options)
        if compiled is not None:  # by the interpreter it is None
            # By place, after the arguments.
            constants = [
                self.options[name] for name in self.kernel.arg_names if name in self.options
            ]
            self._again = _again(compiled, self.grid, constants)


class Recipe:
    """Some of the tensors given have to be prepared; ``rooms`` are allocated behind them, ``steps``
    launched, and the ``results`` are some of them all.

    With ``units`` each room and each launch is one layer's, and made for all.
    """

    def __init__(
        self, device: torch.device, prepare: list[Prepare | None], units: Units | None = None
    ) -> None:
        self.device, self.given, self.units = device, len(prepare), units
        self.prepare = [(place, one) for place, one in enumerate(prepare) if one is not None]
        self.rooms: list[Room] = []
        self.steps: list[Step] = []
        self.results: tuple[Slot | None, ...] = ()

    def room(self, shape: Sequence[int], dtype: torch.dtype, like: Slot | None = None) -> Slot:
        if self.units is not None:
            self.rooms.append(Room((self.units.number, *shape), dtype, None))
        else:
            self.rooms.append(Room(tuple(shape), dtype, None if like is None else like.index))
        return Slot(self.given + len(self.rooms) - 1)

    def step(self, kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        strides_of = _strides_of(kernel)
        if strides_of is not None:
            strides = ()
            if self.units is not None:
                strides = strides_of(*map(self._from_unit_to_unit, args))
                grid = (*(*grid, 1)[:2], self.units.number)
            args = (*args, strides)
        self.steps.append(Step(kernel, grid, args, options))

    def _from_unit_to_unit(self, template: Any) -> Any:
        """Strides in the places of slots, None in those of all else."""
        if isinstance(template, tuple):
            make = getattr(type(template), "_make", tuple)
            return make(map(self._from_unit_to_unit, template))
        if not isinstance(template, Slot):
            return None
        assert self.units is not None
        if template.index < self.given:
            return self.units.strides[template.index]
        return math.prod(self.rooms[template.index - self.given].shape[1:])

    def allocate(self, tensors: Sequence[Any]) -> list[Tensor]:
        device = self.device
        return [
            torch.empty(shape, dtype=dtype, device=device)
            if like is None
            else torch.empty_like(tensors[like])
            for shape, dtype, like in self.rooms
        ]

    def run(self, tensors: list[Any]) -> list[Any]:
        """Launches the steps on their device's current stream; returns the results."""
        device = self.device
        if self.units is not None and self.units.number > (most := self._most_units()):
            raise TooManyUnits(most)
        for place, prepare in self.prepare:
            tensors[place] = prepare(tensors[place])
        tensors += self.allocate(tensors)
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                self._launch(tensors)
        else:
            self._launch(tensors)
        return [slot and tensors[slot.index] for slot in self.results]

    def _most_units(self) -> int:
        kept = {slot.index - self.given for slot in self.results if slot is not None}
        between = sum(
            math.prod(room.shape[1:]) * room.dtype.itemsize
            for place, room in enumerate(self.rooms)
            if place not in kept
        )
        return max(1, min(MOST_UNITS, MOST_SCRATCH // max(1, between)))

    def _launch(self, tensors: list[Any]) -> None:
        for step in self.steps:
            step.launch(tensors)
