"""NAC as a torch.nn.Module with torch.nn.Linear's habits."""

import torch
from torch import Tensor

from ..checks import check_flag
from ..functional.nac import nac
from . import keep
from .base import TanhSigmoidLayer
from .initialize import draw_weights


class NAC(TanhSigmoidLayer):
    r"""Neural accumulator, a layer whose weights are pulled to -1, 0 and 1.

    .. math::
        W = \tanh(\hat W) \odot \sigma(\hat M), \qquad
        y = x W^\top \quad\text{or, with log_space,}\quad y = \exp(\log(|x| + \epsilon) W^\top)

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        log_space: compute on logarithms: products, quotients and powers for sums, differences
            and multiples.
        eps: keeps log(0) finite; not 0 in float32, or in float64 if that is the dtype.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W_hat, M_hat: parameters of shape (out_features, in_features), initialised uniformly on
            (-r, r), r from :func:`nalu_kernels.layers.initialize.init_range`.
        W: what is made of them; read-only.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equation 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        log_space: bool = False,
        eps: float = 1e-7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, eps, device, dtype)
        self.log_space = check_flag("log_space", log_space)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W_hat and M_hat anew."""
        draw_weights(self.W_hat, self.M_hat)

    def forward(self, input: Tensor) -> Tensor:
        if keep.active and not torch.compiler.is_compiling():
            output = keep.nac(self, input)
            if output is not None:
                return output
        W_hat, M_hat = self._tensors(input)
        return nac(input, W_hat, M_hat, log_space=self.log_space, eps=self.eps)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if self.log_space:
            text += f", log_space=True, eps={self.eps:g}"
        return text
