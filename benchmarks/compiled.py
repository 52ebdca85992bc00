"""torch.compile around the layers: what it costs and what it saves.

    python -m benchmarks.compiled

A step is forward, mean squared error and backward of so many NALU(2, 2) in a row on 64 rows. Beside
it the same of the plain formulas, and of Linear layers: what torch.compile itself takes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nalu_kernels import NALU, reference, which_backend

from .timing import interleave

DEPTHS = (1, 2, 4, 8)


class Plain(nn.Module):
    """A NALU's formulas in PyTorch."""

    def __init__(self, layer: NALU) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return reference.nalu(x, self.layer.W_hat, self.layer.M_hat, self.layer.G)


def step(model: nn.Module, wrap: Callable[[Any], Any]) -> Callable[[], None]:
    x, target = torch.rand(64, 2) + 0.5, torch.rand(64, 2)
    parameters = list(model.parameters())
    loss = wrap(lambda x, target: nn.functional.mse_loss(model(x), target))

    def run() -> None:
        loss(x, target).backward()
        for parameter in parameters:
            parameter.grad = None

    return run


def compiled(function: Any) -> Any:
    return torch.compile(function, fullgraph=True)


def main() -> None:
    torch.set_num_threads(1)
    print(f"A training step in microseconds, on {which_backend(torch.ones(1))[0]}:")
    for depth in DEPTHS:
        torch.compiler.reset()
        layers = [NALU(2, 2) for _ in range(depth)]
        models = {
            "nalu_kernels": nn.Sequential(*layers),
            "plain formulas": nn.Sequential(*map(Plain, layers)),
            "Linear": nn.Sequential(*(nn.Linear(2, 2) for _ in range(depth))),
        }
        calls = {}
        for name, model in models.items():
            calls[name] = step(model, lambda function: function)
            calls[f"{name}, compiled"] = step(model, compiled)
        samples = interleave(calls, budget_s=4.0)
        figures = {name: 1e6 * statistics.median(times) for name, times in samples.items()}
        print(f"  {depth}: " + "; ".join(f"{name} {value:.0f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
