"""gnalu(): the golden ratio NALU as a function."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..autocast import wide, widen
from ..family import NALU
from ..reference.gnalu import LOG_GOLDEN_RATIO
from .nalu import nalu
from .units import check


def gnalu(input: Tensor, W_hat: Tensor, M_hat: Tensor, G: Tensor, *, eps: float = 1e-7) -> Tensor:
    r"""Golden ratio NALU: a NALU whose tanh and sigmoids have the base :math:`\phi` in place of e.

    .. math::
        c &= \log \phi = \log\frac{1 + \sqrt 5}{2}, \qquad
             W = \tanh(c \hat W) \odot \sigma(c \hat M) \\
        a &= x W^\top, \qquad m = \exp(\log(|x| + \epsilon) W^\top) \\
        g &= \sigma(c \, x G^\top), \qquad y = g \odot a + (1 - g) \odot m

    So it is :func:`nalu_kernels.nalu` of c times the parameters, and runs on its kernels. It is
    finite where a power of :math:`\phi` overflows.

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W_hat: of shape (out_features, in_features), the dtype and device of ``input``, as are
            all that follow.
        M_hat: like ``W_hat``.
        G: of shape (out_features, in_features), one gate per output, or (1, in_features), one
            gate per sample.
        eps: keeps log(0) finite, unless it is 0 in the dtype (1.4e-45 is not in float32);
            positive and finite.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``; bfloat16 and float16 are
        computed in float32, and rounded once.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, mixed devices, or an eps that is not positive and finite.

    Source: Mistry, Farrahi and Hare 2022, "A Primer for Neural Arithmetic Logic Modules", and its
    benchmark's code.
    """
    tensors = (input, W_hat, M_hat, G)
    if has_torch_function(tensors):
        return handle_torch_function(gnalu, tensors, *tensors, eps=eps)
    narrow, tensors = widen(*tensors)
    check(NALU, (eps,), tensors)
    x, *parameters = map(wide, tensors)
    scaled = (LOG_GOLDEN_RATIO * parameter for parameter in parameters)
    return nalu(x, *scaled, eps=eps).to(narrow or tensors[0].dtype)
