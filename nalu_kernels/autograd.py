"""The custom backward: saves the inputs and the paths' outputs, and calls one operator each way.

It knows operators, not back ends. Where a gradient of the gradient is asked for
(``create_graph=True``), the backward is that of the reference formulas, which autograd can
differentiate again; so it is where vmap runs the backward (``is_grads_batched=True``).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from . import reference


def nac_by_reference(eps: float, log_space: bool, *tensors: Tensor) -> Tensor:
    """The reference, of arguments in the order that operators take them."""
    return reference.nac(*tensors, log_space=log_space, eps=eps)


def nalu_by_reference(
    eps: float,
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    gate_bias: Tensor | None = None,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
) -> Tensor:
    """As :func:`nac_by_reference`."""
    return reference.nalu(
        input,
        W_hat,
        M_hat,
        G,
        gate_bias=gate_bias,
        W_hat_mul=W_hat_mul,
        M_hat_mul=M_hat_mul,
        eps=eps,
    )


def _reference_needed(grad_output: Tensor) -> bool:
    """Whether the gradients have to be differentiable, or batched (``is_grads_batched=True``)."""
    if torch.is_grad_enabled():
        return True
    # Compiled autograd cannot trace the question, and meets no such tensor.
    return not torch.compiler.is_dynamo_compiling() and is_legacy_batchedtensor(grad_output)


def _reference_gradients(
    function: Callable[..., Tensor],
    tensors: list[Tensor | None],
    needed: tuple[bool, ...],
    grad_output: Tensor,
) -> list[Tensor | None]:
    """The gradients of function(*tensors), themselves differentiable if autograd is to go on.

    Each tensor is taken as a view of its own: one that depends on another, or is the same, must
    not pass its gradient on here, for the engine will do so after us.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        views = [tensor if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        output = function(*views)
    wanted = [view for view, need in zip(views, needed, strict=True) if need and view is not None]
    found = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=create_graph))
    return [next(found) if need else None for need in needed]


# How operators are told which gradients are wanted: bit i is set where needed[i] is. A table, for
# compiled autograd traces no cache.
_BITS = {
    needed: sum(1 << i for i, need in enumerate(needed) if need)
    for tensors in range(3, 8)  # trailing ones may be left out
    for needed in itertools.product((False, True), repeat=tensors)
}


class NACFunction(torch.autograd.Function):
    """nac() of tensors = (input, W_hat, M_hat), by ``operators`` (an ``operators.Operators``)."""

    @staticmethod
    def forward(ctx: Any, operators: Any, eps: float, log_space: bool, *tensors: Tensor) -> Tensor:
        output: Tensor = operators.nac_forward(eps, log_space, *tensors)
        ctx.operators = operators
        ctx.eps = eps
        # exp's own gradient is its output; the linear form needs nothing but the inputs.
        ctx.save_for_backward(output if log_space else None, *tensors)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        output, *tensors = ctx.saved_tensors
        if output is not None:
            output = output.contiguous()  # saved_tensors_hooks may have given it other strides
        needed = ctx.needs_input_grad[3:]
        if _reference_needed(grad_output):
            function = functools.partial(nac_by_reference, ctx.eps, output is not None)
            grads = _reference_gradients(function, tensors, needed, grad_output)
        else:
            grads = ctx.operators.nac_backward(
                ctx.eps, _BITS[needed], grad_output, output, *tensors
            )
        return None, None, None, *grads


class NALUFunction(torch.autograd.Function):
    """nalu() of tensors = (input, W_hat, M_hat, G), or these and (gate_bias, W_hat_mul, M_hat_mul),
    each a tensor or None, by ``operators`` (an ``operators.Operators``)."""

    @staticmethod
    def forward(ctx: Any, operators: Any, eps: float, *tensors: Tensor | None) -> Tensor:
        output, saved = operators.nalu_forward(eps, any(ctx.needs_input_grad), *tensors)
        ctx.operators = operators
        ctx.eps = eps
        ctx.save_for_backward(saved, *tensors)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        saved, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        if _reference_needed(grad_output):
            function = functools.partial(nalu_by_reference, ctx.eps)
            grads = _reference_gradients(function, tensors, needed, grad_output)
        else:
            grads = ctx.operators.nalu_backward(
                ctx.eps, _BITS[needed], grad_output, saved, *tensors
            )
        return None, None, *grads[: len(needed)]


# Two short cuts, together 2.5 of the 45 us that a tiny layer's forward and backward take.
# Function.apply without what it does for torch.func, which dispatch.select has ruled out:
apply_nac = super(torch.autograd.Function, NACFunction).apply
apply_nalu = super(torch.autograd.Function, NALUFunction).apply
# and what the engine calls, without the two frames that look our backward up each time.
for _function in (NACFunction, NALUFunction):
    if hasattr(_function, "_backward_cls"):  # torch's own, so not promised
        _function._backward_cls.apply = _function.backward  # type: ignore[attr-defined]
