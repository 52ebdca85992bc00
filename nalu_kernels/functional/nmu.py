"""nmu(): the neural multiplication unit as a function."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..family import NMU
from .call import call


def nmu(input: Tensor, W: Tensor) -> Tensor:
    r"""Neural multiplication unit: products of the inputs that the weights select.

    .. math::
        y_o = \prod_i (W_{oi} x_i + 1 - W_{oi})

    A weight of 1 selects an input, one of 0 leaves it out. Weights are taken as they are, also
    outside of [0, 1]. Gradients are right where factors are 0.

    Factor by factor is multiplied in the type computed in, by each back end in an order of its own.
    If the product of some of them overflows or underflows, the output does, and its gradients are
    infinite, NaN or 0, also where the product of all is in range: 1e30 · 1e30 · 1e-30 · 1e-30 in
    float32. Inputs near 1 in size, or float64, avoid it.

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W: of shape (out_features, in_features), the dtype and device of ``input``.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``. The kernels compute bfloat16
        and float16 in float32 and round results once; the reference computes in the given dtype.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, or mixed devices.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 2.3.
    """
    tensors = (input, W)
    if has_torch_function(tensors):
        return handle_torch_function(nmu, tensors, *tensors)
    return call(NMU, (), tensors)
