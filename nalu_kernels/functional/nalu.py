"""nalu(): the NALU as a function."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..family import NALU
from .call import call


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
        eps: keeps log(0) finite, unless it is 0 in the dtype (1.4e-45 is not in float32);
            positive and finite.

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
    tensors: tuple[Tensor | None, ...] = (input, W_hat, M_hat, G)
    if gate_bias is not None or W_hat_mul is not None or M_hat_mul is not None:
        tensors += (gate_bias, W_hat_mul, M_hat_mul)
    if has_torch_function(tensors):
        return handle_torch_function(
            nalu,
            tensors,
            input,
            W_hat,
            M_hat,
            G,
            gate_bias=gate_bias,
            W_hat_mul=W_hat_mul,
            M_hat_mul=M_hat_mul,
            eps=eps,
        )
    return call(NALU, (eps,), tensors)
