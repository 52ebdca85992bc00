"""What anything that is found has to be better than: a sum with coefficients."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def least_squares(x: Tensor, y: Tensor) -> nn.Sequential:
    """The linear regression of ``y`` (rows,) on ``x`` (rows, inputs), in float64 and ``eval()``.

    Of several that are as good, as there are with fewer rows than inputs, the one with the least
    coefficients of scaled inputs.
    """
    size = x.abs().amax(0)
    size = torch.where(size > 0, size, 1.0)
    mean_x, mean_y = (x / size).mean(0), y.mean()
    found = torch.linalg.lstsq(x / size - mean_x, (y - mean_y).unsqueeze(1), driver="gelsd")
    weight = found.solution[:, 0]
    layer = nn.Linear(x.shape[1], 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight / size)
        layer.bias.copy_(mean_y - weight @ mean_x)
    return nn.Sequential(layer).eval()
