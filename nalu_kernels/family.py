"""The table of the family: what there is to know of each function that has kernels.

A row makes a function's schemas, shapes without numbers, FLOP counts and decomposition
(``operators.py``, ``flops.py``), its autograd.Function (``autograd.py``) and its way to a back end
(``execute.py``). So does an ``OverTime``, which is made of a row: the layer as a recurrent cell
that takes all its steps in one call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import checks, reference
from .autocast import HALVES
from .reference.units import units
from .reference.unroll import unroll

Shapes = dict[str, Sequence[int]]


class Product(NamedTuple):
    """A matrix product, or a product over the inputs: rows x inputs with columns x inputs."""

    columns: int
    left: tuple[str, ...]  # the tensors that its left side passes a gradient to
    right: tuple[str, ...]


def _no_numbers(shapes: Shapes) -> int:
    return 0


def _no_parts(*arguments: Any) -> tuple[Tensor, ...]:
    return ()


@dataclass(eq=False)
class Function:
    """All that is called takes the options, of these types, then the tensors: the input first, the
    weights after it, of which trailing optional ones may be left out.

    The first weight has a row for each output.
    """

    name: str
    formula: Callable[..., Tensor]  # the reference, which takes all by name
    check: Callable[..., None]  # raises what has words for the user
    options: dict[str, type]
    weights: tuple[str, ...]
    products: Callable[[Shapes], list[Product]]
    optional: tuple[str, ...] = ()  # weights too, after the others
    # How many numbers for each row the forward saves for the backward.
    saved: Callable[[Shapes], int] = _no_numbers
    # These numbers by plain PyTorch, of arguments in the order that operators take them.
    parts: Callable[..., tuple[Tensor, ...]] = _no_parts
    # The last option, a flag: where it is set the forward's own output is what is saved, else
    # nothing is; the backward is told by that alone.
    saves_output_if: str = ""
    # Whether, with these options, the forward's own output is what is saved.
    keeps_output: Callable[[Sequence[Any]], bool] | None = None
    per_input: tuple[str, ...] = ()  # weights that all outputs share
    types: list[type] = field(init=False)  # of the options
    tensors: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.types = list(self.options.values())
        self.tensors = ("input", *self.weights, *self.optional)

    def reference(self, *arguments: Any) -> Tensor:
        """The formula of arguments in the order that operators take them."""
        names = (*self.options, *self.tensors)
        return self.formula(**dict(zip(names, arguments)))  # noqa: B905 - some may be left out

    def shapes(self, tensors: Sequence[Any]) -> Shapes:
        """Those of the tensors (or shapes) that are given, by name."""
        given = zip(self.tensors, tensors)  # noqa: B905 - as above
        return {name: getattr(of, "shape", of) for name, of in given if of is not None}

    def output_shape(self, options: Sequence[Any], shapes: Shapes) -> tuple[int, ...]:
        return (*shapes["input"][:-1], shapes[self.weights[0]][0])

    def saved_size(self, options: Sequence[Any], shapes: Shapes) -> int:
        """How many numbers the forward saves beside its output."""
        return math.prod(shapes["input"][:-1]) * self.saved(shapes)

    def saved_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32 if dtype in HALVES else dtype


def _products_of_W(shapes: Shapes) -> list[Product]:
    return [Product(shapes["W"][0], ("input",), ("W",))]


_SUM, _OWN = ("W_hat", "M_hat"), ("W_hat_mul", "M_hat_mul")


def _products_of_nac(shapes: Shapes) -> list[Product]:
    return [Product(shapes["W_hat"][0], ("input",), _SUM)]


def _products_of_nalu(shapes: Shapes) -> list[Product]:
    """Two paths, and a gate for each output or for each sample."""
    log_path = Product(shapes["W_hat"][0], ("input",), _OWN if "W_hat_mul" in shapes else _SUM)
    return [*_products_of_nac(shapes), log_path, Product(shapes["G"][0], ("input",), ("G",))]


def _products_of_inalu(shapes: Shapes) -> list[Product]:
    """Two paths, the signs' product, which has no slope in the input, and perhaps a gate."""
    outputs, own = shapes["W_hat"][0], _OWN if "W_hat_mul" in shapes else _SUM
    g = shapes["g"]
    gate = [Product(g[0], ("input",), ("g",))] if len(g) == 2 else []
    log_path, signs = Product(outputs, ("input",), own), Product(outputs, (), own)
    return [*_products_of_nac(shapes), log_path, signs, *gate]


