"""The operators of ``dispatch.Operators`` on CUDA tensors: arguments in, launches, tensors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import launch
from .arguments import describe, require
from .device import chip
from .forms import Weights
from .precision import float32_setting


def nac_forward(eps: float, log_space: bool, input: Tensor, W_hat: Tensor, M_hat: Tensor) -> Tensor:
    y, _ = _forward(eps, not log_space, log_space, False, input, Weights(W_hat, M_hat))
    return y


def nac_backward(
    eps: float,
    needed: int,
    grad_output: Tensor,
    output: Tensor | None,
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
) -> tuple[Tensor | None, ...]:
    log_space, weights = output is not None, Weights(W_hat, M_hat)
    grads = _backward(eps, not log_space, log_space, needed, grad_output, output, input, weights)
    return tuple(grads[:3])


def nalu_forward(
    eps: float,
    save: bool,
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    gate_bias: Tensor | None = None,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    weights = Weights(W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul)
    y, saved = _forward(eps, True, True, save, input, weights)
    return y, saved


def nalu_backward(
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
    weights = Weights(W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul)
    return tuple(_backward(eps, True, True, needed, grad_output, saved, input, weights))


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
