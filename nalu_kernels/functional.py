"""nac() and nalu(): the one place that decides what runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import reference
from .autocast import disabled, widen
from .autograd import apply_nac, apply_nalu
from .checks import check_nac, check_nalu, is_dtensor
from .dispatch import namespace_in_graph, select

# What an operator or the choice of a back end raises when an argument is wrong; the checks then
# say which one. Anything else passes through.
_REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError)
_PLAIN = (Tensor, torch.nn.Parameter)


def nac(
    input: Tensor, W_hat: Tensor, M_hat: Tensor, *, log_space: bool = False, eps: float = 1e-7
) -> Tensor:
    r"""Neural accumulator: sums and differences, or with ``log_space`` products and quotients.

    .. math::
        W = \tanh(\hat W) \odot \sigma(\hat M), \qquad
        y = x W^\top \quad\text{or}\quad y = \exp(\log(|x| + \epsilon) W^\top)

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W_hat: of shape (out_features, in_features), the dtype and device of ``input``.
        M_hat: like ``W_hat``.
        log_space: the multiplicative form, computed on logarithms.
        eps: keeps log(0) finite; positive and finite. Used only with ``log_space``.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``. The kernels compute bfloat16
        and float16 in float32 and round results once, except that large layers on a GPU take the
        linear products in the dtype itself, or in TF32 ("Precision" in docs/triton.md and
        docs/cuda.md); the reference computes in the given dtype.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, mixed devices, or an eps that is not positive and finite.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equation 1 (W and a) and the
    log-space path of equation 2.
    """
    narrow = None
    if torch._C._is_any_autocast_enabled():
        narrow, (input, W_hat, M_hat) = widen(input, W_hat, M_hat)
    try:
        operators = select(input)
        if operators is not None:
            # An operator would take True for 1.0, and 1 for True, and some DTensors for plain ones.
            if type(eps) is not float or type(log_space) is not bool or type(W_hat) not in _PLAIN:
                check_nac(input, W_hat, M_hat, log_space, eps)
            if torch.is_grad_enabled():
                output = apply_nac(operators, eps, log_space, input, W_hat, M_hat)
            else:
                output = operators.nac_forward(eps, log_space, input, W_hat, M_hat)
    except _REFUSALS:
        check_nac(input, W_hat, M_hat, log_space, eps)
        raise
    if operators is None:
        output = _nac_otherwise(input, W_hat, M_hat, log_space, eps)
    return output if narrow is None else output.to(narrow)


def nalu(
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    *,
    gate_bias: Tensor | None = None,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
    eps: float = 1e-7,
) -> Tensor:
    r"""Neural arithmetic logic unit: a learned gate between a sum and a product.

    .. math::
        W &= \tanh(\hat W) \odot \sigma(\hat M) \\
        a &= x W^\top, \qquad m = \exp(\log(|x| + \epsilon) W_\text{mul}^\top) \\
        g &= \sigma(x G^\top + b), \qquad y = g \odot a + (1 - g) \odot m

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W_hat: of shape (out_features, in_features), the dtype and device of ``input``, as are
            all that follow.
        M_hat: like ``W_hat``.
        G: of shape (out_features, in_features), one gate per output, or (1, in_features), one
            gate per sample.
        gate_bias: b, of shape (G.shape[0],); None for no bias, as in the paper.
        W_hat_mul, M_hat_mul: like ``W_hat``: weights of the product's own, W_mul. None ties
            W_mul to W, as in the paper's equations. Both or neither.
        eps: keeps log(0) finite; positive and finite.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``. The kernels compute bfloat16
        and float16 in float32 and round results once, except that large layers on a GPU take the
        linear products in the dtype itself, or in TF32 ("Precision" in docs/triton.md and
        docs/cuda.md); the reference computes in the given dtype.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, mixed devices, or an eps that is not positive and finite.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equations 1 and 2.
    """
    narrow = None
    if torch._C._is_any_autocast_enabled():
        narrow, widened = widen(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul)
        input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul = widened
    try:
        operators = select(input)
        if operators is not None:
            if type(eps) is not float or type(W_hat) not in _PLAIN:  # as above
                check_nalu(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps)
            tensors: tuple[Tensor | None, ...] = (input, W_hat, M_hat, G)
            if gate_bias is not None or W_hat_mul is not None or M_hat_mul is not None:
                tensors += (gate_bias, W_hat_mul, M_hat_mul)
            if torch.is_grad_enabled():
                output = apply_nalu(operators, eps, *tensors)
            else:
                output, _ = operators.nalu_forward(eps, False, *tensors)
    except _REFUSALS:
        check_nalu(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps)
        raise
    if operators is None:
        output = _nalu_otherwise(input, (W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul), eps)
    return output if narrow is None else output.to(narrow)


# Without operators to call at once: in a graph that is being traced, by the reference, or of
# DTensors.


def _nac_otherwise(
    input: Tensor, W_hat: Tensor, M_hat: Tensor, log_space: bool, eps: float
) -> Tensor:
    check_nac(input, W_hat, M_hat, log_space, eps)
    if is_dtensor(input):
        from . import sharded  # imports what takes long

        return sharded.nac(input, W_hat, M_hat, log_space, eps)
    graph = _graph(input)
    if graph is not None:
        return graph.nac(float(eps), log_space, input, W_hat, M_hat)
    with disabled(input):
        return reference.nac(input, W_hat, M_hat, log_space=log_space, eps=eps)


def _nalu_otherwise(input: Tensor, weights: tuple[Any, ...], eps: float) -> Tensor:
    W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul = weights
    check_nalu(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps)
    if is_dtensor(input):
        from . import sharded

        return sharded.nalu(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps)
    graph = _graph(input)
    if graph is not None:
        return graph.nalu(float(eps), input, *weights)
    with disabled(input):
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


def _graph(input: Tensor) -> Any:
    """The namespace of torch.ops whose operators a graph is to call, if one is being traced."""
    if not torch.compiler.is_compiling():
        return None
    namespace = namespace_in_graph(input)
    return getattr(torch.ops, namespace) if namespace else None
