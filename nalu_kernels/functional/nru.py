"""nru() and nmru(): neural reciprocal units as functions."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..family import NMRU, NRU
from .call import call


def nru(input: Tensor, W: Tensor, *, training: bool = False) -> Tensor:
    r"""Neural reciprocal unit: products and quotients of the inputs that the weights select.

    .. math::
        a = |W| \quad\text{or, in training,}\quad a = \tanh^2(1000 W), \qquad
        y_o = \prod_i (a_{oi} \, \mathrm{sign}(x_i) |x_i|^{W_{oi}} + 1 - a_{oi})

    A weight of 1 selects an input, one of -1 its reciprocal, one of 0 leaves it out. The sign of 0
    is 1. An input of 0 is infinite to a negative weight. The product of some factors can overflow
    or underflow where that of all is in range, as in :func:`nalu_kernels.nmu`.

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W: of shape (out_features, in_features), the dtype and device of ``input``.
        training: whether a is the form that is trained.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``. The kernels compute bfloat16
        and float16 in float32 and round results once; the reference computes in the given dtype.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, or mixed devices.

    Source: Mistry, Farrahi and Hare 2022, "Exploring the Learning Mechanisms of Neural Division
    Modules".
    """
    tensors = (input, W)
    if has_torch_function(tensors):
        return handle_torch_function(nru, tensors, *tensors, training=training)
    return call(NRU, (training,), tensors)


def nmru(input: Tensor, W: Tensor, *, eps: float = 0.0) -> Tensor:
    r"""Neural multiplicative reciprocal unit: products of inputs and reciprocals that are selected.

    .. math::
        X = (x, 1 / (x + \epsilon)), \qquad
        y = \prod_i (W_i |X_i| + 1 - W_i) \; \cos\Big(\pi \sum_i W_i [X_i < 0]\Big)

    A weight of 1 selects an input or a reciprocal, one of 0 leaves it out. The product of some
    factors can overflow or underflow where that of all is in range, as in
    :func:`nalu_kernels.nmu`.

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W: of shape (out_features, 2 in_features), the dtype and device of ``input``: first the
            weights of the inputs, then those of the reciprocals.
        eps: is added before the reciprocal; finite and not negative. 2**-23 in training as
            published, 0 otherwise: then 1 / 0 is infinite, to a weight other than 0.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``. The kernels compute bfloat16
        and float16 in float32 and round results once; the reference computes in the given dtype.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, mixed devices, or an eps that is negative or not finite.

    Source: Mistry, Farrahi and Hare 2022, "Exploring the Learning Mechanisms of Neural Division
    Modules".
    """
    tensors = (input, W)
    if has_torch_function(tensors):
        return handle_torch_function(nmru, tensors, *tensors, eps=eps)
    return call(NMRU, (eps,), tensors)
