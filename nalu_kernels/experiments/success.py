"""When a task counts as solved, and how fast a model trains: what testbench.py and single.py share.

Source of the criterion: Madsen and Johansen 2020, "Neural Arithmetic Units", section 4.1. A trial
is tested every 1,000 steps, on 10,000 samples of the training range (inside) and 10,000 of the
extrapolation range (outside). It has succeeded if, where its mean squared error inside was the
least, the one outside is below the threshold: that of a solution whose weights are off by 1e-5, on
the same samples. The rate over the seeds has Wilson's 95 % interval. "Solved at" is the first test
with an error outside below the threshold; the sparsity error is the largest distance of a weight to
the nearest of -1, 0 and 1. Both are of the trials that succeeded only, as in the paper.

Beside the papers' figures stands how far off the weights are: as the error of slightly wrong
weights grows with the square of what they are wrong by, 1e-5 times the root of error over threshold
is about the weight error that a trial's error outside amounts to. Below 1e-5 is a success, and a
run that is too short for one still tells a model on its way from one that is stuck; near 1 and
beyond it only says that the model is nowhere near a solution.

The training speed is that of the whole step (drawing the batch, forward, loss, backward, Adam) on
one thread, of the plain formulas ("eager", the back end ``reference``) and of this library in turns
of some steps each. It is the one thing here that another run will not reproduce exactly.
"""

from __future__ import annotations

import math
import statistics
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NAC, NALU, reference, use_backend

from .experiment import Experiment, Outcome, Settings, Trial
from .plot import colour, marks
from .report import columns, number
from .training import Group, Stateful, Training, build, generator

TASKS = ("a + b", "a - b", "a * b", "a / b")
SPEED = "speed"  # the task of the trials that measure it
EPSILON = 1e-5
EVERY = 1000  # steps between two tests
RATE = 1e-3  # Adam's, in both papers
BATCH, SAMPLES = 128, 10_000
ROUNDS, STEPS = 7, 192  # of the measurement of speed, and training steps of one model in each


class Problem(Protocol):
    """A task with a seed, which may have drawn something of it."""

    def draw(self, source: torch.Generator, shape: tuple[int, ...], *, outside: bool) -> Tensor:
        """Inputs of shape (*shape, features)."""

    def target(self, x: Tensor) -> Tensor:
        """The answers, (..., 1)."""

    def nearly(self, x: Tensor) -> Tensor:
        """The answers of a solution whose weights are off by EPSILON."""


def threshold(problem: Problem, x: Tensor) -> float:
    """The mean squared error on inputs ``x`` of a solution whose weights are off by EPSILON."""
    x = x.double()
    return float(F.mse_loss(problem.nearly(x), problem.target(x)))


