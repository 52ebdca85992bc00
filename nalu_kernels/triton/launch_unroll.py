"""What a recurrent cell launches over the steps of a sequence."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from . import tiles
from .arguments import Described, Given, contiguous, dense, require
from .device import Chip
from .recipe import RECIPES, Prepare, Recipe, Slot, blocks
from .unroll import Sequence, Upstream, unroll_backward_kernel, unroll_kernel
from .unroll_forms import Cell
from .unroll_layers import CELL_LAYERS

# Of a program's tiles: the fewest rows that a product has, and the most states for which no
# gradient spills.
_ROWS, _STATES = 16, 16


def stretch(T: int) -> int:
    """After how many steps a state is kept for the backward of the last alone: the root of all."""
    return math.isqrt(max(0, T - 1)) + 1


def _as_it_is(one: Described) -> Given:
    """With any strides."""
    return Given((), contiguous) if one.negated else Given(one.strides, None)


class Unroll:
    """A call of ``layer``, of those of ``CELL_LAYERS``, with what it takes, over the steps of x.
    The weights are checked as the layer's own, whose input has all columns. The tensors: x, the
    weights, hx, lengths, reset.
    """

    def __init__(
        self,
        chip: Chip,
        layer: str,
        of_layer: tuple[Any, ...],
        last_only: bool,
        described: tuple[tuple[Any, ...] | None, ...],
    ) -> None:
        x, *given = (one if one is None else Described._make(one) for one in described)
        *weights, hx, lengths, reset = given
        assert x is not None and weights[0] is not None
        require(len(x.shape) == 3, "input must have the shape (steps, batch, features)")
        self.T, self.B, self.I = x.shape
        self.H, width = weights[0].shape
        require(width == self.I + self.H, "the weights must see the input and the state")
        columns = x._replace(
            shape=torch.Size((self.T * self.B, width)), strides=(width, 1), negated=False
        )
        self.layer = CELL_LAYERS[layer](chip, (columns, *weights), layer, *of_layer)
        call = self.layer.call
        self.chip, self.dtype, self.compute = chip, x.dtype, call.compute
        self.device, self.weights, self.shape = x.device, self.layer.weights, x.shape
        own = (hx, lengths, reset)
        shapes = ((self.B, self.H), (self.B,), (self.T, self.B))
        types = (x.dtype, torch.int64, torch.bool)
        for name, one, shape, dtype in zip(
            ("hx", "lengths", "reset"), own, shapes, types, strict=True
        ):
            require(
                one is None
                or (one.shape == shape and one.dtype == dtype and one.device == x.device),
                f"{name} has the wrong shape, dtype or device",
            )
        place = len(described) - len(own)
        own_slots = (one and Slot(at) for at, one in enumerate(own, start=place))
        x_given = _as_it_is(x)
        x_strides = x_given.strides or (self.B * self.I, self.I, 1)
        self.prepare: list[Prepare | None] = [
            x_given.prepare,
            *call.prepare[1:],
            *(one and dense(one).prepare for one in own[:2]),
            reset and self._marks(reset),
        ]
        self.sequence = Sequence(self.T, self.B, Slot(0), *x_strides, *own_slots)
        self.last_only, self.stretch = last_only, stretch(self.T)
        self.kept = blocks(self.T, self.stretch) * self.B * self.H
        self.row_blocks = blocks(self.B, _ROWS)
        double = self.compute == torch.float64
        exact = double or chip.family == "gfx942" or not self.layer.in_pieces
        self.cell = Cell(
            **self.layer.form,
            last_only=last_only,
            # All bits of float32, by matrix cores where the layer leaves them registers.
            product="ieee" if exact else "bf16x6",
            I=self.I,
            H=self.H,
            rows=_ROWS,
            columns=self.layer.columns,
            states=_STATES,
        )
        # Whether a program can hold a step; of doubles NVIDIA's registers cannot.
        small = width <= self.layer.most and self.H <= _STATES
        self.warps = 4 if chip.family == "gfx942" else 8  # of 64 threads, and 32
        self.fits = small and self.layer.fits and not (double and chip.family.startswith("sm_"))

    def _marks(self, reset: Described) -> Prepare | None:
        """How the kernels read them. Triton's compiler fails at products of doubles that depend on
        what is read a byte at a time."""
        if self.compute == torch.float64:
            return lambda tensor: tensor.to(torch.int32, memory_format=torch.contiguous_format)
        return dense(reset).prepare

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.B, self.H) if self.last_only else (self.T, self.B, self.H)

    @property
    def options(self) -> dict[str, Any]:
        """One stage: what a step reads the step before it has written."""
        limits = {"maxnreg": 255} if self.chip.family.startswith("sm_") else {}
        return {"CELL": self.cell, "num_warps": self.warps, "num_stages": 1, **limits}

    def require_backward(self, dy: Described, states: Described) -> None:
        require(
            dy.shape == self.output_shape and dy[2:4] == (self.dtype, self.device),
            "grad_output must have the shape, dtype and device of the output",
        )
        size = self.kept if self.last_only else self.T * self.B * self.H
        require(
            math.prod(states.shape) == size and states[2:4] == (self.dtype, self.device),
            "saved is not what the forward left",
        )


@functools.lru_cache(RECIPES)
def fits(*call: Any) -> bool:
    """Whether a program can hold what a step takes; the call is checked."""
    return Unroll(*call).fits


@functools.lru_cache(RECIPES)
def forward(save: bool, *call: Any) -> Recipe:
    """From x, the weights and what comes after them to (output, saved); ``call``: the arguments of
    ``Unroll``."""
    one = Unroll(*call)
    recipe = Recipe(one.device, one.prepare)
    output = recipe.room(one.output_shape, one.dtype)
    kept = save and one.last_only
    saved = recipe.room((one.kept,), one.dtype) if kept else None
    recipe.results = (output, saved)
    if one.B * one.H:
        weights = one.layer.transformed(recipe)
        args = (one.sequence, weights, output, saved, one.stretch, one.layer.eps)
        recipe.step(unroll_kernel, (one.row_blocks,), *args, **one.options)
    return recipe


@functools.lru_cache(RECIPES)
def backward(
    needed: int,
    wants_hx: bool,
    described_dy: tuple[Any, ...],
    described_states: tuple[Any, ...],
    *call: Any,
) -> Recipe:
    """From x, the weights, what comes after them, dy and the states to the gradients of x and the
    weights, those with a bit in ``needed``, and of hx."""
    one = Unroll(*call)
    dy, states = Described._make(described_dy), Described._make(described_states)
    one.require_backward(dy, states)
    dy_given, place = _as_it_is(dy), len(one.prepare)
    recipe = Recipe(one.device, [*one.prepare, dy_given.prepare, None])
    strides = dy_given.strides or torch.empty(dy.shape, device="meta").stride()
    dy_step, dy_row, dy_col = (0, *strides) if one.last_only else strides
    grads = one.layer.gradients(
        *(
            recipe.room(one.layer.shape(name), one.dtype, like=weight)
            if weight is not None and needed >> at & 1
            else None
            for at, (name, weight) in enumerate(one.weights._asdict().items(), start=1)
        )
    )
    dx = recipe.room(one.shape, one.dtype) if needed & 1 else None
    dhx = recipe.room((one.B, one.H), one.dtype) if wants_hx and one.sequence.hx else None
    recipe.results = (dx, *grads[: len(one.weights)], dhx)
    if not any(recipe.results):
        return recipe
    programs = min(one.row_blocks, tiles.WARPS_A_PROCESSOR // one.warps * one.chip.processors)
    parts = one.layer.parts(recipe, grads, programs)
    if programs:
        between = one.stretch * one.B * one.H if one.last_only else 0
        up = Upstream(
            Slot(place),
            dy_step,
            dy_row,
            dy_col,
            Slot(place + 1),
            recipe.room((between,), one.dtype),
            recipe.room((one.B, one.H), one.compute),
            recipe.room((one.B, one.H) if one.sequence.reset else (0,), one.compute),
        )
        recipe.step(
            unroll_backward_kernel,
            (programs,),
            one.sequence,
            one.layer.transformed(recipe),
            up,
            dx,
            dhx,
            parts,
            one.stretch,
            one.layer.eps,
            **one.options,
        )
    if any(parts):
        one.layer.finish(recipe, grads, parts, programs)
    return recipe
