"""GNALU as a torch.nn.Module with torch.nn.Linear's habits."""

import torch
from torch import Tensor, nn

from .. import reference
from ..autocast import wide
from ..functional.gnalu import gnalu
from ..reference.gnalu import LOG_GOLDEN_RATIO
from .base import TanhSigmoidLayer
from .initialize import draw_weights, draw_xavier


class GNALU(TanhSigmoidLayer):
    r"""NALU whose tanh and sigmoids have the golden ratio for their base, and so are flatter.

    .. math::
        W &= \tanh(c \hat W) \odot \sigma(c \hat M), \qquad c = \ln \frac{1 + \sqrt 5}{2} \\
        a &= x W^\top, \qquad m = \exp(\log(|x| + \epsilon) W^\top) \\
        g &= \sigma(c\, x G^\top), \qquad y = g \odot a + (1 - g) \odot m

    That is a :class:`nalu_kernels.NALU` of c times the parameters, which stays finite where powers
    of the golden ratio overflow.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: keeps log(0) finite; not 0 in float32, or in float64 if that is the dtype.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W_hat, M_hat: parameters of shape (out_features, in_features), initialised uniformly on
            (-r, r), r from :func:`nalu_kernels.layers.initialize.init_range`.
        G: parameter of shape (out_features, in_features), initialised Xavier-uniformly.
        W: what is made of W_hat and M_hat; read-only.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: the "golden ratio NALU" of Mistry, Farrahi and Hare 2022, "A Primer for Neural
    Arithmetic Logic Modules", and their code; its authors' own code is not public.
    """

    _names = ("W_hat", "M_hat", "G")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        eps: float = 1e-7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, eps, device, dtype)
        self.G = nn.Parameter(torch.empty_like(self.W_hat))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        draw_weights(self.W_hat, self.M_hat)
        draw_xavier(self.G)

    @staticmethod
    def _weight(W_hat: Tensor, M_hat: Tensor) -> Tensor:
        scaled = (LOG_GOLDEN_RATIO * wide(tensor) for tensor in (W_hat, M_hat))
        return reference.weight(*scaled).to(W_hat.dtype)

    def forward(self, input: Tensor) -> Tensor:
        W_hat, M_hat, G = self._tensors(input)
        return gnalu(input, W_hat, M_hat, G, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps:g}"
