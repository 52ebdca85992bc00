"""nac(): the NAC as a function."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..family import NAC
from .call import call


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
        eps: keeps log(0) finite, unless it is 0 in the dtype (1.4e-45 is not in float32);
            positive and finite. Used only with ``log_space``.

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
    tensors = (input, W_hat, M_hat)
    if has_torch_function(tensors):
        return handle_torch_function(nac, tensors, *tensors, log_space=log_space, eps=eps)
    return call(NAC, (eps, log_space), tensors)
