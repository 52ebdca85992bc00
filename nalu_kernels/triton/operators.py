"""The kernels of ``FUNCTIONS`` on CUDA tensors: arguments in, launches, tensors out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..operators import Kernels, Operators, overloads
from . import NAMESPACE, launch
from .arguments import describe, require
from .device import chip
from .forms import Weights
from .precision import float32_setting

# Whatever comes after the input are the layer's weights, in the order of ``Weights``.


def nac_forward(eps: float, log_space: bool, input: Tensor, *weights: Tensor) -> Tensor:
    y, _ = _forward(eps, not log_space, log_space, False, input, Weights(*weights))
    return y


def nac_backward(
    eps: float,
    needed: int,
    grad_output: Tensor,
    output: Tensor | None,
    input: Tensor,
    *weights: Tensor,
) -> tuple[Tensor | None, ...]:
    log_space, given = output is not None, Weights(*weights)
    grads = _backward(eps, not log_space, log_space, needed, grad_output, output, input, given)
    return tuple(grads[:3])


def nalu_forward(
    eps: float, save: bool, input: Tensor, *weights: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    y, saved = _forward(eps, True, True, save, input, Weights(*weights))
    return y, saved


def nalu_backward(
    eps: float,
    needed: int,
    grad_output: Tensor,
    saved: Tensor,
    input: Tensor,
    *weights: Tensor | None,
) -> tuple[Tensor | None, ...]:
    grads = _backward(eps, True, True, needed, grad_output, saved, input, Weights(*weights))
    return tuple(grads)


def _setting(input: Tensor) -> str:
    return float32_setting() if input.dtype == torch.float32 else ""


def _forward(
    eps: float, linear: bool, log_space: bool, save: bool, input: Tensor, weights: Weights
) -> list[Any]:
    tensors = [input, *weights]
    call = (chip(input.device), float(eps), linear, log_space, tuple(map(describe, tensors)))
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
) -> list[Any]:
    """The gradients of input and weights: those of which bit i of ``needed`` is set."""
    require(saved is None or saved.is_contiguous(), "saved is not what the forward left")
    tensors = [input, *weights]
    call = (chip(input.device), float(eps), linear, log_space, tuple(map(describe, tensors)))
    given = (describe(grad_output), describe(saved))
    recipe = launch.backward(_setting(input), needed, *given, *call)
    return recipe.run([*tensors, grad_output, saved])


def _registered_nalu_forward(
    eps: float, save: bool, input: Tensor, *weights: Any
) -> tuple[Tensor, Tensor]:
    """As the schema has it: nothing saved is a tensor too."""
    y, saved = nalu_forward(eps, save, input, *weights)
    if saved is None:
        wide = torch.float64 if input.dtype == torch.float64 else torch.float32
        saved = input.new_empty(0, dtype=wide)
    return y, saved


kernels: Operators = {
    "nac": Kernels(nac_forward, nac_backward),
    "nalu": Kernels(nalu_forward, nalu_backward),
}
registered = kernels | {"nalu": Kernels(_registered_nalu_forward, nalu_backward)}


def _recorded(tensor: Tensor) -> bool:
    """Whether calls with ``tensor`` are the business of more than the kernels: of a profiler, of
    FakeTensorMode or FlopCounterMode, of a tensor that wraps others."""
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._autograd._profiler_enabled()
        or type(tensor) not in (Tensor, torch.nn.Parameter)
    )


def _unrecorded(kernel: Callable[..., Any], overload: Callable[..., Any]) -> Callable[..., Any]:
    """``kernel`` itself, which spares a call PyTorch's dispatcher, unless the call is recorded."""

    # The third argument is the input, or the gradient of the output.
    def operator(first: Any, second: Any, tensor: Tensor, *rest: Any) -> Any:
        call = overload if _recorded(tensor) else kernel
        return call(first, second, tensor, *rest)

    return operator


unrecorded: Operators = {
    name: Kernels(*map(_unrecorded, kernels[name], recorded))
    for name, recorded in overloads(NAMESPACE).items()
}
