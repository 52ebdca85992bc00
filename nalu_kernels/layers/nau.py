"""NAU as a torch.nn.Module with torch.nn.Linear's habits."""

import torch
from torch import Tensor

from ..functional.nau import nau
from .base import SIGNED, MeanLayer


class NAU(MeanLayer):
    r"""Neural addition unit: sums and differences, by a linear layer whose weights stay in [-1, 1].

    .. math::
        y = x \, \operatorname{clamp}(W, -1, 1)^\top

    Its :meth:`regularizer` pulls W to -1, 0 and 1, and :meth:`clamp_` puts it back into [-1, 1]
    after a step of the optimizer.

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

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 2.2.
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
        return nau(input, W)

    def _weights(self) -> list[Tensor]:
        return [self.W.clamp(-1, 1)]
