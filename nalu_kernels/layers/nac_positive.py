"""NACSigma and NACNMU as torch.nn.Modules with torch.nn.Linear's habits: the NAC in log space with
weights from 0 to 1."""

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function

from ..autocast import wide, widen
from ..checks import check_eps_in
from ..family import NMU
from ..functional.nac import nac
from ..functional.npu import real_npu
from ..functional.units import check
from .base import UNSIGNED, Layer, MeanLayer
from .initialize import draw_normal, xavier_std

_SATURATED = 20.0  # its tanh is 1 in every dtype


class NACSigma(Layer):
    r"""A NAC in log space whose weights are sigmoids: products of sizes.

    .. math::
        W = \sigma(\hat W), \qquad y = \exp(\log(|x| + \epsilon) W^\top)

    The :math:`\mathrm{NAC}_{\bullet,\sigma}` that its authors compare their NMU with, which unlike
    it keeps signs. It is :func:`nalu_kernels.nac` of a :math:`\hat W` whose tanh is 1 and of the
    parameter as :math:`\hat M`, and runs on its kernels.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: keeps log(0) finite; not 0 in float32, or in float64 if that is the dtype.
        device, dtype: of the parameter; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W_hat: parameter of shape (out_features, in_features), initialised Xavier-normally.
        W: what is made of it; read-only.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 4.1, and their code.
    """

    _names = ("W_hat",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        eps: float = 1e-7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, dtype)
        self.eps = check_eps_in(dtype, eps)
        shape = (self.out_features, self.in_features)
        self.W_hat = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W_hat anew."""
        draw_normal(self.W_hat, 0, xavier_std(self.in_features, self.out_features))

    @property
    def W(self) -> Tensor:
        r"""The weights that the layer uses, :math:`W = \sigma(\hat W)`; read-only."""
        return self._weight(self.W_hat)

    @staticmethod
    def _weight(W_hat: Tensor) -> Tensor:
        return torch.sigmoid(wide(W_hat)).to(W_hat.dtype)

    def _weights(self) -> list[Tensor]:
        return [self.W]

    def forward(self, input: Tensor) -> Tensor:
        (W_hat,) = self._tensors(input)
        saturated = torch.full_like(W_hat, _SATURATED)
        return nac(input, saturated, W_hat, log_space=True, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps:g}"


class NACNMU(MeanLayer):
    r"""A NAC in log space with the weights of an NMU: products of sizes.

    .. math::
        y = \exp(\log(|x| + \epsilon) W^\top)

    The :math:`\mathrm{NAC}_{\bullet,\mathrm{NMU}}` that its authors compare their NMU with, which
    unlike it keeps signs. W is used as it is: :meth:`clamp_` puts it back into [0, 1] after a step
    of the optimizer, and :meth:`regularizer` pulls it to 0 and 1. It is
    :func:`nalu_kernels.real_npu` of the sizes of the inputs with gates of 1, and runs on its
    kernels.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: keeps log(0) finite; not 0 in float32, or in float64 if that is the dtype.
        device, dtype: of the parameter; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W: parameter of shape (out_features, in_features), initialised uniformly on (1/4, 3/4).

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 4.1, and their code.
    """

    _bounds = UNSIGNED

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        eps: float = 1e-7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, device, dtype)
        self.eps = check_eps_in(dtype, eps)

    def forward(self, input: Tensor) -> Tensor:
        (W,) = self._tensors(input)
        if not has_torch_function((input, W)):
            check(NMU, (), widen(input, W)[1])
        gates = W.new_ones((*W.shape[:-2], W.shape[-1]))
        return real_npu(torch.abs(input), W, gates, eps=self.eps)

    def _rows(self, input: Tensor) -> Tensor:
        return torch.log(super()._rows(input).abs() + self.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps:g}"
