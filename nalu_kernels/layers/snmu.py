"""SNMU as a torch.nn.Module with torch.nn.Linear's habits."""

from typing import Literal

import torch
from torch import Tensor

from ..checks import check_noise
from ..functional.nmu import nmu
from ..functional.snmu import snmu
from .nmu import NMU


class SNMU(NMU):
    r"""Stochastic NMU: an :class:`nalu_kernels.NMU` whose inputs are noisy in training.

    .. math::
        y_o = \frac{\prod_i (W_{oi} x_i n_i + 1 - W_{oi})}{\prod_i (W_{oi} n_i + 1 - W_{oi})},
        \qquad n_i \sim U(a, b)

    Where the weights are 0 and 1 that is the NMU, whatever the noise; between them it differs from
    call to call. Each sample has a number of its own for each input. In ``eval()`` the layer is an
    NMU.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        noise: (a, b), of positive numbers; or "batch" for (1, 1 + 1 / std(x)), of the standard
            deviation of the whole input. An input whose numbers are all equal has none, and gives
            NaN in training, as by the authors' formula.
        device, dtype: of the parameter; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W: parameter of shape (out_features, in_features), initialised uniformly on (1/4, 3/4).

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    The authors' input_regularizer sees the input times the noise; this one the input.

    Source: Mistry, Farrahi and Hare 2022, "Improving the Robustness of Neural Multiplication
    Units with Reversible Stochasticity".
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        noise: tuple[float, float] | Literal["batch"] = (1.0, 5.0),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, device=device, dtype=dtype)
        checked = check_noise(noise)
        self.noise: tuple[float, float] | Literal["batch"] = checked or "batch"

    def forward(self, input: Tensor) -> Tensor:
        (W,) = self._tensors(input)
        return snmu(input, W, noise=self.noise) if self.training else nmu(input, W)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, noise={self.noise!r}"
