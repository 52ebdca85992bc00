"""Inputs of every shape and type: a module stays if a layer says otherwise to one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nalu_kernels import convert


class Prepared(nn.Module):
    """A NAC that does something with what it is given, and with its answer."""

    def __init__(
        self,
        before: Callable[[Any], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda y: y,
    ) -> None:
        super().__init__()
        self.W_hat, self.M_hat = (nn.Parameter(torch.randn(3, 4)) for _ in range(2))
        self._before, self._after = before, after

    def forward(self, x: Any) -> Tensor:
        weight = torch.tanh(self.W_hat) * torch.sigmoid(self.M_hat)
        return self._after(linear(self._before(x), weight))


OTHERWISE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "makes rows of all dimensions": (
        lambda: Prepared(lambda x: x.reshape(-1, 4)),
        "for an input of shape (2, 3, 4) its forward returns shape (6, 3) of float64, and a layer "
        "shape (2, 3, 3) of float64",
    ),
    "views": (lambda: Prepared(lambda x: x.view(-1, 4)), "for an input of shape (2, 3, 4) its"),
    "flattens": (lambda: Prepared(lambda x: x.flatten(1)), "for an input of shape (1, 1, 4) its"),
    "flattens images": (
        lambda: Prepared(lambda x: x.flatten(1) if x.dim() == 4 else x),
        "for an input of shape (1, 1, 1, 4) its forward returns shape (1, 3) of float64",
    ),
    "squeezes": (lambda: Prepared(torch.squeeze), "for an input of shape (1, 4) its forward"),
    "unsqueezes a row": (
        lambda: Prepared(after=torch.atleast_2d),
        "for an input of shape (4,) its forward returns shape (1, 3) of float64, and a layer",
    ),
    "adds rows of matrices up": (
        lambda: Prepared(after=lambda y: y.sum(-2) if y.dim() == 3 else y),
        "for an input of shape (2, 3, 4) its forward returns shape (2, 3)",
    ),
    "says 1 of nothing": (
        lambda: Prepared(after=lambda y: y if len(y) else torch.ones(1, 3)),
        "for an input of shape (0, 4) its forward returns shape (1, 3) of float32 without",
    ),
    "takes the first columns": (
        lambda: Prepared(lambda x: x[..., :4]),
        "for an input of shape (2, 8) its forward returns shape (2, 3) of float64, and a layer "
        "raises ValueError",
    ),
    "takes integers": (
        lambda: Prepared(lambda x: x if x.is_floating_point() else x.float()),
        "for an input of int64 its forward returns shape (5, 3) of float32, and a layer raises",
    ),
    "takes float64 to float32": (
        lambda: Prepared(lambda x: x.to(torch.float32) if x.shape == (5, 4) else x),
        "for an input of float64 its forward returns shape (5, 3) of float32, and a layer raises",
    ),
    "joins a list": (
        lambda: Prepared(lambda x: torch.cat(x, 1) if isinstance(x, list) else x),
        "for a list of matrices its forward returns shape (5, 3) of float32, and a layer raises",
    ),
    "stacks a tuple": (
        lambda: Prepared(lambda x: torch.stack(x) if isinstance(x, tuple) else x),
        "for a tuple of rows its forward returns shape (5, 3) of float32, and a layer raises",
    ),
    "returns float64": (
        lambda: Prepared(after=lambda y: y.double()),
        "for an input of float32 its forward returns shape (5, 3) of float64, and a layer",
    ),
    "has no gradient for data": (
        lambda: Prepared(after=lambda y: y.detach() if len(y) == 5 else y),
        "for an input of shape (5, 4) its forward returns shape (5, 3) of float64 without a grad",
    ),
    "replaces NaN": (
        lambda: Prepared(torch.nan_to_num),
        "for an input with NaN its forward returns other numbers than a layer",
    ),
    "rounds where nothing is learnt": (
        lambda: Prepared(after=lambda y: y if torch.is_grad_enabled() else y.round()),
        "for an input of shape (5, 4) its forward returns other numbers than a layer",
    ),
    "changes its input": (
        lambda: Prepared(lambda x: x if x.requires_grad else x.mul_(1.5)),
        "for an input of float32 its forward changes the input",
    ),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_stays_where_other_inputs_are_answered_otherwise(case: str) -> None:
    make, reason = OTHERWISE[case]
    model = nn.Sequential(make())
    ((_, _, why),) = convert(model).left
    assert why.startswith(reason)
