"""A layer's arguments, checked cheaply and read into what the kernels take.

A refusal is terse; ``nalu_kernels/checks.py`` then finds the words for the user.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checks import DTYPES
from .device import chip
from .forms import Weights


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


class Layer:
    """One call: ``x`` is the input as (B, I), of any strides; ``weights`` are contiguous."""

    def __init__(
        self, eps: float, linear: bool, log_space: bool, input: Tensor, weights: Weights
    ) -> None:
        W_hat = weights.W_hat
        needed = (W_hat, weights.M_hat, weights.G)[: 3 if linear and log_space else 2]
        _require(all(weight is not None for weight in needed), "W_hat, M_hat or G is missing")
        _require(0 < eps < math.inf, "eps must be positive and finite")
        _require(input.dtype in DTYPES, "input must be float32, float64, bfloat16 or float16")
        _require(input.layout == torch.strided, "input must be dense")
        _require(input.dim() >= 1 and W_hat.dim() == 2, "input or W_hat lacks dimensions")
        self.O, self.I = W_hat.shape
        _require(input.shape[-1] == self.I, "input must have in_features as its last dimension")
        self.gates, self.gate_kind = 0, "none"
        if weights.G is not None:
            _require(weights.G.dim() == 2, "G has the wrong shape")
            self.gates = weights.G.shape[0]
            self.gate_kind = "output" if self.gates == self.O else "sample"
            _require(self.gates in (self.O, 1), "G has the wrong shape")
        matrix = (self.O, self.I)
        shapes = Weights(matrix, matrix, (self.gates, self.I), (self.gates,), matrix, matrix)
        for name, weight, shape in zip(Weights._fields, weights, shapes, strict=True):
            _require(
                weight is None
                or (
                    weight.shape == shape
                    and weight.dtype == input.dtype
                    and weight.device == input.device
                    and weight.layout == torch.strided
                ),
                f"{name} must have the dtype and device of input, and its shape",
            )
        _require(
            (weights.W_hat_mul is None) == (weights.M_hat_mul is None),
            "W_hat_mul and M_hat_mul must be given together",
        )
        self.eps, self.linear, self.log_space = float(eps), linear, log_space
        self.input = input
        self.dtype = input.dtype
        self.compute = torch.float64 if input.dtype == torch.float64 else torch.float32
        self.chip = chip(input.device)
        self.B = math.prod(input.shape[:-1])
        self.x = self._rows(input, self.I)
        self.weights = Weights(
            *(weight if weight is None else weight.resolve_neg().contiguous() for weight in weights)
        )

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.B, self.I, self.O

    def _rows(self, tensor: Tensor, features: int) -> Tensor:
        """(..., features) as (B, features): a view unless no single stride walks the rows."""
        tensor = tensor.resolve_neg()
        return tensor if tensor.dim() == 2 else tensor.reshape(self.B, features)

    def rows_of_gradient(self, grad_output: Tensor) -> Tensor:
        _require(
            grad_output.shape == (*self.input.shape[:-1], self.O)
            and grad_output.dtype == self.dtype
            and grad_output.device == self.input.device
            and grad_output.layout == torch.strided,
            "grad_output must have the shape and dtype of the output",
        )
        return self._rows(grad_output, self.O)

    def empty_output(self) -> Tensor:
        return self.input.new_empty((*self.input.shape[:-1], self.O))

    def empty_input_gradient(self) -> Tensor:
        return self.input.new_empty(self.input.shape)

    def saved_size(self) -> int:
        return self.B * (2 * self.O + self.gates)

    def empty_saved(self) -> Tensor:
        """Flat: a, m and g, in the compute type."""
        return self.input.new_empty(self.saved_size(), dtype=self.compute)

    def empty_partials(self, *shape: int) -> Tensor:
        return self.input.new_empty(shape, dtype=self.compute)

    def empty_transformed(self) -> dict[str, Tensor | None]:
        """Room for W and, where the product has weights of its own, W_mul."""
        untied = self.weights.W_hat_mul is not None
        return {
            "W": self.empty_partials(self.O, self.I),
            "W_mul": self.empty_partials(self.O, self.I) if untied else None,
        }
