"""What the kernels are given and what they are compiled for: named tuples, one argument each."""

from __future__ import annotations

from typing import Any, NamedTuple


class Form(NamedTuple):
    """A kind of layer and how its products are taken.

    ``layer`` is "nalu", for NACs and NALUs, "nau", "inalu", or "inalu_sum": an
    iNALU whose logarithm is that of a sum, |x| + eps. ``linear`` and ``log_space`` are the paths
    that it has, ``gates`` is "none", "output" (a gate per output) or "sample" (one per sample).
    ``omega`` is an iNALU's bound of log m.
    ``linear_product`` (also the gate's) and ``log_product`` are names of ``products.product``.
    ``I_multiple`` and ``O_multiple`` divide I and O, the others the strides of x and dy: rows that
    begin at multiples of 4 or more are read by wide loads.
    """

    layer: str
    linear: bool
    log_space: bool
    gates: str
    omega: float
    linear_product: str
    log_product: str
    I_multiple: int
    O_multiple: int
    x_row_multiple: int
    x_col_multiple: int
    dy_row_multiple: int
    dy_col_multiple: int


class Tile(NamedTuple):
    """What a program computes: ``rows`` x ``cols`` of a result, ``depth`` of its sum at a time."""

    rows: int
    cols: int
    depth: int
    warps: int
    stages: int


class Batch(NamedTuple):
    """What a kernel reads beside the parameters: x, [B, I] with strides, and the layer's sizes.

    A backward also reads dy, [B, O] with strides, and what the forward ``saved``: nalu_forward's
    flat a, m and g, or the output of a NAC in log space, dense; None for a linear one. Of an iNALU
    a, m, its sign and g, each [B, O]; m is negative where omega holds it.
    """

    B: Any
    I: Any  # noqa: E741
    O: Any  # noqa: E741
    x: Any
    x_row: Any
    x_col: Any
    dy: Any = None
    dy_row: Any = 1
    dy_col: Any = 1
    saved: Any = None


class Sizes(NamedTuple):
    """Of a ``Batch``: its sizes, and the strides of x and dy."""

    B: Any
    I: Any  # noqa: E741
    O: Any  # noqa: E741
    x_row: Any
    x_col: Any
    dy_row: Any
    dy_col: Any


class Weights(NamedTuple):
    """The layer's parameters; None where it has none.

    Where ``M_hat`` is None although ``W_hat`` is not, the latter is W, already transformed; the
    same holds for the product's own weights. A NAU's W, which is clamped where it is read, is one.
    """

    W_hat: Any
    M_hat: Any
    G: Any = None
    gate_bias: Any = None
    W_hat_mul: Any = None
    M_hat_mul: Any = None


class Gradients(NamedTuple):
    """Where the gradients of ``Weights`` go, None for those that nobody wants; and ``W`` and
    ``W_mul``, for a kernel that comes after and can use them. ``signs`` is there already: what
    the product's weights receive through an iNALU's sign."""

    W_hat: Any = None
    M_hat: Any = None
    G: Any = None
    gate_bias: Any = None
    W_hat_mul: Any = None
    M_hat_mul: Any = None
    W: Any = None
    W_mul: Any = None
    signs: Any = None


class Partials(NamedTuple):
    """Sums over parts of the batch, part by part, of the gradients of W, W_mul, G and the bias."""

    W: Any = None
    W_mul: Any = None
    G: Any = None
    gate_bias: Any = None
