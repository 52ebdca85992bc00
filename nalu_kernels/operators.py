"""What PyTorch has to know of the operators: schemas, shapes without numbers, gradients.

There is one set of operators for each namespace: ``nalu_kernels`` (C++ and CUDA, see
``csrc/ops.cpp``) and ``nalu_kernels_triton``. The Functions of ``autograd`` call the kernels,
``nac_forward`` to ``nalu_backward``, of which autograd itself sees nothing. Graphs of torch.compile
and torch.export call ``nac`` and ``nalu``, which are the Functions, as operators.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from . import flops, reference
from .autocast import HALVES, wide
from .autograd import apply_nac, apply_nalu
from .checks import check_nac, check_nalu
from .when_imported import when_imported


class Operators(NamedTuple):
    """What a back end computes: forward and backward of each layer, each in one call.

    The signatures are those of ``SCHEMAS``. An operator checks its arguments before it launches
    anything, and raises RuntimeError if they are wrong.
    """

    nac_forward: Callable[..., Any]
    nac_backward: Callable[..., Any]
    nalu_forward: Callable[..., Any]
    nalu_backward: Callable[..., Any]


# As they stand in csrc/ops.cpp, where the words for the arguments are.
SCHEMAS = {
    "nac_forward": "(float eps, bool log_space, Tensor input, Tensor W_hat, Tensor M_hat) -> "
    "Tensor",
    "nac_backward": "(float eps, int needed, Tensor grad_output, Tensor? output, Tensor input, "
    "Tensor W_hat, Tensor M_hat) -> (Tensor, Tensor, Tensor)",
    "nalu_forward": "(float eps, bool save, Tensor input, Tensor W_hat, Tensor M_hat, Tensor G, "
    "Tensor? gate_bias=None, Tensor? W_hat_mul=None, Tensor? M_hat_mul=None) -> (Tensor, Tensor)",
    "nalu_backward": "(float eps, int needed, Tensor grad_output, Tensor saved, Tensor input, "
    "Tensor W_hat, Tensor M_hat, Tensor G, Tensor? gate_bias=None, Tensor? W_hat_mul=None, "
    "Tensor? M_hat_mul=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
}


def overloads(namespace: str) -> Operators:
    """The operators of a namespace, as torch.ops has them."""
    operators = getattr(torch.ops, namespace)
    return Operators(*(getattr(operators, name).default for name in Operators._fields))


def define(
    namespace: str, implementation: Callable[[str], Callable[..., Any]], keys: tuple[str, ...]
) -> None:
    """Defines the kernels of a namespace by Python functions, for these dispatch keys."""

    def fill(library: torch.library.Library) -> None:
        for name, schema in SCHEMAS.items():
            library.define(name + schema)
            for key in keys:
                library.impl(name, implementation(name), key)

    _once(namespace, "DEF", fill)


def register(namespace: str) -> None:
    """Tells PyTorch what it has to know of the kernels of a namespace, and adds nac and nalu."""
    _once(namespace, "FRAGMENT", functools.partial(_register, namespace))


def _once(
    namespace: str, kind: Literal["DEF", "FRAGMENT"], fill: Callable[[torch.library.Library], None]
) -> None:
    """Fills a library of this kind, unless the process has one.

    PyTorch takes a definition once, and forgets it with its library. This module can be imported
    again or reloaded, as notebooks and Streamlit do; so the libraries are kept by PyTorch's own
    namespace, which stays.
    """
    kept = vars(getattr(torch.ops, namespace))
    name = f"_library_{kind}"
    if name not in kept:
        library = torch.library.Library(namespace, kind)
        fill(library)
        kept[name] = library


def _register(namespace: str, library: torch.library.Library) -> None:
    kernels = overloads(namespace)

    def nac(eps: float, log_space: bool, *tensors: Tensor) -> Tensor:
        return kernels.nac_forward(eps, log_space, *tensors)

    def nalu(eps: float, *tensors: Tensor | None) -> Tensor:
        return kernels.nalu_forward(eps, False, *tensors)[0]

    for name in Operators._fields:
        library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    library.define(
        "nac(float eps, bool log_space, Tensor input, Tensor W_hat, Tensor M_hat) -> Tensor"
    )
    library.impl("nac", nac, "CompositeExplicitAutograd")
    library.impl("nac", functools.partial(apply_nac, kernels), "Autograd")
    library.define(
        "nalu(float eps, Tensor input, Tensor W_hat, Tensor M_hat, Tensor G, "
        "Tensor? gate_bias=None, Tensor? W_hat_mul=None, Tensor? M_hat_mul=None) -> Tensor"
    )
    library.impl("nalu", nalu, "CompositeExplicitAutograd")
    library.impl("nalu", functools.partial(apply_nalu, kernels), "Autograd")

    packets = getattr(torch.ops, namespace)
    for name, fake in _FAKES.items():
        if hasattr(packets, name):
            torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)
    # What nac and nalu turn into where they are decomposed.
    torch._decomp.register_decomposition(packets.nac_forward)(_decomposed_nac_forward)
    torch._decomp.register_decomposition(packets.nalu_forward)(_decomposed_nalu_forward)
    # Where the environment says CI, Inductor refuses to call what it could decompose.
    kept = [f"{namespace}::{name}" for name in ("nac_forward", "nalu_forward")]
    when_imported(
        "torch._inductor.lowering", lambda lowering: lowering.FALLBACK_ALLOW_LIST.update(kept)
    )
    flops.register(namespace)


# Shapes without numbers. What is wrong with the arguments is said here too, for a tensor that has
# no numbers never meets an operator's own checks.


def _output(input: Tensor, W_hat: Tensor) -> Tensor:
    return input.new_empty((*input.shape[:-1], W_hat.shape[0]))


def _gradients(needed: int, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(
        tensor.new_empty(tensor.shape) if tensor is not None and needed >> i & 1 else None
        for i, tensor in enumerate(tensors)
    )


def _fake_nac_forward(
    eps: float, log_space: bool, input: Tensor, W_hat: Tensor, M_hat: Tensor
) -> Tensor:
    check_nac(eps, log_space, input, W_hat, M_hat)
    return _output(input, W_hat)


def _fake_nac_backward(
    eps: float, needed: int, grad_output: Tensor, output: Tensor | None, *tensors: Tensor
) -> tuple[Tensor | None, ...]:
    return _gradients(needed, tensors)


def _fake_nalu_forward(
    eps: float,
    save: bool,
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    gate_bias: Tensor | None = None,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    check_nalu(eps, input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul)
    size = math.prod(input.shape[:-1]) * (2 * W_hat.shape[0] + G.shape[0]) if save else 0
    half = input.dtype in HALVES
    saved = input.new_empty((size,), dtype=torch.float32 if half else input.dtype)
    return _output(input, W_hat), saved


def _fake_nalu(eps: float, *tensors: Tensor) -> Tensor:
    return _fake_nalu_forward(eps, False, *tensors)[0]


def _fake_nalu_backward(
    eps: float,
    needed: int,
    grad_output: Tensor,
    saved: Tensor,
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    gate_bias: Tensor | None = None,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    return _gradients(needed, (input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul))


def _fake_transform(W_hat: Tensor, M_hat: Tensor) -> Tensor:
    return W_hat.new_empty(W_hat.shape)


def _fake_nac_of_W(eps: float, log_space: bool, input: Tensor, W: Tensor) -> Tensor:
    return _output(input, W)


def _fake_nalu_of_W(eps: float, input: Tensor, W: Tensor, *_: Tensor | None) -> Tensor:
    return _output(input, W)


_FAKES: dict[str, Callable[..., Any]] = {
    "nac": _fake_nac_forward,
    "nac_forward": _fake_nac_forward,
    "nac_backward": _fake_nac_backward,
    "nalu": _fake_nalu,
    "nalu_forward": _fake_nalu_forward,
    "nalu_backward": _fake_nalu_backward,
    "transform": _fake_transform,
    "nac_of_W": _fake_nac_of_W,
    "nalu_of_W": _fake_nalu_of_W,
}


# As PyTorch's own operations, for exporters that know no others. Half precision is widened, as the
# kernels do it.


def _decomposed_nac_forward(eps: float, log_space: bool, *tensors: Tensor) -> Tensor:
    y = reference.nac(*map(wide, tensors), log_space=log_space, eps=eps)
    return y.to(tensors[0].dtype)


def _decomposed_nalu_forward(
    eps: float,
    save: bool,
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    gate_bias: Tensor | None = None,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    a, m, g = reference.paths(
        wide(input),
        wide(W_hat),
        wide(M_hat),
        wide(G),
        wide(gate_bias),
        wide(W_hat_mul),
        wide(M_hat_mul),
        eps,
    )
    saved = torch.cat([a.flatten(), m.flatten(), g.flatten()]) if save else a.new_empty(0)
    return (g * a + (1 - g) * m).to(input.dtype), saved
