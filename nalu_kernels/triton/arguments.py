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
from .recipe import Prepare, Slot


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
    ``strides``."""

    strides: tuple[int, ...]
    prepare: Prepare | None
    aligned: bool = True


def rows(one: Described) -> Given:
    """(..., features) as (B, features): a view unless no single stride walks the rows."""
    if len(one.shape) == 2 and not one.negated:
        return Given(one.strides, None, one.aligned)
    shape = (math.prod(one.shape[:-1]), one.shape[-1])
    if one.negated:
        return Given((shape[1], 1), lambda tensor: contiguous(tensor).reshape(shape))
    strides = torch.empty_strided(one.shape, one.strides, device="meta").reshape(shape).stride()
    return Given(strides, lambda tensor: tensor.reshape(shape), one.aligned)


def dense(one: Described) -> Given:
    strides = torch.empty(one.shape, device="meta").stride()
    if one.strides == strides and not one.negated:
        return Given(strides, None, one.aligned)
    return Given(strides, contiguous)


def contiguous(tensor: Tensor) -> Tensor:
    return tensor.resolve_neg().contiguous()


class Layer:
    """A call, without its tensors: x is slot 0, the weights follow."""

    def __init__(
        self,
        chip: Chip,
        eps: float,
        linear: bool,
        log_space: bool,
        described: tuple[tuple[Any, ...] | None, ...],
    ) -> None:
        x, *weights = (one if one is None else Described._make(one) for one in described)
        assert x is not None
        by_name = Weights(*weights)
        W_hat = by_name.W_hat
        needed = weights[: 3 if linear and log_space else 2]
        require(all(weight is not None for weight in needed), "W_hat, M_hat or G is missing")
        require(0 < eps < math.inf, "eps must be positive and finite")
        require(x.dtype in DTYPES, "input must be float32, float64, bfloat16 or float16")
        require(len(x.shape) >= 1, "input lacks dimensions")
        require(len(W_hat.shape) == 2, "W_hat has the wrong shape")
        self.O, self.I = W_hat.shape
        require(x.shape[-1] == self.I, "input must have in_features as its last dimension")
        self.gates, self.gate_kind = 0, "none"
        if by_name.G is not None:
            require(len(by_name.G.shape) == 2, "G has the wrong shape")
            self.gates = by_name.G.shape[0]
            self.gate_kind = "output" if self.gates == self.O else "sample"
            require(self.gates in (self.O, 1), "G has the wrong shape")
        matrix = (self.O, self.I)
        shapes = Weights(matrix, matrix, (self.gates, self.I), (self.gates,), matrix, matrix)
        for name, weight, expected in zip(Weights._fields, by_name, shapes, strict=True):
            require(
                weight is None
                or (
                    weight.shape == expected
                    and weight.dtype == x.dtype
                    and weight.device == x.device
                ),
                f"{name} must have the dtype and device of input, and its shape",
            )
        require(
            (by_name.W_hat_mul is None) == (by_name.M_hat_mul is None),
            "W_hat_mul and M_hat_mul must be given together",
        )
        self.eps, self.linear, self.log_space = eps, linear, log_space
        self.shape, self.B = x.shape, math.prod(x.shape[:-1])
        self.dtype, self.device = x.dtype, x.device
        self.compute = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.chip = chip
        as_rows = rows(x)
        given = (as_rows, *(dense(one) for one in weights if one is not None))
        self.aligned = all(one.aligned for one in given)
        self.x_strides = as_rows.strides
        self.batch = Batch(self.B, self.I, self.O, Slot(0), *as_rows.strides)
        self.weights = Weights(
            *(weight and Slot(place) for place, weight in enumerate(weights, start=1))
        )
        self.untied = by_name.W_hat_mul is not None
        # x itself, if a contiguous tensor of its shape is like it.
        as_it_is = as_rows.prepare is None and dense(x).prepare is None
        self.like_x = self.batch.x if as_it_is else None
        # How each tensor is prepared, if it has to be.
        self.prepare = [as_rows.prepare, *(weight and dense(weight).prepare for weight in weights)]

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.B, self.I, self.O

    def shape_of_weight(self, name: str) -> tuple[int, ...]:
        return {"G": (self.gates, self.I), "gate_bias": (self.gates,)}.get(name, (self.O, self.I))

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.shape[:-1], self.O)

    @property
    def saved_size(self) -> int:
        """Elements of a, m and g, which a NALU keeps for its backward, flat."""
        return self.B * (2 * self.O + self.gates)
