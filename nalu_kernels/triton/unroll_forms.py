"""What a step of a recurrent cell is compiled for, and what it hands on."""

from __future__ import annotations

from typing import Any, NamedTuple


class Cell(NamedTuple):
    """What the kernels are compiled for: a layer, as ``Form`` has it, or "nmu" or "npu"; which
    layer of ``factors`` it has a product of, or ""; ``gates`` as in ``Form``, or "parameter", a
    gate for each output that sees no input; a name of ``products.product``; the columns of x and of
    h; and the tiles' sizes: so many ``rows`` of the batch, ``columns`` of [x, h], ``states`` of h.
    """

    layer: str
    last_only: bool
    product: str
    I: int  # noqa: E741
    H: int
    rows: int
    columns: int
    states: int
    linear: bool = False
    log_space: bool = False
    gates: str = "none"
    omega: float = 0.0
    untied: bool = False
    factor: str = ""


class Columns(NamedTuple):
    """[x, h] of a step: as one ``tile``, for sums of products, and ``each`` column of it, of shape
    [rows, 1], for products over them; [[0]] and () where the layer has no such thing."""

    tile: Any
    each: Any


class Matrices(NamedTuple):
    """The weights as a step multiplies by them: W's are transformed, [h, x and h]; an NPU's gate,
    clamped, is ``G``. 0 stands for those that the layer lacks. ``of_product``: where the product's
    lie."""

    W: Any
    W_mul: Any
    G: Any
    gate_bias: Any
    of_product: Any


class Values(NamedTuple):
    """What a step comes to, ``y``, and what its gradient takes: the logarithms, equations 2, 4 and
    5, an iNALU's sign, and the factors' products before each column. An NPU's a is k, its m is y
    with the sine. What the layer lacks is its y."""

    y: Any
    L: Any
    a: Any
    m: Any
    g: Any
    s: Any
    befores: Any


class Sums(NamedTuple):
    """Over steps and rows, of the gradients of ``Matrices``; what nobody wants stays 0. Those of an
    NPU's gate, and of ``each`` column, still have the rows apart."""

    W: Any
    W_mul: Any
    G: Any
    gate_bias: Any
    each: Any
