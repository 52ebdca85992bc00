"""NRU and NMRU as torch.nn.Modules with torch.nn.Linear's habits."""

import torch
from torch import Tensor

from ..functional.nru import nmru, nru
from .base import SIGNED, UNSIGNED, WeightLayer

_EPS = 2.0**-23  # of float32, whatever the dtype, as the authors have it


class NRU(WeightLayer):
    r"""Neural reciprocal unit: products and quotients, by weights of 1 and -1.

    .. math::
        y_o = \prod_i (a_{oi} \operatorname{sign}(x_i) |x_i|^{W_{oi}} + 1 - a_{oi}), \qquad
        a = \begin{cases} \tanh(1000\, W)^2 & \text{in training} \\
        |W| & \text{in } \texttt{eval()} \end{cases}

    A weight of 0 takes its input for 1. Where a weight is between whole numbers, the two forms
    differ much. An input of 0 with a negative weight gives an infinite factor.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        device, dtype: of the parameter; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W: parameter of shape (out_features, in_features), initialised uniformly on (-r, r), r from
            :func:`nalu_kernels.layers.initialize.nau_range`.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Mistry, Farrahi and Hare 2022, "Exploring the Learning Mechanisms of Neural Division
    Modules".
    """

    _bounds = SIGNED

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        (W,) = self._tensors(input)
        return nru(input, W, training=self.training)


class NMRU(WeightLayer):
    r"""Neural multiplicative reciprocal unit: an NMU of the inputs and their reciprocals.

    .. math::
        X = [x, 1 / (x + \epsilon)], \qquad
        y_o = \prod_{j=1}^{2 I} (W_{oj} |X_j| + 1 - W_{oj}) \cdot
        \cos\Bigl(\pi \sum_{j=1}^{2 I} W_{oj} [X_j < 0]\Bigr)

    with ε = 2⁻²³ in training and 0 in ``eval()``, where the reciprocal of 0 is infinite.

    Args:
        in_features: I, size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        device, dtype: of the parameter; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W: parameter of shape (out_features, 2 in_features), first the columns of the inputs, then
            those of their reciprocals; initialised uniformly on (1/4, 3/4).

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Mistry, Farrahi and Hare 2022, "Exploring the Learning Mechanisms of Neural Division
    Modules": the form with the sign, which they publish.
    """

    _bounds = UNSIGNED

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, device, dtype, columns=2)

    def forward(self, input: Tensor) -> Tensor:
        (W,) = self._tensors(input)
        return nmru(input, W, eps=_EPS if self.training else 0.0)
