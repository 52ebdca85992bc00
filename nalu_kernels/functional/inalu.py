"""inalu(): the improved NALU as a function."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..family import INALU
from .call import call


def inalu(
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    g: Tensor,
    *,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
    eps: float = 1e-7,
    omega: float = 20.0,
    per_sample: bool = False,
) -> Tensor:
    r"""Improved NALU: a gate between a sum and a product, which has the sign of its factors.

    .. math::
        W &= \tanh(\hat W) \odot \sigma(\hat M), \qquad a = x W^\top \\
        m &= \exp(\min(\log(\max(|x|, \epsilon)) W_\text{mul}^\top, \omega)) \\
        s_o &= \prod_i (\mathrm{sign}(x_i) |W_{\text{mul},oi}| + 1 - |W_{\text{mul},oi}|) \\
        y &= \sigma(g) \odot a + (1 - \sigma(g)) \odot m \odot s

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W_hat: of shape (out_features, in_features), the dtype and device of ``input``, as are
            all that follow.
        M_hat: like ``W_hat``.
        g: the gate. Of shape (out_features,): the same for every sample, as published. Of shape
            (out_features, in_features), the authors' matrix gate: :math:`\sigma(|x| g^\top)`.
        W_hat_mul, M_hat_mul: like ``W_hat``: weights of the product's own, W_mul, as published.
            None ties W_mul to W. Both or neither.
        eps: keeps log(0) finite, unless it is 0 in the dtype (1.4e-45 is not in float32);
            positive and finite.
        omega: the largest logarithm of a product; positive and finite.
        per_sample: the authors' vector gate, one for each sample: g, of shape (1, in_features), in
            :math:`\sigma(|x| g^\top)`, and the logarithm is :math:`\log(|x| + \epsilon)`.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``. The kernels compute bfloat16
        and float16 in float32 and round results once; the reference computes in the given dtype.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, mixed devices, or an eps or omega that is not positive and
            finite.

    Source: Schlör, Ring and Hotho 2020, "iNALU: Improved Neural Arithmetic Logic Unit". The sign's
    product takes the weights as the paper has them; the authors' code reshapes them where it should
    transpose.
    """
    tensors: tuple[Tensor | None, ...] = (input, W_hat, M_hat, g)
    if W_hat_mul is not None or M_hat_mul is not None:
        tensors += (W_hat_mul, M_hat_mul)
    if has_torch_function(tensors):
        return handle_torch_function(
            inalu,
            tensors,
            input,
            W_hat,
            M_hat,
            g,
            W_hat_mul=W_hat_mul,
            M_hat_mul=M_hat_mul,
            eps=eps,
            omega=omega,
            per_sample=per_sample,
        )
    return call(INALU, (eps, omega, per_sample), tensors)