def _products_of_npu(shapes: Shapes) -> list[Product]:
    """Logarithms and angles, by the real weights and by the imaginary ones."""
    sides = [name for name in ("W_re", "W_im") if name in shapes]
    return [
        Product(shapes["W_re"][0], left, (right,))
        for right in sides
        for left in (("input", "g"), ("g",))
    ]


def _products_of_nmru(shapes: Shapes) -> list[Product]:
    """The product over inputs and reciprocals, and the angles."""
    outputs = shapes["W"][0]
    return [Product(2 * outputs, ("input",), ("W",)), Product(outputs, (), ("W",))]


def _parts_of_nalu(
    eps: float,
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    gate_bias: Tensor | None = None,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """a, m and the gate."""
    return reference.paths(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps)


def _parts_of_inalu(
    eps: float,
    omega: float,
    per_sample: bool,
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    g: Tensor,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """a, m, the sign, and the gate, for each output whichever kind it is."""
    a, m, s, gate = reference.inalu_paths(
        input, W_hat, M_hat, g, W_hat_mul, M_hat_mul, eps, omega, per_sample
    )
    return a, m, s, gate.expand_as(a)


def _parts_of_npu(
    eps: float,
    straight_through: bool,
    input: Tensor,
    W_re: Tensor,
    g: Tensor,
    W_im: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Size and angle."""
    return reference.power(input, W_re, g, W_im, eps, straight_through)


def _parts_of_nmru(eps: float, input: Tensor, W: Tensor) -> tuple[Tensor, ...]:
    """Size and angle."""
    return reference.nmru_paths(input, W, eps)


def _npu(W_im: Tensor | None = None, **arguments: Any) -> Tensor:
    if W_im is None:
        return reference.real_npu(**arguments)
    return reference.npu(W_im=W_im, **arguments)


NAC = Function(
    "nac",
    reference.nac,
    checks.check_nac,
    {"eps": float, "log_space": bool},
    ("W_hat", "M_hat"),
    _products_of_nac,
    saves_output_if="log_space",
)
NALU = Function(
    "nalu",
    reference.nalu,
    checks.check_nalu,
    {"eps": float},
    ("W_hat", "M_hat", "G"),
    _products_of_nalu,
    optional=("gate_bias", "W_hat_mul", "M_hat_mul"),
    saved=lambda shapes: 2 * shapes["W_hat"][0] + shapes["G"][0],
    parts=_parts_of_nalu,
)
NAU = Function("nau", reference.nau, checks.check_W, {}, ("W",), _products_of_W)
NMU = Function("nmu", reference.nmu, checks.check_W, {}, ("W",), _products_of_W)
INALU = Function(
    "inalu",
    reference.inalu,
    checks.check_inalu,
    {"eps": float, "omega": float, "per_sample": bool},
    ("W_hat", "M_hat", "g"),
    _products_of_inalu,
    optional=("W_hat_mul", "M_hat_mul"),
    saved=lambda shapes: 4 * shapes["W_hat"][0],
    parts=_parts_of_inalu,
)
NPU = Function(
    "npu",
    _npu,
    checks.check_npu,
    {"eps": float, "straight_through": bool},
    ("W_re", "g"),
    _products_of_npu,
    optional=("W_im",),
    saved=lambda shapes: 2 * shapes["W_re"][0],
    parts=_parts_of_npu,
    per_input=("g",),
)
NRU = Function("nru", reference.nru, checks.check_nru, {"training": bool}, ("W",), _products_of_W)
NMRU = Function(
    "nmru",
    reference.nmru,
    checks.check_nmru,
    {"eps": float},
    ("W",),
    _products_of_nmru,
    saved=lambda shapes: 2 * shapes["W"][0],
    parts=_parts_of_nmru,
)

FAMILY = {row.name: row for row in (NAC, NALU, NAU, NMU, INALU, NPU, NRU, NMRU)}


class OverTime(Function):
    """A layer over the steps of a sequence: h' = layer([x, h]).

    The input is (steps, batch, features), the output all states or, with the option ``last_only``,
    the last. After the layer's own tensors come the first state and two that have no gradient.
    """

    def __init__(self, layer: Function) -> None:
        super().__init__(
            f"{layer.name}_unroll",
            functools.partial(unroll, layer.formula),
            functools.partial(
                checks.check_over_time, layer.check, len(layer.options), len(layer.tensors)
            ),
            {**layer.options, "last_only": bool},
            layer.weights,
            layer.products,
            optional=(*layer.optional, "hx", "lengths", "reset"),
            keeps_output=lambda options: not options[-1],
        )
        self.layer = layer

    def shapes(self, tensors: Sequence[Any]) -> Shapes:
        """As the layer has them, of all steps together."""
        shapes = super().shapes(tensors)
        steps, state = shapes["input"][:-1], shapes[self.weights[0]]
        return {**shapes, "input": (*steps, state[1])}

    def output_shape(self, options: Sequence[Any], shapes: Shapes) -> tuple[int, ...]:
        whole = super().output_shape(options, shapes)
        return whole[1:] if options[-1] else whole

    def saved_size(self, options: Sequence[Any], shapes: Shapes) -> int:
        steps, batch = shapes["input"][:-1]
        if not options[-1] or steps == 0:
            return 0
        return -(-steps // _stretch(steps)) * batch * int(shapes[self.weights[0]][0])

    def saved_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


def _stretch(steps: int) -> int:
    """The root of the steps, rounded up: after so many a state is kept for the backward."""
    if isinstance(steps, torch.SymInt):
        return torch.sym_int(torch._sym_sqrt(torch.sym_float(steps - 1))) + 1
    return math.isqrt(steps - 1) + 1


class OverUnits(Function):
    """Independent layers side by side: each tensor has a dimension of units before its own, the
    input (units, ..., in_features) too."""

    def __init__(self, layer: Function) -> None:
        log_space = [*layer.options].index("log_space") if layer.saves_output_if else None
        super().__init__(
            f"{layer.name}_units",
            functools.partial(units, layer.formula),
            functools.partial(checks.check_over_units, layer.check, layer.tensors),
            layer.options,
            layer.weights,
            layer.products,
            optional=layer.optional,
            saved=layer.saved,
            keeps_output=(lambda options: bool(options[log_space]))
            if log_space is not None
            else None,
            per_input=layer.per_input,
        )
        self.layer = layer

    def shapes(self, tensors: Sequence[Any]) -> Shapes:
        """As a unit has them, of all units' rows together."""
        shapes = super().shapes(tensors)
        return {name: of if name == "input" else of[1:] for name, of in shapes.items()}


OVER_UNITS = {row.name: OverUnits(row) for row in FAMILY.values()}
OVER_TIME = {row.name: OverTime(row) for row in (NAC, NALU, NAU, NMU, INALU, NPU)}
# All that has operators, by the names of these.
FUNCTIONS = {
    **FAMILY,
    **{row.name: row for row in (*OVER_TIME.values(), *OVER_UNITS.values())},
}
# Public functions that are made of others, and which kernels they call.
COMPOSED = {"snmu": "nmu", "gnalu": "nalu", "real_npu": "npu"}