def sparsity_error(network: nn.Module) -> float:
    """How far a weight is from -1, 0 or 1, at most."""
    worst = 0.0
    for layer in network.modules():
        if isinstance(layer, (NAC, NALU)):
            W = reference.weight(layer.W_hat.detach(), layer.M_hat.detach()).abs()
            worst = max(worst, float(torch.minimum(W, 1 - W).max()))
    return worst


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    z = statistics.NormalDist().inv_cdf(0.975)
    rate = successes / total
    middle = rate + z * z / (2 * total)
    reach = z * math.sqrt(rate * (1 - rate) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def rate_and_interval(successes: int, total: int) -> str:
    """For example "31 % (23 to 41)"."""
    low, high = wilson(successes, total)
    return f"{100 * successes / total:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def duration(seconds: float) -> str:
    """In the unit that suits it: "40 s", "7.5 h", "12 days"."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds)} s"


def interval(ends: tuple[float, float]) -> str:
    """For example "[1, 2]"."""
    return f"[{ends[0]:g}, {ends[1]:g}]"


def off_by(value: float) -> str:
    """How far off the weights are, in words where it is not to be taken at its word."""
    return number(value) if value < 1 else "1 or more"


class Checks:
    """The tests of one trial as it trains, and what is kept of them."""

    def __init__(
        self, network: nn.Module, problem: Problem, source: torch.Generator, device: torch.device
    ) -> None:
        inside, outside = (
            problem.draw(source, (SAMPLES,), outside=outside).to(device)
            for outside in (False, True)
        )
        self._network = network
        self._inside = inside, problem.target(inside)
        self._outside = outside, problem.target(outside)
        self._threshold = threshold(problem, outside)
        # of the test with the least error inside
        self._best = {"inside": math.inf, "outside": math.inf, "step": 0, "sparsity": math.inf}
        self._solved_at = math.inf

    def check(self, step: int) -> None:
        """After ``step`` steps."""
        with torch.no_grad():
            inside, outside = (
                float(F.mse_loss(self._network(x), target))
                for x, target in (self._inside, self._outside)
            )
        if inside < self._best["inside"]:
            sparsity = sparsity_error(self._network)
            self._best = {"inside": inside, "outside": outside, "step": step, "sparsity": sparsity}
        if outside < self._threshold:
            self._solved_at = min(self._solved_at, step)

    def after(self, step: int) -> None:
        if (step + 1) % EVERY == 0:
            self.check(step + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "solved_at": self._solved_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._solved_at = state["best"], state["solved_at"]

    def numbers(self) -> dict[str, Any]:
        outside = self._best["outside"]
        return {
            **self._best,
            "threshold": self._threshold,
            "solved": outside < self._threshold,
            "solved_at": self._solved_at,
            "off": EPSILON * math.sqrt(outside / self._threshold),
        }


class Cell(NamedTuple):
    """What the seeds of one model on one task say."""

    successes: int
    total: int
    solved_at: float  # median of the seeds that succeeded; infinity if none did
    sparsity: float  # likewise
    inside: float  # medians of all
    outside: float
    off: float

    @property
    def share(self) -> str:
        return f"{self.successes}/{self.total}"


class Benchmark(Experiment):
    """Trains and judges every pair of ``pairs``; a subclass has the problems and the networks."""

    pairs: ClassVar[tuple[tuple[str, str], ...]]  # models and tasks, in the order of the tables
    tasks = TASKS

    @abstractmethod
    def network(self, model: str) -> nn.Module: ...

    @abstractmethod
    def problem(self, task: str, seed: int) -> Problem: ...

    @abstractmethod
    def operation_and_range(self, task: str) -> tuple[str, str]:
        """The places of a pair's task on the axes of tasks and ranges."""

    def trials(self, seeds: int) -> list[Trial]:
        speeds = [Trial(model, SPEED, 0) for model in self.models]
        return [Trial(*pair, seed) for pair in self.pairs for seed in range(seeds)] + speeds

    def place(self, trial: Trial) -> dict[str, str]:
        if trial.task == SPEED:
            return {"models": trial.model}
        operation, numbers = self.operation_and_range(trial.task)
        return {"models": trial.model, "tasks": operation, "ranges": numbers}

    def judged(self, outcome: Outcome) -> list[tuple[str, str]]:
        """Those of ``pairs`` that have run."""
        found = {(row["model"], row["task"]) for row in outcome.rows}
        return [pair for pair in self.pairs if pair in found]

    def steps(self, trial: Trial, settings: Settings) -> int:
        return 0 if trial.task == SPEED else settings.steps

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        if trial.task == SPEED:
            return self._speed(trial.model, settings)
        key = (self.name, trial.model, trial.task, trial.seed)
        network = build(lambda: self.network(trial.model), training.device, *key)
        problem = self.problem(trial.task, trial.seed)
        test = generator(self.name, "test", trial.task, trial.seed)
        checks = Checks(network, problem, test, training.device)
        checks.check(0)
        source = generator(self.name, "data", trial.task, trial.seed)
        self._fit(network, problem, source, training, settings.steps, checks.after, checks=checks)
        if settings.steps % EVERY:
            checks.check(settings.steps)
        return checks.numbers()

    def _fit(
        self,
        network: nn.Module,
        problem: Problem,
        source: torch.Generator,
        training: Training,
        steps: int,
        after: Callable[[int], None] = lambda step: None,
        **stateful: Stateful,
    ) -> None:
        training.fit(
            network,
            [Group(network.parameters(), RATE)],
            lambda count: problem.draw(source, (count, BATCH), outside=False),
            lambda x: F.mse_loss(network(x), problem.target(x)),
            steps,
            after=after,
            source=source,
            **stateful,
        )

    def _speed(self, model: str, settings: Settings) -> dict[str, Any]:
        """Steps per second, median of rounds; the rounds too."""
        task = next(task for name, task in self.pairs if name == model)
        rounds: dict[str, list[float]] = {"eager": [], "library": []}
        for turn in range(ROUNDS + 1):
            for name, backend in (("eager", "reference"), ("library", settings.backend)):
                network = build(lambda: self.network(model), settings.device, SPEED, turn)
                source = generator(SPEED, turn)
                with use_backend(backend):
                    started = time.perf_counter()
                    self._fit(
                        network, self.problem(task, 0), source, Training(settings.device), STEPS
                    )
                    next(network.parameters()).sum().item()  # waits for a GPU
                    seconds = time.perf_counter() - started
                if turn:  # the first warms up
                    rounds[name].append(STEPS / seconds)
        medians: dict[str, Any] = {name: statistics.median(of) for name, of in rounds.items()}
        return {**medians, "rounds": rounds}

    def cell(self, outcome: Outcome, model: str, task: str) -> Cell:
        values = {
            metric: outcome.values(metric, model=model, task=task)
            for metric in ("solved", "solved_at", "sparsity", "inside", "outside", "off")
        }
        solved = values["solved"]

        def of_solved(metric: str) -> float:
            chosen = [value for value, yes in zip(values[metric], solved, strict=True) if yes]
            return statistics.median(chosen) if chosen else math.inf

        return Cell(
            sum(solved),
            len(solved),
            of_solved("solved_at"),
            of_solved("sparsity"),
            *(statistics.median(values[metric]) for metric in ("inside", "outside", "off")),
        )

    def speed(self, outcome: Outcome, model: str) -> tuple[float, float]:
        """Steps per second, eager and of this library."""
        eager, library = (
            outcome.values(name, model=model, task=SPEED)[0] for name in ("eager", "library")
        )
        return eager, library

    def published_size(self, outcome: Outcome, model: str) -> tuple[float, float]:
        """Seconds for all trials of ``model`` in the published size, one by one, likewise."""
        tasks = sum(name == model for name, _ in self.pairs)
        steps = tasks * self.full.seeds * self.full.steps
        eager, library = self.speed(outcome, model)
        return steps / eager, steps / library

    def trial_times(self, outcome: Outcome, model: str) -> str:
        """Of one trial of the published size, "eager / this library"."""
        times = [duration(self.full.steps / rate) for rate in self.speed(outcome, model)]
        return " / ".join(times)

    def speed_table(self, outcome: Outcome) -> list[str]:
        rows = [
            ["", "steps per second", "", "", "published size, here", ""],
            ["model", "eager", "this library", "times", "eager", "this library"],
        ]
        for model in outcome.models:
            eager, library = self.speed(outcome, model)
            size = [duration(seconds) for seconds in self.published_size(outcome, model)]
            ratio = number(library / eager)
            rows.append([model, f"{eager:,.0f}", f"{library:,.0f}", ratio, *size])
        return [
            f"one thread, median of {ROUNDS} interleaved rounds; published: "
            f"{self.full.seeds} seeds, {self.full.steps:,} steps",
            "",
            *columns(rows, (-9, 17, 14, 9, 20, 14)),
        ]

    def speed_claim(self, outcome: Outcome) -> str:
        ratios = []
        for model in outcome.models:
            eager, library = self.speed(outcome, model)
            ratios.append(f"{model} {number(library / eager)} times")
        eager, library = (
            sum(sizes)
            for sizes in zip(
                *(self.published_size(outcome, model) for model in outcome.models), strict=True
            )
        )
        these = "" if len(outcome.models) == len(self.models) else " of these models"
        return (
            f"training steps per second against the plain formulas: {', '.join(ratios)}; the "
            f"published size{these} would take {duration(library)} here instead of "
            f"{duration(eager)}, one trial after another and without the tests"
        )

    def success_claim(self, outcome: Outcome) -> str:
        judged = self.judged(outcome)
        solved = sum(self.cell(outcome, *pair).successes > 0 for pair in judged)
        return (
            f"after {outcome.steps:,} steps, {100 * outcome.steps / self.full.steps:.3g} % of the "
            f"published length, some seed has solved {solved} of {len(judged)} pairs of model "
            "and task"
        )

    def draw_speed(self, axes: Any, outcome: Outcome) -> None:
        """Bars: eager pale, this library in the model's colour."""
        for place, model in enumerate(outcome.models):
            for shift, rate in zip((-0.2, 0.2), self.speed(outcome, model), strict=True):
                fill = colour(model) if shift > 0 else "0.8"
                axes.bar(place + shift, rate, width=0.38, color=fill)
        axes.bar(0, 0, color="0.8", label="plain formulas")
        axes.bar(0, 0, color="0.4", label="this library")
        axes.set(title="training steps per second", ylim=(0, axes.get_ylim()[1] * 1.2))
        axes.set_xticks(range(len(outcome.models)), outcome.models)
        axes.legend(fontsize=6.5, loc="upper left")


def draw_off(axes: Any, across: float, off: Sequence[float], model: str) -> None:
    """A mark for each seed: how far off its weights are."""
    marks(axes, across, off, model, filled=True, floor=EPSILON / 100, ceiling=1.0)


def draw_solved(axes: Any, ticks: Sequence[str]) -> None:
    """The axes of those marks, with the line below which all is solved."""
    axes.set(yscale="log", ylim=(EPSILON / 150, 2), xlim=(-0.5, len(ticks) - 0.5))
    axes.axhline(EPSILON, color="0.4", lw=0.8, ls=":")
    place = {"ha": "right", "va": "top", "fontsize": 7, "color": "0.35"}
    axes.text(len(ticks) - 0.5, EPSILON * 0.8, "solved", **place)
    axes.set_xticks(range(len(ticks)), ticks)
