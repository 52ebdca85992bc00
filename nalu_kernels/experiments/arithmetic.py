"""Two hidden operands, one operation: the paper's simple function learning tasks.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.1, the static task. The input
is a vector x, the operands a and b are sums over two subsets of it that are fixed for a seed and
never shown, and the target is a + b, a - b, a * b, a / b, a^2 or sqrt(a). Every model has two
layers and a hidden width of 2.

Here x has 6 numbers (the paper: 100, and far longer training), a and b are sums of 2 of them with
none in common; x is uniform on [1, 4] in training and on [4, 8] in the test outside. Positive
inputs, because the logarithm in NALU forgets signs. The loss is the mean absolute error, which,
unlike the squared one, keeps pulling weights to 1 when the error is already small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NAC, NALU

from .report import best, columns, how_often, median, number
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

OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a^2": lambda a, b: a * a,
    "sqrt(a)": lambda a, b: a.sqrt(),
}
LAYERS: dict[str, type[NAC] | type[NALU]] = {"NAC": NAC, "NALU": NALU}
BASELINES: dict[str, Callable[[Tensor], Tensor]] = {"ReLU6": F.relu6, "Linear": lambda x: x}
LENGTH, SUBSET, HIDDEN = 6, 2, 2
INSIDE, OUTSIDE = (1.0, 4.0), (4.0, 8.0)
SOLVED = 0.02  # a seed solves a task if its error outside is below this share of the mean target
_BATCH, _TEST = 64, 1000
_KEY = 2  # of this experiment's generators


@dataclass
class Scores:
    """Of one model on one task, for each seed: mean absolute errors; the same as a percentage of
    the median error of untrained ReLU6 networks on that task (0 is perfect, 100 random, as in the
    paper); whether it is solved."""

    inside: list[float]
    outside: list[float]
    inside_percent: list[float]
    outside_percent: list[float]
    solved: list[bool]


@dataclass
class Arithmetic(Result):
    """``scores[operation][model]``, and the ranges of x."""

    training_range: tuple[float, float]
    test_range: tuple[float, float]
    solved_below: float
    scores: dict[str, dict[str, Scores]]

    def _row(self, operation: str, model: str) -> list[str]:
        scores = self.scores[operation][model]
        cells = []
        for errors, percent in (
            (scores.inside, scores.inside_percent),
            (scores.outside, scores.outside_percent),
        ):
            cells += [number(median(errors)), number(best(errors)), number(median(percent))]
        return [model, *cells, f"{sum(scores.solved)}/{len(scores.solved)}"]

    def table(self) -> list[str]:
        rows = [
            ["", "", "inside", "", "", "outside", "", "", ""],
            ["task", "model", "median", "best", "of 100", "median", "best", "of 100", "solved"],
        ]
        for operation, models in self.scores.items():
            for place, model in enumerate(models):
                rows.append(["" if place else operation, *self._row(operation, model)])
        (low, high), (far_low, far_high) = self.training_range, self.test_range
        return [
            f"arithmetic: a, b hidden sums of {SUBSET} of {LENGTH} numbers, in [{low:g}, {high:g}] "
            f"inside (training), [{far_low:g}, {far_high:g}] outside",
            "mean absolute error, median and best of seeds; of 100: the median, where 0 is perfect",
            "and 100 an untrained network; solved: seeds that err outside by less than "
            f"{self.solved_below:.0%} of the target",
            "",
            *columns(rows, (-9, -8, 10, 10, 10, 12, 10, 10, 10)),
        ]

    def claims(self) -> list[str]:
        lines = []
        for model, operations in (("NAC", ("a + b", "a - b")), ("NALU", tuple(self.scores))):
            for operation in operations:
                solved = self.scores[operation][model].solved
                lines.append(f"{model} extrapolates {operation}: {how_often(solved)}")
        for model in BASELINES:
            ever = [name for name, models in self.scores.items() if any(models[model].solved)]
            lines.append(
                f"{model} baseline extrapolates on some seed: {', '.join(ever) or 'nothing'}"
            )
        return lines


def _subsets(seed: int) -> Tensor:
    """(2, LENGTH) ones and zeros: which numbers a and b sum. The hidden part of the task."""
    order = torch.randperm(LENGTH, generator=generator(_KEY, 0, seed))
    chosen = torch.zeros(2, LENGTH)
    chosen[0, order[:SUBSET]] = 1
    chosen[1, order[SUBSET : 2 * SUBSET]] = 1
    return chosen


def _target(operation: str, x: Tensor, subsets: Tensor) -> Tensor:
    """x (..., batch, LENGTH), subsets (..., 2, LENGTH) to (..., batch, 1)."""
    a, b = (x @ subsets.mT).split(1, dim=-1)
    return OPERATIONS[operation](a, b)


class _Baseline:
    """The networks of all seeds and all operations for one baseline, trained as one batch.

    (operation, seed, in, out): Adam works on each number by itself, so they do not feel each other.
    """

    def __init__(self, settings: Settings, activation: Callable[[Tensor], Tensor]) -> None:
        self.activation = activation
        self.parameters: list[Tensor] = []
        sources = [generator(_KEY, 3, seed) for seed in range(settings.seeds)]
        for fan_in, fan_out in ((LENGTH, HIDDEN), (HIDDEN, 1)):
            bound = 1 / math.sqrt(fan_in)  # torch.nn.Linear's
            for rows in (fan_in, 1):
                shape = (len(OPERATIONS), rows, fan_out)
                drawn = [uniform(source, shape, -bound, bound) for source in sources]
                stacked = torch.stack(drawn, dim=1).to(settings.device)
                self.parameters.append(stacked.requires_grad_())

    def __call__(self, x: Tensor) -> Tensor:
        """x (seeds, batch, LENGTH) to (operations, seeds, batch, 1)."""
        first, first_bias, second, second_bias = self.parameters
        return self.activation(x @ first + first_bias) @ second + second_bias


def _targets(x: Tensor, subsets: Tensor) -> Tensor:
    """Of every operation: (operations, seeds, batch, 1)."""
    return torch.stack([_target(operation, x, subsets) for operation in OPERATIONS])


def _train_baseline(
    network: _Baseline, subsets: Tensor, settings: Settings, progress: Progress
) -> None:
    sources = [generator(_KEY, 1, seed) for seed in range(settings.seeds)]

    def draw(count: int) -> Tensor:
        shape = (count, _BATCH, LENGTH)
        return torch.stack([uniform(source, shape, *INSIDE) for source in sources], dim=1)

    def loss(x: Tensor) -> Tensor:
        return (network(x) - _targets(x, subsets)).abs().mean(dim=(2, 3)).sum()

    inputs = batches(draw, settings.steps, settings.device)
    groups = [Group(network.parameters, 0.03, cool_down)]
    train(groups, inputs, loss, settings.steps, progress)


def _train_layers(
    layer: type[NAC] | type[NALU],
    operation: str,
    seed: int,
    subsets: Tensor,
    settings: Settings,
    progress: Progress,
) -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(layer(LENGTH, HIDDEN), layer(HIDDEN, 1))

    place = list(OPERATIONS).index(operation)
    network = build(make, settings.device, _KEY, 4 + place, seed)
    source = generator(_KEY, 1, seed)

    def draw(count: int) -> Tensor:
        return uniform(source, (count, _BATCH, LENGTH), *INSIDE)

    train(
        [Group(list(network.parameters()), 0.1, cool_down)],
        batches(draw, settings.steps, settings.device),
        lambda x: F.l1_loss(network(x), _target(operation, x, subsets)),
        settings.steps,
        progress,
    )
    return network


def total_steps(settings: Settings) -> int:
    single = len(OPERATIONS) * len(LAYERS) * settings.seeds
    return settings.steps * (len(BASELINES) + single)


class _Tests(NamedTuple):
    """x inside and outside, each (seeds, _TEST, LENGTH), and the targets of every operation."""

    inputs: list[Tensor]
    targets: list[Tensor]

    @classmethod
    def draw(cls, subsets: Tensor) -> _Tests:
        inputs = []
        for place, interval in enumerate((INSIDE, OUTSIDE)):
            sources = [generator(_KEY, 2, seed, place) for seed in range(len(subsets))]
            drawn = [uniform(source, (_TEST, LENGTH), *interval) for source in sources]
            inputs.append(torch.stack(drawn).to(subsets.device))
        return cls(inputs, [_targets(x, subsets) for x in inputs])

    @torch.no_grad()
    def baseline_errors(self, network: _Baseline) -> Tensor:
        """(2, operations, seeds): mean absolute errors inside and outside."""
        both = zip(self.inputs, self.targets, strict=True)
        return torch.stack([(network(x) - y).abs().mean(dim=(2, 3)) for x, y in both]).cpu()

    @torch.no_grad()
    def errors(self, network: nn.Module, operation: int, seed: int) -> Tensor:
        """(2,): mean absolute errors inside and outside."""
        both = zip(self.inputs, self.targets, strict=True)
        return torch.stack([(network(x[seed]) - y[operation, seed]).abs().mean() for x, y in both])


def run(settings: Settings, progress: Progress) -> Arithmetic:
    """Trains and tests every model on every operation."""
    seeds = range(settings.seeds)
    subsets = torch.stack([_subsets(seed) for seed in seeds]).to(settings.device)
    tests = _Tests.draw(subsets)
    errors = {name: torch.empty(2, len(OPERATIONS), settings.seeds) for name in LAYERS}
    for name, layer in LAYERS.items():
        for place, operation in enumerate(OPERATIONS):
            for seed in seeds:
                network = _train_layers(layer, operation, seed, subsets[seed], settings, progress)
                errors[name][:, place, seed] = tests.errors(network, place, seed)
    untrained = tests.baseline_errors(_Baseline(settings, F.relu6))
    for name, activation in BASELINES.items():
        baseline = _Baseline(settings, activation)
        _train_baseline(baseline, subsets, settings, progress)
        errors[name] = tests.baseline_errors(baseline)
    return _score(errors, untrained, tests.targets[1].abs().mean(dim=(2, 3)).cpu())


def _score(errors: dict[str, Tensor], untrained: Tensor, size: Tensor) -> Arithmetic:
    """From errors (2, operations, seeds), inside and outside, and the mean absolute targets
    outside (operations, seeds)."""
    percent = 100 / untrained.median(dim=2, keepdim=True).values
    scores: dict[str, dict[str, Scores]] = {operation: {} for operation in OPERATIONS}
    for model, error in errors.items():
        share = error * percent
        solved = error[1] < SOLVED * size
        for place, operation in enumerate(OPERATIONS):
            scores[operation][model] = Scores(
                inside=error[0, place].tolist(),
                outside=error[1, place].tolist(),
                inside_percent=share[0, place].tolist(),
                outside_percent=share[1, place].tolist(),
                solved=solved[place].tolist(),
            )
    return Arithmetic(INSIDE, OUTSIDE, SOLVED, scores)
