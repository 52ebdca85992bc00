"""npu() and real_npu(): neural power units as functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..autocast import computed_in
from ..checks import DTYPES
from ..family import NPU
from .call import call


def npu(
    input: Tensor,
    W_re: Tensor,
    W_im: Tensor,
    g: Tensor,
    *,
    eps: float | None = None,
    straight_through: bool = True,
) -> Tensor:
    r"""Neural power unit: products of powers of the inputs that the gate lets through.

    .. math::
        \gamma &= \mathrm{clamp}(g, 0, 1) \\
        r &= \gamma \odot (|x| + \epsilon) + 1 - \gamma, \qquad k = \pi \gamma \odot [x < 0] \\
        y &= \exp(\log(r) W_\text{re}^\top - k W_\text{im}^\top)
             \odot \cos(k W_\text{re}^\top + \log(r) W_\text{im}^\top)

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W_re: of shape (out_features, in_features), the dtype and device of ``input``, as are
            all that follow.
        W_im: like ``W_re``.
        g: the gate, of shape (in_features,).
        eps: keeps log(0) finite; positive and finite. None takes that of the dtype which is
            computed in, ``torch.finfo(input.dtype).eps``; under autocast that of float32.
        straight_through: whether a gate outside of [0, 1] has the gradient of one inside, as in the
            authors' package, or none, as in the paper's experiments.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``. The kernels compute bfloat16
        and float16 in float32 and round results once; the reference computes in the given dtype.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, mixed devices, or an eps that is not positive and finite.

    Source: Heim, Pevný and Šmídl 2020, "Neural Power Units".
    """
    tensors = (input, W_re, W_im, g)
    if has_torch_function(tensors):
        return handle_torch_function(
            npu, tensors, *tensors, eps=eps, straight_through=straight_through
        )
    if W_im is None:  # which the kernels take for a RealNPU's
        raise TypeError("W_im: expected a torch.Tensor, got NoneType; real_npu has none")
    return call(NPU, (eps_of(eps, input), straight_through), (input, W_re, g, W_im))


def real_npu(
    input: Tensor,
    W_re: Tensor,
    g: Tensor,
    *,
    eps: float | None = None,
    straight_through: bool = True,
) -> Tensor:
    r"""Neural power unit of real weights.

    .. math::
        \gamma &= \mathrm{clamp}(g, 0, 1) \\
        r &= \gamma \odot (|x| + \epsilon) + 1 - \gamma, \qquad k = \pi \gamma \odot [x < 0] \\
        y &= \exp(\log(r) W_\text{re}^\top) \odot \cos(k W_\text{re}^\top)

    Args:
        input, W_re, g, eps, straight_through: as of :func:`nalu_kernels.npu`, of whose kernels
            this is a shorter run.

    Returns:
        y, as of :func:`nalu_kernels.npu`.

    Raises:
        TypeError: as of :func:`nalu_kernels.npu`.
        ValueError: as of :func:`nalu_kernels.npu`.

    Source: Heim, Pevný and Šmídl 2020, "Neural Power Units".
    """
    tensors = (input, W_re, g)
    if has_torch_function(tensors):
        return handle_torch_function(
            real_npu, tensors, *tensors, eps=eps, straight_through=straight_through
        )
    return call(NPU, (eps_of(eps, input), straight_through), tensors)


def eps_of(eps: float | None, input: Tensor) -> float | None:
    """That of the dtype, unless it is given, or the input is wrong: then the checks say so."""
    if eps is None and isinstance(input, Tensor) and input.dtype in DTYPES:
        return torch.finfo(computed_in(input)).eps
    return eps
