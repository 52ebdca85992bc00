"""The kernels of ``FUNCTIONS`` on CUDA tensors: arguments in, launches, tensors out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..family import FUNCTIONS
from ..operators import Kernels, Operators, overloads
from . import NAMESPACE, launch, launch_power, launch_reduction
from .arguments import describe, require
from .device import chip
from .forms import Weights
from .precision import float32_setting
from .units_operators import over_units
from .unroll_operators import over_time

# Whatever comes after the input are the layer's weights, in the order of ``Weights``. With
# ``units`` each tensor has a dimension of units before its own.


def nac_forward(
    eps: float, log_space: bool, input: Tensor, *weights: Tensor, units: bool = False
) -> Tensor:
    y, _ = _forward(eps, not log_space, log_space, False, input, Weights(*weights), units=units)
    return y


def nac_backward(
    eps: float,
    needed: int,
    grad_output: Tensor,
    output: Tensor | None,
    input: Tensor,
    *weights: Tensor,
    units: bool = False,
) -> tuple[Tensor | None, ...]:
    log_space = output is not None
    call = (eps, not log_space, log_space, needed, grad_output, output, input, Weights(*weights))
    return tuple(_backward(*call, units=units)[:3])


def nalu_forward(
    eps: float, save: bool, input: Tensor, *weights: Tensor | None, units: bool = False
) -> tuple[Tensor, Tensor | None]:
    y, saved = _forward(eps, True, True, save, input, Weights(*weights), units=units)
    return y, saved


def nalu_backward(
    eps: float,
    needed: int,
    grad_output: Tensor,
    saved: Tensor,
    input: Tensor,
    *weights: Tensor | None,
    units: bool = False,
) -> tuple[Tensor | None, ...]:
    call = (eps, True, True, needed, grad_output, saved, input, Weights(*weights))
    return tuple(_backward(*call, units=units))


def nau_forward(
    save: bool, input: Tensor, W: Tensor, *, units: bool = False
) -> tuple[Tensor, Tensor | None]:
    y, _ = _forward(1.0, True, False, False, input, Weights(W, None), "nau", units=units)
    return y, None


def nau_backward(
    needed: int,
    grad_output: Tensor,
    saved: Tensor,
    input: Tensor,
    W: Tensor,
    *,
    units: bool = False,
) -> tuple[Tensor | None, ...]:
    call = (1.0, True, False, needed, grad_output, None, input, Weights(W, None), "nau")
    return tuple(_backward(*call, units=units)[:2])


def _setting(input: Tensor) -> str:
    return float32_setting() if input.dtype == torch.float32 else ""


def _forward(
    eps: float,
    linear: bool,
    log_space: bool,
    save: bool,
    input: Tensor,
    weights: Weights,
    layer: str = "nalu",
    omega: float = 0.0,
    units: bool = False,
) -> list[Any]:
    """As ``arguments.Layer`` takes them."""
    tensors = [input, *weights]
    described = tuple(map(describe, tensors))
    call = (chip(input.device), float(eps), linear, log_space, described, layer, omega, units)
    return launch.forward(_setting(input), save, *call).run(tensors)


def _backward(
    eps: float,
    linear: bool,
    log_space: bool,
    needed: int,
    grad_output: Tensor,
    saved: Tensor | None,
    input: Tensor,
    weights: Weights,
    layer: str = "nalu",
    omega: float = 0.0,
    units: bool = False,
) -> list[Any]:
    """The gradients of input and weights: those of which bit i of ``needed`` is set."""
    require(saved is None or saved.is_contiguous(), "saved is not what the forward left")
    tensors = [input, *weights]
    described = tuple(map(describe, tensors))
    call = (chip(input.device), float(eps), linear, log_space, described, layer, omega, units)
    given = (describe(grad_output), describe(saved))
    recipe = launch.backward(_setting(input), needed, *given, *call)
    return recipe.run([*tensors, grad_output, saved])


def _reduce(
    layer: str, eps: float, units: bool, save: bool, input: Tensor, W: Tensor
) -> tuple[Tensor, Tensor | None]:
    call = (chip(input.device), layer, float(eps), (describe(input), describe(W)), units)
    y, saved = launch_reduction.forward(save, *call).run([input, W])
    return y, saved


def _reduce_backward(
    layer: str,
    eps: float,
    units: bool,
    needed: int,
    grad_output: Tensor,
    saved: Tensor,
    input: Tensor,
    W: Tensor,
) -> tuple[Tensor | None, ...]:
    require(saved.is_contiguous(), "saved is not what the forward left")
    call = (chip(input.device), layer, float(eps), (describe(input), describe(W)), units)
    recipe = launch_reduction.backward(needed, describe(grad_output), describe(saved), *call)
    return tuple(recipe.run([input, W, grad_output, saved]))


def nmu_forward(
    save: bool, input: Tensor, W: Tensor, *, units: bool = False
) -> tuple[Tensor, Tensor | None]:
    return _reduce("nmu", 0.0, units, save, input, W)


def nmu_backward(needed: int, *tensors: Tensor, units: bool = False) -> tuple[Tensor | None, ...]:
    return _reduce_backward("nmu", 0.0, units, needed, *tensors)


def nru_forward(
    training: bool, save: bool, input: Tensor, W: Tensor, *, units: bool = False
) -> tuple[Tensor, Tensor | None]:
    return _reduce("nru_training" if training else "nru", 0.0, units, save, input, W)


def nru_backward(
    training: bool, needed: int, *tensors: Tensor, units: bool = False
) -> tuple[Tensor | None, ...]:
    layer = "nru_training" if training else "nru"
    return _reduce_backward(layer, 0.0, units, needed, *tensors)


def nmru_forward(
    eps: float, save: bool, input: Tensor, W: Tensor, *, units: bool = False
) -> tuple[Tensor, Tensor | None]:
    return _reduce("nmru", eps, units, save, input, W)


def nmru_backward(
    eps: float, needed: int, *tensors: Tensor, units: bool = False
) -> tuple[Tensor | None, ...]:
    return _reduce_backward("nmru", eps, units, needed, *tensors)


def npu_forward(
    eps: float,
    straight_through: bool,
    save: bool,
    input: Tensor,
    W_re: Tensor,
    g: Tensor,
    W_im: Tensor | None = None,
    *,
    units: bool = False,
) -> tuple[Tensor, Tensor | None]:
    tensors = [input, W_re, g, W_im]
    call = (chip(input.device), float(eps), tuple(map(describe, tensors)), units)
    y, saved = launch_power.forward(save, *call).run(tensors)
    return y, saved


def npu_backward(
    eps: float,
    straight_through: bool,
    needed: int,
    grad_output: Tensor,
    saved: Tensor,
    input: Tensor,
    W_re: Tensor,
    g: Tensor,
    W_im: Tensor | None = None,
    *,
    units: bool = False,
) -> tuple[Tensor | None, ...]:
    require(saved.is_contiguous(), "saved is not what the forward left")
    tensors = [input, W_re, g, W_im]
    call = (chip(input.device), float(eps), tuple(map(describe, tensors)), units)
    given = (describe(grad_output), describe(saved))
    recipe = launch_power.backward(needed, straight_through, *given, *call)
    return tuple(recipe.run([*tensors, grad_output, saved]))


def _inalu_weights(
    units: bool,
    W_hat: Tensor,
    M_hat: Tensor,
    g: Tensor,
    W_hat_mul: Any = None,
    M_hat_mul: Any = None,
) -> Weights:
    """A g of one dimension is a bias of the gate, which then sees no input."""
    G, bias = (None, g) if g.dim() - units == 1 else (g, None)
    return Weights(W_hat, M_hat, G, bias, W_hat_mul, M_hat_mul)


def inalu_forward(
    eps: float,
    omega: float,
    per_sample: bool,
    save: bool,
    input: Tensor,
    *weights: Any,
    units: bool = False,
) -> tuple[Tensor, Tensor | None]:
    layer, given = "inalu_sum" if per_sample else "inalu", _inalu_weights(units, *weights)
    y, saved = _forward(eps, True, True, save, input, given, layer, float(omega), units)
    return y, saved


def inalu_backward(
    eps: float,
    omega: float,
    per_sample: bool,
    needed: int,
    grad_output: Tensor,
    saved: Tensor,
    input: Tensor,
    *weights: Any,
    units: bool = False,
) -> tuple[Tensor | None, ...]:
    layer, given = "inalu_sum" if per_sample else "inalu", _inalu_weights(units, *weights)
    # Of a bias it is the fourth weight's bit, not the third's; those of the others move by one.
    first, g, rest = needed & 7, needed >> 3 & 1, needed >> 4
    needed = first | (g << 4 if given.G is None else g << 3) | rest << 5
    call = (eps, True, True, needed, grad_output, saved, input, given, layer, float(omega), units)
    dx, dW_hat, dM_hat, dG, dbias, *others = _backward(*call)
    return dx, dW_hat, dM_hat, dG if given.G is not None else dbias, *others


layers: Operators = {
    "nac": Kernels(nac_forward, nac_backward),
    "nalu": Kernels(nalu_forward, nalu_backward),
    "nau": Kernels(nau_forward, nau_backward),
    "nmu": Kernels(nmu_forward, nmu_backward),
    "inalu": Kernels(inalu_forward, inalu_backward),
    "npu": Kernels(npu_forward, npu_backward),
    "nru": Kernels(nru_forward, nru_backward),
    "nmru": Kernels(nmru_forward, nmru_backward),
}
kernels: Operators = {**layers, **over_time(layers), **over_units(layers)}


def _as_in_schema(name: str) -> Kernels:
    """Where a forward saves nothing, that is a tensor too."""
    forward, backward = kernels[name]
    if FUNCTIONS[name].saves_output_if:
        return kernels[name]

    def whole(*arguments: Any) -> tuple[Tensor, Tensor]:
        y, saved = forward(*arguments)
        if saved is None:
            saved = y.new_empty(0, dtype=FUNCTIONS[name].saved_dtype(y.dtype))
        return y, saved

    return Kernels(whole, backward)


registered = {name: _as_in_schema(name) for name in kernels}


def _recorded(tensor: Tensor) -> bool:
    """Whether calls with ``tensor`` are the business of more than the kernels: of a profiler, of
    FakeTensorMode or FlopCounterMode, of a tensor that wraps others."""
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._autograd._profiler_enabled()
        or type(tensor) not in (Tensor, torch.nn.Parameter)
    )


def _unrecorded(
    kernel: Callable[..., Any], overload: Callable[..., Any], place: int
) -> Callable[..., Any]:
    """``kernel`` itself, which spares a call PyTorch's dispatcher, unless the call is recorded.

    ``place``: of the input among the arguments, or of the gradient of the output.
    """

    def operator(*arguments: Any) -> Any:
        call = overload if _recorded(arguments[place]) else kernel
        return call(*arguments)

    return operator


def _all_unrecorded(name: str, recorded: Kernels) -> Kernels:
    options = len(FUNCTIONS[name].options)
    # Ahead of the tensor are the options and a number, one of the options where that is the flag.
    place = options if FUNCTIONS[name].saves_output_if else options + 1
    return Kernels(*(_unrecorded(*both, place) for both in zip(kernels[name], recorded)))  # noqa: B905


unrecorded: Operators = {
    name: _all_unrecorded(name, recorded)
    for name, recorded in overloads(NAMESPACE).items()
    if name in kernels
}
