"""What PyTorch has to know of the operators: schemas, shapes without numbers, gradients.

There is one set of operators for each namespace: ``nalu_kernels`` (C++ and CUDA, see
``csrc/ops.cpp``) and ``nalu_kernels_triton``. All is made of the rows of ``family.py``, for those
functions that the namespace has kernels of. The Functions of ``autograd`` call the kernels,
``nac_forward`` to ``nmru_backward``, of which autograd itself sees nothing. Graphs of torch.compile
and torch.export call ``nac`` to ``nmru``, which are the Functions, as operators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from . import flops
from .autocast import wide
from .autograd import with_gradients
from .family import FAMILY, FUNCTIONS, Function
from .when_imported import when_imported


class Kernels(NamedTuple):
    """What a back end computes for a function: forward and backward, each in one call.

    The signatures are those of ``SCHEMAS``. An operator checks its arguments before it launches
    anything, and raises RuntimeError if they are wrong.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


# A back end's kernels, by the names of the functions that it has some for.
Operators = dict[str, Kernels]


def _schemas(function: Function) -> dict[str, str]:
    """Those of a function's operators, by name."""
    options = [f"{kind.__name__} {name}" for name, kind in function.options.items()]
    tensors = [
        *(f"Tensor {name}" for name in ("input", *function.weights)),
        *(f"Tensor? {name}=None" for name in function.optional),
    ]
    gradients = ", ".join(["Tensor"] * len(tensors))
    if function.saves_output_if:
        save, outputs, told = [], "Tensor", options[:-1]
        saved = "Tensor? output"
    else:
        save, outputs, told = ["bool save"], "(Tensor, Tensor)", options
        saved = "Tensor saved"
    backward = [*told, "int needed", "Tensor grad_output", saved, *tensors]
    return {
        f"{function.name}_forward": f"({', '.join([*options, *save, *tensors])}) -> {outputs}",
        f"{function.name}_backward": f"({', '.join(backward)}) -> ({gradients})",
        function.name: f"({', '.join([*options, *tensors])}) -> Tensor",
    }


# As they stand in csrc/ops.cpp, where the words for the arguments are; but for those without
# ``_forward`` or ``_backward``, which are defined here.
SCHEMAS = {name: _schemas(function) for name, function in FUNCTIONS.items()}


def overloads(namespace: str, key: str = "") -> Operators:
    """The operators of a namespace, as torch.ops has them: all, or those with kernels for a key of
    the dispatcher."""
    packets = getattr(torch.ops, namespace)
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return {
        name: Kernels(
            getattr(packets, f"{name}_forward").default,
            getattr(packets, f"{name}_backward").default,
        )
        for name in FUNCTIONS
        if hasattr(packets, f"{name}_forward")
        and (not key or has_kernel(f"{namespace}::{name}_forward", key))
    }


def define(
    namespace: str,
    functions: Iterable[str],
    implementation: Callable[[str, str], Callable[..., Any]],
    keys: tuple[str, ...],
) -> None:
    """Defines the kernels of a namespace for these functions, by Python functions that
    ``implementation`` gives for a name and "forward" or "backward", for these dispatch keys."""

    def fill(library: torch.library.Library) -> None:
        for name in functions:
            for way in Kernels._fields:
                operator = f"{name}_{way}"
                library.define(operator + SCHEMAS[name][operator])
                for key in keys:
                    library.impl(operator, implementation(name, way), key)

    once(namespace, "DEF", "kernels", fill)


def register(namespace: str) -> None:
    """Tells PyTorch what it has to know of the kernels of a namespace, and adds what graphs call,
    ``nac`` and so on."""
    once(namespace, "FRAGMENT", "family", functools.partial(_register, namespace))


def once(
    namespace: str,
    kind: Literal["DEF", "FRAGMENT"],
    what: str,
    fill: Callable[[torch.library.Library], None],
) -> None:
    """Fills a library of this kind, unless the process has the one with this name.

    PyTorch takes a definition once, and forgets it with its library. This module can be imported
    again or reloaded, as notebooks and Streamlit do; so the libraries are kept by PyTorch's own
    namespace, which stays.
    """
    kept = vars(getattr(torch.ops, namespace))
    name = f"_library_{what}"
    if name not in kept:
        library = torch.library.Library(namespace, kind)
        fill(library)
        kept[name] = library


