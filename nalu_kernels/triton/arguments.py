"""A layer's arguments: brought into the form that the kernels take, described, and checked.

A refusal is terse; ``nalu_kernels/checks.py`` then finds the words for the user.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks import DTYPES
from .device import Chip
from .forms import Batch, Weights
from .recipe import Prepare, Recipe, Slot, Units


def require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


class Described(NamedTuple):
    """What a recipe depends on of a tensor. ``aligned``: to 16 bytes, for wide loads; ``negated``:
    a view of which the sign has yet to be changed."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    aligned: bool
    negated: bool


def describe(tensor: Tensor | None) -> tuple[Any, ...] | None:
    """The fields of a ``Described``: a plain tuple, for this runs with every call."""
    if tensor is None:
        return None
    aligned = not tensor.data_ptr() & 15
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, aligned, tensor.is_neg()


class Given(NamedTuple):
    """How a kernel sees a tensor that it is given: after ``prepare``, if that is not None, and with
    ``strides``, of which a dimension of units has the first."""

    strides: tuple[int, ...]
    prepare: Prepare | None
    aligned: bool = True


def rows(one: Described, units: bool = False) -> Given:
    """(..., features) as (B, features): a view unless no single stride walks the rows. With
    ``units`` these have a dimension before."""
    lead = int(units)
    if len(one.shape) == lead + 2 and not one.negated:
        return Given(one.strides, None, _aligned(one, units))
    shape = (*one.shape[:lead], math.prod(one.shape[lead:-1]), one.shape[-1])
    if one.negated:
        strides = torch.empty(shape, device="meta").stride()
        return Given(strides, lambda tensor: contiguous(tensor).reshape(shape))
    strides = torch.empty_strided(one.shape, one.strides, device="meta").reshape(shape).stride()
    aligned = _aligned(one._replace(strides=strides), units)
    return Given(strides, lambda tensor: tensor.reshape(shape), aligned)


def dense(one: Described, units: bool = False) -> Given:
    """A tensor, or with ``units`` each unit's, without gaps."""
    strides, lead = torch.empty(one.shape, device="meta").stride(), int(units)
    if one.strides[lead:] == strides[lead:] and not one.negated:
        return Given(one.strides, None, _aligned(one, units))
    return Given(strides, contiguous)


def _aligned(one: Described, units: bool) -> bool:
    """Of each unit."""
    return one.aligned and not (units and one.strides[0] * one.dtype.itemsize & 15)


def contiguous(tensor: Tensor) -> Tensor:
    return tensor.resolve_neg().contiguous()


