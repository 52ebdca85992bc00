"""The custom backward: saves the inputs and what the forward has for it, and calls one operator
each way.

It knows operators, not back ends. Where a gradient of the gradient is asked for
(``create_graph=True``), the backward is that of the reference formulas, which autograd can
differentiate again; so it is where vmap runs the backward (``is_grads_batched=True``).
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from .family import FUNCTIONS, Function


def reference_needed(grad_output: Tensor) -> bool:
    """Whether the gradients have to be differentiable, or batched (``is_grads_batched=True``)."""
    if torch.is_grad_enabled():
        return True
    # Compiled autograd cannot trace the question, and meets no such tensor.
    return not torch.compiler.is_dynamo_compiling() and is_legacy_batchedtensor(grad_output)


def gradients(
    function: Callable[..., Tensor],
    tensors: Sequence[Tensor | None],
    needed: tuple[bool, ...],
    grad_output: Tensor,
) -> list[Tensor | None]:
    """The gradients of function(*tensors) by autograd, themselves differentiable if it is to go on.

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
BITS = {
    needed[::-1]: bits
    for tensors in range(2, 11)  # trailing ones may be left out
    for bits, needed in enumerate(itertools.product((False, True), repeat=tensors))
}


def _with_gradients(function: Function) -> Callable[..., Tensor]:
    """``function`` of (kernels, *options, *tensors), by ``kernels`` (an ``operators.Kernels``)."""
    options = len(function.options)
    saves_output = bool(function.saves_output_if)
    keeps_output = function.keeps_output or (lambda options: False)
    told = options - saves_output  # of the options, to the backward
    no_gradients = (None,) * (1 + options)

    def forward(ctx: Any, kernels: Any, *arguments: Any) -> Tensor:
        given, tensors = arguments[:options], arguments[options:]
        if saves_output:
            output: Tensor = kernels.forward(*arguments)
            saved = output if given[-1] else None
        else:
            output, saved = kernels.forward(*given, any(ctx.needs_input_grad), *tensors)
            if keeps_output(given):
                saved = output
        ctx.kernels = kernels
        ctx.options = given
        ctx.save_for_backward(saved, *tensors)
        return output

    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        saved, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[1 + options :]
        if reference_needed(grad_output):
            formula = functools.partial(function.reference, *ctx.options)
            return *no_gradients, *gradients(formula, tensors, needed, grad_output)
        if saved is not None and (saves_output or keeps_output(ctx.options)):
            saved = saved.contiguous()  # saved_tensors_hooks may have given it other strides
        grads = ctx.kernels.backward(
            *ctx.options[:told], BITS[needed], grad_output, saved, *tensors
        )
        return *no_gradients, *grads[: len(needed)]

    body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    name = f"{function.name.upper()}Function"
    made: Any = types.new_class(
        name, (torch.autograd.Function,), exec_body=lambda ns: ns.update(body)
    )
    # Two short cuts, together 2.5 of the 45 us that a tiny layer's forward and backward take:
    # what the engine calls, without the two frames that look our backward up each time,
    if hasattr(made, "_backward_cls"):  # torch's own, so not promised
        made._backward_cls.apply = backward
    # and Function.apply without what it does for torch.func, which dispatch.select has ruled out.
    apply: Callable[..., Tensor] = super(torch.autograd.Function, made).apply
    return apply


with_gradients = {name: _with_gradients(function) for name, function in FUNCTIONS.items()}
