"""nau(): the neural addition unit as a function."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..family import NAU
from .call import call


def nau(input: Tensor, W: Tensor) -> Tensor:
    r"""Neural addition unit: sums and differences.

    .. math::
        y = x \, \mathrm{clamp}(W, -1, 1)^\top

    A weight outside of [-1, 1] has no gradient; one on the boundary has.

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W: of shape (out_features, in_features), the dtype and device of ``input``.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``. The kernels compute bfloat16
        and float16 in float32 and round results once; the reference computes in the given dtype.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, or mixed devices.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 2.2.
    """
    tensors = (input, W)
    if has_torch_function(tensors):
        return handle_torch_function(nau, tensors, *tensors)
    return call(NAU, (), tensors)
