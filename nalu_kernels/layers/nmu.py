"""NMU as a torch.nn.Module with torch.nn.Linear's habits."""

import torch
from torch import Tensor

from ..functional.nmu import nmu
from .base import UNSIGNED, MeanLayer


class NMU(MeanLayer):
    r"""Neural multiplication unit: products of those inputs whose weight is 1.

    .. math::
        y_o = \prod_i (W_{oi} x_i + 1 - W_{oi})

    A weight of 0 takes its input for 1. Signs and zeros are those of the product. W is used as it
    is: :meth:`clamp_` puts it back into [0, 1] after a step of the optimizer, and
    :meth:`regularizer` pulls it to 0 and 1.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        device, dtype: of the parameter; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W: parameter of shape (out_features, in_features), initialised uniformly on (1/4, 3/4).

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 2.3.
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
        super().__init__(in_features, out_features, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        (W,) = self._tensors(input)
        return nmu(input, W)
