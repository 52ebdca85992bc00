"""y = x by small networks: what is left of it outside the training range.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 1.1 and figure 1. A network of
3 hidden layers of 8 units learns the identity on [-5, 5] and is tested on [-20, 20], once for each
of the usual activations. The picture of the paper averages 100 networks an activation, this one as
many as there are seeds. Beside them stands a stack of NAC layers of the same shape.

All the networks with ordinary activations are trained as one batch of matrices: Adam works on each
number by itself, so they do not feel each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NAC

from .report import columns, how_often, median, number
from .toolkit import (
    Group,
    Progress,
    Result,
    Settings,
    batches,
    build,
    cool_down,
    generator,
    train,
    uniform,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Hardtanh": F.hardtanh,
    "Sigmoid": torch.sigmoid,
    "ReLU6": F.relu6,
    "Tanh": torch.tanh,
    "Tanhshrink": F.tanhshrink,
    "Hardshrink": F.hardshrink,
    "LeakyReLU": F.leaky_relu,
    "Softshrink": F.softshrink,
    "Softsign": F.softsign,
    "ReLU": F.relu,
    "PReLU": F.relu,  # plus its learned slope: see _Networks
    "Softplus": F.softplus,
    "ELU": F.elu,
    "SELU": F.selu,
}
NAC_STACK = "NAC"
SIZES = (1, 8, 8, 8, 1)
INSIDE, OUTSIDE = 5.0, 20.0
_BATCH = 64
_KEY = 1  # of this experiment's generators


class _Networks:
    """One network for each activation and seed, (activation, seed, out, in) flattened in front."""

    def __init__(self, settings: Settings) -> None:
        self.weights: list[Tensor] = []
        self.biases: list[Tensor] = []
        sources = [generator(_KEY, 0, seed) for seed in range(settings.seeds)]
        count = len(ACTIVATIONS)
        for fan_in, fan_out in pairwise(SIZES):
            bound = 1 / math.sqrt(fan_in)  # torch.nn.Linear's
            for shape, kept in (((fan_in, fan_out), self.weights), ((1, fan_out), self.biases)):
                drawn = [uniform(source, (count, *shape), -bound, bound) for source in sources]
                stacked = torch.stack(drawn, dim=1).flatten(0, 1)
                kept.append(stacked.to(settings.device).requires_grad_())
        # torch.nn.PReLU's initial slope, one for each hidden layer
        slopes = torch.full((len(SIZES) - 2, settings.seeds, 1, 1), 0.25, device=settings.device)
        self.slopes = slopes.requires_grad_()

    def _activate(self, hidden: Tensor, layer: int) -> Tensor:
        slices = hidden.chunk(len(ACTIVATIONS))
        activated = [
            # max(0, h) + slope * min(0, h)
            F.relu(h) - self.slopes[layer] * F.relu(-h) if name == "PReLU" else function(h)
            for (name, function), h in zip(ACTIVATIONS.items(), slices, strict=True)
        ]
        return torch.cat(activated)

    def __call__(self, x: Tensor) -> Tensor:
        """x of shape (activations * seeds, batch, 1) to the same."""
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                x = self._activate(x, layer - 1)
            x = torch.baddbmm(bias, x, weight)
        return x

    def parameters(self) -> list[Tensor]:
        return [*self.weights, *self.biases, self.slopes]


@dataclass
class Identity(Result):
    """Mean absolute errors: ``curves[name]`` at each of ``inputs``, averaged over the seeds, and
    ``inside[name]``, ``outside[name]`` for each seed."""

    training_range: tuple[float, float]
    inputs: list[float]
    curves: dict[str, list[float]]
    inside: dict[str, list[float]]
    outside: dict[str, list[float]]

    def table(self) -> list[str]:
        rows = [["network", "|x| <= 5", "5 < |x| <= 20", "ratio"]]
        for name in sorted(self.curves, key=lambda name: median(self.outside[name])):
            inside, outside = median(self.inside[name]), median(self.outside[name])
            ratio = number(outside / inside) if inside else "-"
            rows.append([name, number(inside), number(outside), ratio])
        return [
            "y = x: 3 hidden layers of 8, trained on [-5, 5]; mean absolute error, median of seeds",
            "",
            *columns(rows, (-14, 12, 16, 12)),
        ]

    def claims(self) -> list[str]:
        usual = [name for name in self.curves if name != NAC_STACK]
        ratios = {
            name: median(self.outside[name]) / max(median(self.inside[name]), 1e-12)
            for name in usual
        }
        worse = [name for name in usual if ratios[name] > 2]
        typical = number(median([*ratios.values()]))
        best = min(usual, key=lambda name: median(self.outside[name]))
        exact = [error < 0.01 for error in self.outside[NAC_STACK]]
        return [
            f"y = x: {len(worse)} of {len(usual)} ordinary activations err more than twice as much "
            f"outside the training range as inside; the median factor is {typical}; best outside: "
            f"{best}, {number(median(self.outside[best]))}",
            f"y = x: NAC stack exact outside (error below 0.01): {how_often(exact)}",
        ]


def total_steps(settings: Settings) -> int:
    return _steps(settings) * (1 + settings.seeds)


def _steps(settings: Settings) -> int:
    return max(1, settings.steps * 2 // 3)


def _train_usual(settings: Settings, progress: Progress) -> _Networks:
    """All networks with ordinary activations; those of one seed see the same numbers."""
    networks = _Networks(settings)
    sources = [generator(_KEY, 1, seed) for seed in range(settings.seeds)]

    def draw(count: int) -> Tensor:
        shape = (count, _BATCH, 1)
        drawn = [uniform(source, shape, -INSIDE, INSIDE) for source in sources]
        return torch.stack(drawn, dim=1)  # (count, seeds, batch, 1)

    def loss(x: Tensor) -> Tensor:
        x = x.repeat(len(ACTIVATIONS), 1, 1)
        return (networks(x) - x).square().mean(dim=(1, 2)).sum()

    steps = _steps(settings)
    groups = [Group(networks.parameters(), 0.01, cool_down)]
    train(groups, batches(draw, steps, settings.device), loss, steps, progress)
    return networks


def _train_nac(settings: Settings, seed: int, progress: Progress) -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(*(NAC(fan_in, fan_out) for fan_in, fan_out in pairwise(SIZES)))

    network = build(make, settings.device, _KEY, 2, seed)
    source = generator(_KEY, 1, seed)

    def draw(count: int) -> Tensor:
        return uniform(source, (count, _BATCH, 1), -INSIDE, INSIDE)

    steps = _steps(settings)
    train(
        [Group(list(network.parameters()), 0.05, cool_down)],
        batches(draw, steps, settings.device),
        lambda x: F.mse_loss(network(x), x),
        steps,
        progress,
    )
    return network


def run(settings: Settings, progress: Progress) -> Identity:
    """Trains and tests every network."""
    networks = _train_usual(settings, progress)
    stacks = [_train_nac(settings, seed, progress) for seed in range(settings.seeds)]
    x = torch.linspace(-OUTSIDE, OUTSIDE, 81, device=settings.device)[:, None]
    inside = (x.abs() <= INSIDE).flatten().cpu()
    count = len(ACTIVATIONS) * settings.seeds
    with torch.no_grad():
        usual = (networks(x.expand(count, -1, -1)) - x).abs().cpu()
        nac = torch.stack([(stack(x) - x).abs() for stack in stacks]).cpu()
    errors = dict(zip(ACTIVATIONS, usual[..., 0].chunk(len(ACTIVATIONS)), strict=True))
    errors[NAC_STACK] = nac[..., 0]  # (seeds, inputs)
    return Identity(
        training_range=(-INSIDE, INSIDE),
        inputs=x.flatten().tolist(),
        curves={name: error.mean(dim=0).tolist() for name, error in errors.items()},
        inside={name: error[:, inside].mean(dim=1).tolist() for name, error in errors.items()},
        outside={name: error[:, ~inside].mean(dim=1).tolist() for name, error in errors.items()},
    )
