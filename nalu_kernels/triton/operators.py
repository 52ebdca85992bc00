"""The operators of ``dispatch.Operators`` on CUDA tensors: arguments in, launches, tensors out."""

from __future__ import annotations

from torch import Tensor

from . import launch
from .arguments import Layer
from .forms import Gradients, Weights


def nac_forward(eps: float, log_space: bool, input: Tensor, W_hat: Tensor, M_hat: Tensor) -> Tensor:
    layer = Layer(eps, not log_space, log_space, input, Weights(W_hat, M_hat))
    y = layer.empty_output()
    launch.forward(layer, y, None)
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
    log_space = output is not None
    layer = Layer(eps, not log_space, log_space, input, Weights(W_hat, M_hat))
    dx, grads = _backward(layer, needed, grad_output, output)
    return dx, grads.W_hat, grads.M_hat


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
    layer = Layer(eps, True, True, input, weights)
    y = layer.empty_output()
    saved = layer.empty_saved() if save else None
    launch.forward(layer, y, saved)
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
    layer = Layer(eps, True, True, input, weights)
    if saved.numel() != layer.saved_size() or not saved.is_contiguous():
        raise RuntimeError("saved is not what nalu_forward returned")
    dx, grads = _backward(layer, needed, grad_output, saved)
    return dx, *grads[:6]


def _backward(
    layer: Layer, needed: int, grad_output: Tensor, saved: Tensor | None
) -> tuple[Tensor | None, Gradients]:
    """dx and the parameters' gradients; bit i of ``needed``: whether tensor i wants one.

    The parameters' kernel first: it has to transform the weights anyway, and leaves them for dx.
    """
    dy = layer.rows_of_gradient(grad_output)
    wanted = (
        weight.new_empty(weight.shape) if weight is not None and needed >> i & 1 else None
        for i, weight in enumerate(layer.weights, start=1)
    )
    grads = Gradients(*wanted)
    dx, how, weights = None, None, layer.weights
    if needed & 1:
        dx, how = layer.empty_input_gradient(), launch.plan(layer, "grad_input")
    if any(grad is not None for grad in grads):
        if how is not None and how.reads:
            grads = grads._replace(**layer.empty_transformed())
        launch.grad_weights(layer, dy, saved, grads)
        if grads.W is not None:
            weights = launch.transformed(weights, grads.W, grads.W_mul)
    if dx is not None and how is not None:
        launch.grad_input(layer, how, weights, dy, saved, dx)
    return dx, grads
