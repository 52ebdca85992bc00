"""What anything that is found has to be better than: a sum with coefficients."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def least_squares(x: Tensor, y: Tensor) -> nn.Sequential:
    """The linear regression of ``y`` (rows,) on ``x`` (rows, inputs), in float64 and ``eval()``.

    Of several that are as good, as there are with fewer rows than inputs, the one with the least
    coefficients of scaled inputs.
    """
    size, of_y = _size(x.abs().amax(0)), _size(y.abs().amax())
    mean_x, mean_y = (x / size).mean(0), (y / of_y).mean()
    centred = (x / size - mean_x, (y / of_y - mean_y).unsqueeze(1))
    weight = torch.linalg.lstsq(*centred, driver="gelsd").solution[:, 0]
    layer = nn.Linear(x.shape[1], 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_((weight / size * of_y).nan_to_num())
        layer.bias.copy_(((mean_y - weight @ mean_x) * of_y).nan_to_num())
    return nn.Sequential(layer).eval()


def _size(largest: Tensor) -> Tensor:
    return torch.where(largest > 0, largest, 1.0)