def _register(namespace: str, library: torch.library.Library) -> None:
    packets = getattr(torch.ops, namespace)
    found = overloads(namespace)
    for name, kernels in found.items():
        function = FUNCTIONS[name]
        for way in Kernels._fields:
            library.impl(f"{name}_{way}", torch.library.fallthrough_kernel, "Autograd")
        library.define(name + SCHEMAS[name][name])
        library.impl(name, _inference(function, kernels), "CompositeExplicitAutograd")
        library.impl(name, functools.partial(with_gradients[name], kernels), "Autograd")
        for operator, fake in _fakes(function).items():
            torch.library.register_fake(f"{namespace}::{operator}", fake, lib=library)
        if name in FAMILY:
            # What ``name`` turns into where it is decomposed. A loop over steps or units would make
            # their number a constant, and a graph as long.
            forward = getattr(packets, f"{name}_forward")
            torch._decomp.register_decomposition(forward)(_decomposition(function))
    for operator, fake in _FAKES_OF_W.items():
        if hasattr(packets, operator):
            torch.library.register_fake(f"{namespace}::{operator}", fake, lib=library)
    # Where the environment says CI, Inductor refuses to call what it could decompose.
    kept = [f"{namespace}::{name}_forward" for name in found]
    when_imported(
        "torch._inductor.lowering", lambda lowering: lowering.FALLBACK_ALLOW_LIST.update(kept)
    )
    flops.register(namespace)


def _inference(function: Function, kernels: Kernels) -> Callable[..., Tensor]:
    """The output alone."""
    if function.saves_output_if:
        return lambda *arguments: kernels.forward(*arguments)
    options = len(function.options)
    return lambda *arguments: kernels.forward(*arguments[:options], False, *arguments[options:])[0]


# Shapes without numbers. What is wrong with the arguments is said here too, for a tensor that has
# no numbers never meets an operator's own checks.


def _output(input: Tensor, W: Tensor) -> Tensor:
    return input.new_empty((*input.shape[:-1], W.shape[0]))


def _gradients(needed: int, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(
        tensor.new_empty(tensor.shape) if tensor is not None and needed >> i & 1 else None
        for i, tensor in enumerate(tensors)
    )


def _fakes(function: Function) -> dict[str, Callable[..., Any]]:
    """Of a function's operators, by name."""
    options, saves_output = len(function.options), bool(function.saves_output_if)
    told = options - saves_output

    def whole(*arguments: Any) -> Tensor:
        function.check(*arguments)
        given, tensors = arguments[:options], arguments[options:]
        input: Tensor = tensors[0]
        return input.new_empty(function.output_shape(given, function.shapes(tensors)))

    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        given, save, tensors = arguments[:options], arguments[options], arguments[options + 1 :]
        output, input = whole(*given, *tensors), tensors[0]
        size = function.saved_size(given, function.shapes(tensors)) if save else 0
        return output, input.new_empty((size,), dtype=function.saved_dtype(input.dtype))

    def backward(*arguments: Any) -> tuple[Tensor | None, ...]:
        needed, _grad_output, _saved, *tensors = arguments[told:]
        left_out = [None] * (len(function.tensors) - len(tensors))
        return _gradients(needed, (*tensors, *left_out))

    name = function.name
    ahead: Callable[..., Any] = whole if saves_output else forward
    return {name: whole, f"{name}_forward": ahead, f"{name}_backward": backward}


_FAKES_OF_W: dict[str, Callable[..., Any]] = {
    "transform": lambda W_hat, M_hat: W_hat.new_empty(W_hat.shape),
    "nac_of_W": lambda eps, log_space, input, W: _output(input, W),
    "nalu_of_W": lambda eps, input, W, *_: _output(input, W),
}


def _decomposition(function: Function) -> Callable[..., Any]:
    """A forward as PyTorch's own operations, for exporters that know no others. Half precision is
    widened, as the kernels do it."""
    options = len(function.options)

    def whole(*arguments: Any) -> Tensor:
        return function.reference(*map(wide, arguments)).to(arguments[options].dtype)

    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        given, save, tensors = arguments[:options], arguments[options], arguments[options + 1 :]
        parts = function.parts(*given, *map(wide, tensors)) if save else ()
        # An empty one for those that save nothing.
        saved = torch.cat([wide(tensors[0]).new_empty(0), *(part.flatten() for part in parts)])
        return whole(*given, *tensors), saved.to(function.saved_dtype(tensors[0].dtype))

    return whole if function.saves_output_if else forward
