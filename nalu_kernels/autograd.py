"""The custom backward: saves the inputs and the paths' outputs, and calls one operator each way.

It knows operators, not back ends. Where a gradient of the gradient is asked for
(``create_graph=True``), the backward is that of the reference formulas, which autograd can
differentiate again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from . import reference


def _reference_gradients(
    function: Callable[..., Tensor],
    tensors: tuple[Tensor | None, ...],
    needed: tuple[bool, ...],
    grad_output: Tensor,
) -> list[Tensor | None]:
    """The gradients of function(*tensors), themselves differentiable."""
    wanted = [tensor for tensor, need in zip(tensors, needed, strict=True) if need]
    found = iter(
        torch.autograd.grad(function(*tensors), wanted, grad_output, create_graph=True)
    )
    return [next(found) if need else None for need in needed]


class NACFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operators: Any,
        input: Tensor,
        W_hat: Tensor,
        M_hat: Tensor,
        log_space: bool,
        eps: float,
    ) -> Tensor:
        output = operators.nac_forward(input, W_hat, M_hat, log_space, eps)
        ctx.operators = operators
        ctx.log_space = log_space
        ctx.eps = eps
        # exp's own gradient is its output; the linear form needs nothing but the inputs.
        ctx.save_for_backward(input, W_hat, M_hat, output if log_space else None)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, W_hat, M_hat, output = ctx.saved_tensors
        _, *needed, _, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():

            def function(input: Tensor, W_hat: Tensor, M_hat: Tensor) -> Tensor:
                return reference.nac(
                    input, W_hat, M_hat, log_space=ctx.log_space, eps=ctx.eps
                )

            grads = _reference_gradients(function, (input, W_hat, M_hat), needed, grad_output)
        else:
            grads = ctx.operators.nac_backward(
                grad_output, input, W_hat, M_hat, output, ctx.eps, needed
            )
        return None, *grads, None, None


class NALUFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operators: Any,
        input: Tensor,
        W_hat: Tensor,
        M_hat: Tensor,
        G: Tensor,
        gate_bias: Tensor | None,
        W_hat_mul: Tensor | None,
        M_hat_mul: Tensor | None,
        eps: float,
    ) -> Tensor:
        output, saved = operators.nalu_forward(
            input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps, True
        )
        ctx.operators = operators
        ctx.eps = eps
        ctx.save_for_backward(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, saved)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *tensors, saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:8]
        if torch.is_grad_enabled():

            def function(
                input: Tensor,
                W_hat: Tensor,
                M_hat: Tensor,
                G: Tensor,
                gate_bias: Tensor | None,
                W_hat_mul: Tensor | None,
                M_hat_mul: Tensor | None,
            ) -> Tensor:
                return reference.nalu(
                    input,
                    W_hat,
                    M_hat,
                    G,
                    gate_bias=gate_bias,
                    W_hat_mul=W_hat_mul,
                    M_hat_mul=M_hat_mul,
                    eps=ctx.eps,
                )

            grads = _reference_gradients(function, tensors, needed, grad_output)
        else:
            input, W_hat, M_hat, G, _, W_hat_mul, M_hat_mul = tensors
            grads = ctx.operators.nalu_backward(
                grad_output, input, W_hat, M_hat, G, W_hat_mul, M_hat_mul, saved, ctx.eps, needed
            )
        return None, *grads, None
