"""What a cell's layer has of its own in the launches over time: its weights, what the kernels are
compiled for, and how the programs' sums become gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import tiles
from .arguments import Call, Layer
from .device import Chip
from .forms import Gradients, Partials, Weights
from .grad_weights import finish_kernel
from .launch import transform
from .launch_power import Power
from .launch_reduction import Reduction
from .power import Powers, finish_power_kernel
from .recipe import Recipe, Slot, blocks
from .reduction import finish_reduction_kernel

Described = tuple[tuple[Any, ...] | None, ...]


class CellLayer:
    """``call``: a call of the layer, whose input has all columns; ``weights`` as the kernels have
    them, in the order of the arguments; ``form``: what ``Cell`` has of the layer."""

    call: Call
    weights: Any
    gradients: Any = Gradients  # of the weights, by the same names
    eps = 0.0
    form: dict[str, Any]
    fits = True  # whether the kernels have all of it
    # Of a program's tile of [x, h]: its columns, of which so many are taken at most. Narrower tiles
    # of products in pieces spill: their layouts keep copies.
    columns, most, in_pieces = 32, 32, True

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a weight."""
        raise NotImplementedError

    def transformed(self, recipe: Recipe) -> Any:
        """The weights as every step reads them."""
        return self.weights

    def parts(self, recipe: Recipe, grads: Any, programs: int) -> Partials:
        """Room for each program's sums."""
        raise NotImplementedError

    def finish(self, recipe: Recipe, grads: Any, parts: Partials, programs: int) -> None:
        """From the sums to the gradients."""
        raise NotImplementedError

    def _room(self, recipe: Recipe, programs: int, name: str, *wanted: Slot | None) -> Slot | None:
        if not any(wanted):
            return None
        return recipe.room((programs, *self.shape(name)), self.call.compute)

    def _finish(self, recipe: Recipe, kernel: Any, size: int, *args: Any, **options: Any) -> None:
        """A launch over ``size`` elements."""
        if size:
            recipe.step(
                kernel,
                (blocks(size, tiles.FINISH_ELEMENTS),),
                *args,
                **options,
                BLOCK=tiles.FINISH_ELEMENTS,
                num_warps=tiles.warps_of_128_threads(self.call.chip),
            )


class Mixed(CellLayer):
    """A NAC, a NALU, a NAU or an iNALU: those of ``Layer``."""

    def __init__(
        self,
        chip: Chip,
        described: Described,
        layer: str,
        eps: float,
        linear: bool,
        log_space: bool,
        omega: float = 0.0,
    ) -> None:
        one = Layer(chip, eps, linear, log_space, described, layer, omega)
        self.call: Layer = one
        self.weights, self.eps = one.weights, one.eps
        if one.signed:  # what each column adds to the sign's gradient takes the registers
            self.columns, self.most, self.in_pieces = 16, 8, False
        sees_nothing = one.gate_kind != "none" and one.weights.G is None
        self.form = {
            "layer": layer,
            "linear": linear,
            "log_space": log_space,
            "gates": "parameter" if sees_nothing else one.gate_kind,
            "omega": omega,
            "untied": one.untied,
            "factor": "inalu" if one.signed else "",
        }

    def shape(self, name: str) -> tuple[int, ...]:
        return self.call.shape_of_weight(name)

    def transformed(self, recipe: Recipe) -> Weights:
        """A NAU's are clamped where they are read."""
        return self.weights if self.weights.M_hat is None else transform(recipe, self.call)

    def parts(self, recipe: Recipe, grads: Gradients, programs: int) -> Partials:
        return Partials(
            W=self._room(recipe, programs, "W_hat", grads.W_hat, grads.M_hat),
            W_mul=self._room(recipe, programs, "W_hat_mul", grads.W_hat_mul, grads.M_hat_mul),
            G=self._room(recipe, programs, "G", grads.G),
            gate_bias=self._room(recipe, programs, "gate_bias", grads.gate_bias),
        )

    def finish(self, recipe: Recipe, grads: Gradients, parts: Partials, programs: int) -> None:
        sizes = tuple(math.prod(self.shape(name)) for name in ("W_hat", "G", "gate_bias"))
        counts = (programs, programs)
        self._finish(recipe, finish_kernel, max(sizes), self.weights, grads, parts, sizes, counts)


class Multiplied(CellLayer):
    """An NMU, whose parts are those of ``reduction``: [programs, columns of W, O]."""

    def __init__(self, chip: Chip, described: Described, layer: str) -> None:
        self.call = one = Reduction(chip, layer, 0.0, described)
        self.weights = Weights(one.W, None)
        self.form = {"layer": layer, "factor": layer}

    def shape(self, name: str) -> tuple[int, ...]:
        return (self.call.O, self.call.I)

    def parts(self, recipe: Recipe, grads: Gradients, programs: int) -> Partials:
        return Partials(W=self._room(recipe, programs, "W_hat", grads.W_hat))

    def finish(self, recipe: Recipe, grads: Gradients, parts: Partials, programs: int) -> None:
        one, size = self.call, math.prod(self.shape("W_hat"))
        self._finish(
            recipe,
            finish_reduction_kernel,
            size,
            one.batch,
            parts.W,
            grads.W_hat,
            None,
            None,
            programs,
            0,
            one.I,
        )


class Powered(CellLayer):
    """A RealNPU; of an NPU the steps are calls of the layer."""

    gradients = Powers

    def __init__(
        self, chip: Chip, described: Described, layer: str, eps: float, straight_through: bool
    ) -> None:
        self.call = one = Power(chip, eps, described)
        self.weights, self.eps, self.passes = one.weights, eps, straight_through
        self.form, self.fits = {"layer": layer}, self.weights.W_im is None

    def shape(self, name: str) -> tuple[int, ...]:
        return (self.call.I,) if name == "g" else (self.call.O, self.call.I)

    def parts(self, recipe: Recipe, grads: Powers, programs: int) -> Partials:
        return Partials(
            W=self._room(recipe, programs, "W_re", grads.W_re),
            G=self._room(recipe, programs, "g", grads.g),
        )

    def finish(self, recipe: Recipe, grads: Powers, parts: Partials, programs: int) -> None:
        self._finish(
            recipe,
            finish_power_kernel,
            max(math.prod(self.shape(name)) for name in ("W_re", "g")),
            self.call.batch,
            self.weights.g,
            Powers(W_re=parts.W, g=parts.G),
            grads,
            programs,
            programs,
            PASSES=self.passes,
        )


# From a layer's name, as of ``Cell``, to what it is.
CELL_LAYERS: dict[str, Callable[..., CellLayer]] = {
    **dict.fromkeys(("nalu", "nau", "inalu", "inalu_sum"), Mixed),
    "nmu": Multiplied,
    "npu": Powered,
}
