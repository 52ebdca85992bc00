"""Two hidden operands, one operation: what the static and the recurrent task have in common.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.1, simple function learning.
The operands a and b are sums over two subsets of the numbers shown; the subsets are fixed for a
seed and never told. The target is a + b, a - b, a * b, a / b, a^2 or sqrt(a). The errors are
normalised as in the paper: 0 is perfect and 100 is as bad as an untrained network.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..sweep.tasks import OPERATIONS
from .experiment import Comparison, Experiment, Outcome, Settings, Trial
from .plot import colour, marks
from .report import best, columns, how_often, median, number
from .training import Group, Schedule, Training, build, generator

SOLVED = 0.02  # a seed solves a task if its error outside is below this share of the mean target
UNTRAINED = "untrained"  # the first baseline, as it is initialised


class Arithmetic(Experiment):
    """The tasks, the scores and their table; a subclass has the data and the networks."""

    tasks = tuple(OPERATIONS)
    yardstick = UNTRAINED
    baselines: ClassVar[tuple[str, ...]]  # the last of ``models``
    inside_is: ClassVar[str]  # in words, for the table
    outside_is: ClassVar[str]
    # Of a Group, for each model.
    rates: ClassVar[dict[str, tuple[float, Schedule] | tuple[float, Schedule, float]]]
    # (task, model) to normalised errors inside and outside that somebody printed, and who
    published: ClassVar[dict[tuple[str, str], tuple[str, str]]] = {}
    published_by: ClassVar[str] = ""

    @abstractmethod
    def network(self, model: str) -> nn.Module:
        """From a batch to the answers, (..., 1)."""

    @abstractmethod
    def batches(self, source: torch.Generator, count: int) -> Tensor:
        """``count`` batches to train on, stacked."""

    @abstractmethod
    def test(self, source: torch.Generator, *, outside: bool) -> Tensor:
        """A batch to test on."""

    @abstractmethod
    def operands(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """a and b of a batch, each (batch, 1)."""

    def subsets(self, length: int, size: int, seed: int) -> tuple[list[int], list[int]]:
        """Which of ``length`` numbers a and b sum, none in common: the hidden part of the task."""
        order = torch.randperm(length, generator=generator(self.name, "subsets", seed)).tolist()
        return order[:size], order[size : 2 * size]

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        model = self.baselines[0] if trial.model == UNTRAINED else trial.model
        network = build(
            lambda: self.network(model), training.device, self.name, model, trial.task, trial.seed
        )
        source = generator(self.name, "data", trial.seed)

        def target(x: Tensor) -> Tensor:
            return OPERATIONS[trial.task](*self.operands(x, trial.seed))

        training.fit(
            network,
            [Group(network.parameters(), *self.rates[model])],
            lambda count: self.batches(source, count),
            # The absolute error keeps pulling weights to 1 when it is already small.
            lambda x: F.l1_loss(network(x), target(x)),
            self.steps(trial, settings),
            source=source,
        )
        numbers: dict[str, Any] = {}
        for name in ("inside", "outside"):
            test = generator(self.name, "test", name, trial.seed)
            x = self.test(test, outside=name == "outside").to(training.device)
            with torch.no_grad():
                wanted = target(x)
                numbers[name] = float((network(x) - wanted).abs().mean())
                numbers[f"{name}_target"] = float(wanted.abs().mean())
        return numbers

    def percent(self, outcome: Outcome, metric: str, model: str, task: str) -> list[float]:
        """Errors as percentages of the untrained networks' median error."""
        scale = median(outcome.values(metric, model=UNTRAINED, task=task))
        return [100 * error / scale for error in outcome.values(metric, model=model, task=task)]

    def solved(self, outcome: Outcome, model: str, task: str) -> list[bool]:
        errors = outcome.values("outside", model=model, task=task)
        sizes = outcome.values("outside_target", model=model, task=task)
        return [error < SOLVED * size for error, size in zip(errors, sizes, strict=True)]

    def table(self, outcome: Outcome) -> list[str]:
        rows = [
            ["", "", "inside", "", "", "outside", "", "", ""],
            ["task", "model", "median", "best", "of 100", "median", "best", "of 100", "solved"],
        ]
        models, tasks = self.ran(outcome)
        for task in tasks:
            for place, model in enumerate(models):
                row = ["" if place else task, model]
                for metric in ("inside", "outside"):
                    errors = outcome.values(metric, model=model, task=task)
                    percent = self.percent(outcome, metric, model, task)
                    row += [number(median(errors)), number(best(errors)), number(median(percent))]
                solved = self.solved(outcome, model, task)
                rows.append([*row, f"{sum(solved)}/{len(solved)}"])
        return [
            f"inside: {self.inside_is}; outside: {self.outside_is}",
            "mean absolute error, median and best of seeds; of 100: the median, where 0 is perfect",
            "and 100 an untrained network; solved: seeds that err outside by less than "
            f"{SOLVED:.0%} of the target",
            "",
            *columns(rows, (-9, -8, 10, 10, 10, 12, 10, 10, 10)),
        ]

    def claims(self, outcome: Outcome) -> list[str]:
        models, tasks = self.ran(outcome)
        lines = [
            f"{model} extrapolates {task}: {how_often(self.solved(outcome, model, task))}"
            for model, able in (("NAC", self.tasks[:2]), ("NALU", self.tasks))
            for task in able
            if model in models and task in tasks
        ]
        for model in self.baselines:
            if model not in models:
                continue
            ever = [task for task in tasks if any(self.solved(outcome, model, task))]
            lines.append(f"{model} extrapolates on some seed: {', '.join(ever) or 'nothing'}")
        return lines

    def compare(self, outcome: Outcome) -> list[Comparison]:
        rows = []
        models, tasks = self.ran(outcome)
        for task in tasks:
            for model in models:
                ours = [
                    number(median(self.percent(outcome, metric, model, task)))
                    for metric in ("inside", "outside")
                ]
                theirs = self.published.get((task, model))
                rows.append(
                    Comparison(
                        f"{task}, {model}: error of 100, inside / outside",
                        " / ".join(ours),
                        " / ".join(theirs) if theirs else "",
                        self.published_by if theirs else "",
                    )
                )
        return rows

    def draw(self, figure: Any, outcome: Outcome) -> None:
        axes = figure.subplots()
        models, tasks = self.ran(outcome)
        for place, task in enumerate(tasks):
            if place:
                axes.axvline(place - 0.5, color="0.9", lw=0.8, zorder=0)
            for shift, model in enumerate(models):
                across = place + 0.2 * (shift - (len(models) - 1) / 2)
                for metric, step in (("inside", -0.04), ("outside", 0.04)):
                    errors = self.percent(outcome, metric, model, task)
                    marks(axes, across + step, errors, model, filled=metric == "outside")
        axes.axhline(100, color="0.4", lw=0.8, ls=":")
        axes.text(len(tasks) - 0.5, 130, "untrained", fontsize=7, color="0.35", ha="right")
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set(
            title=f"{self.title}: a mark for each seed",
            ylabel="error, 0 = perfect, 100 = untrained",
            ylim=(low, max(high, 1000)),
            xlim=(-0.5, len(tasks) - 0.5),
        )
        axes.set_xticks(range(len(tasks)), tasks)
        for model in models:
            axes.scatter([], [], color=colour(model), marker="s", s=16, label=model)
        axes.scatter([], [], edgecolor="0.2", facecolor="none", marker="o", s=14, label="inside")
        axes.scatter([], [], color="0.2", marker="^", s=14, label="outside")
        axes.legend(
            ncols=6, fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.06), frameon=False
        )