class Call:
    """A call of x and the weights of one function, without its tensors: x is slot 0, the weights
    follow. The first weight has a row for each output, and ``for_each_input`` columns.

    With ``units`` every tensor has a dimension of units before its own, and all that is said here
    of shapes is said of one unit.
    """

    def __init__(
        self,
        chip: Chip,
        described: tuple[tuple[Any, ...] | None, ...],
        for_each_input: int = 1,
        units: bool = False,
    ) -> None:
        whole = [one if one is None else Described._make(one) for one in described]
        assert whole[0] is not None and whole[1] is not None
        self._units = self._count(whole) if units else None
        x, *weights = (one if one is None else self._of_unit(one) for one in whole)
        assert x is not None and weights[0] is not None
        require(x.dtype in DTYPES, "input must be float32, float64, bfloat16 or float16")
        require(len(x.shape) >= 1, "input lacks dimensions")
        require(len(weights[0].shape) == 2, "the weights must have 2 dimensions")
        self.O, columns = weights[0].shape
        self.I = columns // for_each_input
        require(columns == self.I * for_each_input, "the weights have the wrong shape")
        require(x.shape[-1] == self.I, "input must have in_features as its last dimension")
        self.shape, self.B = x.shape, math.prod(x.shape[:-1])
        self.dtype, self.device = x.dtype, x.device
        self.compute = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.chip = chip
        as_rows = rows(whole[0], units)
        given = [as_rows, *(one if one is None else dense(one, units) for one in whole[1:])]
        # Vectors are read a number at a time.
        matrices = (
            one.aligned for one in given if one is not None and len(one.strides) > 1 + units
        )
        self.aligned = all(matrices)
        self.x_strides = as_rows.strides[-2:]
        self.batch = Batch(self.B, self.I, self.O, Slot(0), *self.x_strides)
        self.given = weights
        self.slots = [weight and Slot(place) for place, weight in enumerate(weights, start=1)]
        # x itself, if a contiguous tensor of its shape is like it.
        as_it_is = as_rows.prepare is None and dense(x).prepare is None
        self.like_x = self.batch.x if as_it_is else None
        # How each tensor is prepared, if it has to be, and how far its units are apart.
        self.prepare = [one and one.prepare for one in given]
        self._strides = tuple(one.strides[0] if units and one else None for one in given)

    @staticmethod
    def _count(whole: list[Described | None]) -> int:
        assert whole[0] is not None
        count = whole[0].shape[0] if whole[0].shape else 0
        require(
            count > 0 and all(one is None or one.shape[:1] == (count,) for one in whole),
            "every tensor must have the units as its first dimension",
        )
        return count

    def _of_unit(self, one: Described) -> Described:
        if self._units is None:
            return one
        return one._replace(shape=one.shape[1:], strides=one.strides[1:])

    def recipe(self) -> Recipe:
        """Of a forward, as yet without steps."""
        return self._recipe(self.prepare, self._strides)

    def _recipe(self, prepare: list[Prepare | None], strides: tuple[int | None, ...]) -> Recipe:
        units = None if self._units is None else Units(self._units, strides)
        return Recipe(self.device, prepare, units)

    def require_shape(self, name: str, weight: Described | None, *expected: int) -> None:
        """Of a weight that is given."""
        require(
            weight is None
            or (
                weight.shape == expected
                and weight.dtype == self.dtype
                and weight.device == self.device
            ),
            f"{name} must have the dtype and device of input, and its shape",
        )

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.shape[:-1], self.O)

    def backward(
        self, dy: Described, saved: Described | None, saved_size: int, saved_dtype: torch.dtype
    ) -> tuple[Batch, Recipe, Given]:
        """What a backward reads, the tensors of dy and ``saved`` being the last two; a recipe of
        them all, as yet without steps; and dy as rows."""
        units = () if self._units is None else (self._units,)
        require(
            dy.shape == (*units, *self.output_shape) and dy[2:4] == (self.dtype, self.device),
            "grad_output must have the shape, dtype and device of the output",
        )
        require(
            saved is None
            or (
                math.prod(saved.shape) == math.prod(units) * saved_size
                and saved[2:4] == (saved_dtype, self.device)
            ),
            "saved is not what the forward left",
        )
        place, as_rows = len(self.prepare), rows(dy, bool(units))
        dy_row, dy_col = as_rows.strides[-2:]
        batch = self.batch._replace(
            dy=Slot(place),
            dy_row=dy_row,
            dy_col=dy_col,
            saved=None if saved is None else Slot(place + 1),
        )
        prepare = [*self.prepare, as_rows.prepare, None]
        recipe = self._recipe(prepare, (*self._strides, as_rows.strides[0], saved_size))
        return batch, recipe, as_rows._replace(strides=(dy_row, dy_col))


class Layer(Call):
    """A call of ``layer``, of those of ``Form``. Of a "nau" M_hat is None; an iNALU's gate that
    sees no input is a bias without G."""

    def __init__(
        self,
        chip: Chip,
        eps: float,
        linear: bool,
        log_space: bool,
        described: tuple[tuple[Any, ...] | None, ...],
        layer: str = "nalu",
        omega: float = 0.0,
        units: bool = False,
    ) -> None:
        needed = described[1 : {"nalu": 3 + (linear and log_space), "nau": 2}.get(layer, 3)]
        require(all(weight is not None for weight in needed), "W_hat, M_hat or G is missing")
        require(0 < eps < math.inf, "eps must be positive and finite")
        self.signed = layer in ("inalu", "inalu_sum")
        require(not self.signed or 0 < omega < math.inf, "omega must be positive and finite")
        super().__init__(chip, described, units=units)
        by_name = Weights(*self.given)
        self.gates, self.gate_kind = 0, "none"
        if by_name.G is not None:
            require(len(by_name.G.shape) == 2, "G has the wrong shape")
            self.gates = by_name.G.shape[0]
            self.gate_kind = "output" if self.gates == self.O else "sample"
            require(self.gates in (self.O, 1), "G has the wrong shape")
        elif by_name.gate_bias is not None:
            self.gates, self.gate_kind = self.O, "output"
        for name, weight in zip(Weights._fields, by_name, strict=True):
            self.require_shape(name, weight, *self.shape_of_weight(name))
        require(
            (by_name.W_hat_mul is None) == (by_name.M_hat_mul is None),
            "W_hat_mul and M_hat_mul must be given together",
        )
        self.layer, self.eps, self.omega = layer, eps, omega
        self.linear, self.log_space = linear, log_space
        self.weights = Weights(*self.slots)
        self.untied = by_name.W_hat_mul is not None

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.B, self.I, self.O

    def shape_of_weight(self, name: str) -> tuple[int, ...]:
        return {"G": (self.gates, self.I), "gate_bias": (self.gates,)}.get(name, (self.O, self.I))

    @property
    def saved_size(self) -> int:
        """Elements of a, m and g, which a NALU keeps for its backward, flat; see ``Batch``."""
        if self.signed:
            return 4 * self.B * self.O
        return self.B * (2 * self.O + self.gates)
