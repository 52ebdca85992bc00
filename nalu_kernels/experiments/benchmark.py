"""What the benchmarks share: trainings by nalu_kernels.sweep, and how many succeed.

Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 4.1. A trial is a run of a
sweep, in batches of 128, on the mean squared error, with Adam, at 0.001 where published.py has
nothing else for the layer. It is tested every 1,000
steps, on 10,000 samples of the training range (inside) and 10,000 of the extrapolation range
(outside). It has succeeded if, where its error inside was the least (of inalu.py at the last test),
the one outside is below the threshold; sweep/success.py has the rules for that. The rate over the
seeds has Wilson's 95 % interval. "Solved at" is the first test with an error outside below the
threshold; the sparsity error is the largest distance of a weight to the nearest of -1, 0 and 1.
Both are of the trials that succeeded only, as in the papers.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import repeat
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nalu_kernels import sweep, use_backend
from nalu_kernels.sweep.success import FLAT, wilson

from .experiment import Experiment, Finished, Outcome, Settings, Trial
from .plot import colour
from .report import number
from .training import Training

TASKS = ("a + b", "a - b", "a * b", "a / b")
RATE, BATCH = 1e-3, 128
EVERY = 1000  # steps between two tests
SAMPLES = 10_000  # of each test
# Training steps in a call of the trainer, at most, as long as every thread has a run: what a
# process that is killed loses.
_CALL = 12_000_000


def rate_and_interval(successes: int, total: int) -> str:
    """For example "31 % (23 to 41)"."""
    low, high = wilson(successes, total)
    return f"{100 * successes / total:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def meet(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two intervals have something in common."""
    return first[0] <= second[1] and second[0] <= first[1]


def duration(seconds: float) -> str:
    """In the unit that suits it: "40 s", "7.5 h", "12 days"."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds)} s"


def interval(ends: tuple[float, float]) -> str:
    """For example "[1, 2]"."""
    return f"[{ends[0]:g}, {ends[1]:g}]"


def eager_step(network: nn.Module, inputs: int, device: torch.device, seconds: float) -> float:
    """Processor seconds of a training step of the plain formulas, mean of those that fit in so
    long."""
    network = network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    steps, started, passed = -1, 0.0, 0.0
    with torch.random.fork_rng(devices=[]), use_backend("reference"):
        while passed < seconds:
            x = torch.rand(BATCH, inputs, device=device)
            optimizer.zero_grad()
            nn.functional.mse_loss(network(x), x[:, :1]).backward()
            optimizer.step()
            steps += 1
            started = started or time.process_time()  # after the first, which is slow
            passed = time.process_time() - started
    return passed / steps


def normal_start(
    template: nn.Module,
    sources: Sequence[torch.Generator],
    means: Mapping[str, float],
    std: float,
) -> dict[str, Tensor]:
    """Parameters to begin with, a row of each from each source: normal, with the means by the
    first letters of their names."""
    drawn = [
        {
            name: means[name[0]] + std * torch.randn(tensor.shape, generator=source)
            for name, tensor in template.named_parameters()
        }
        for source in sources
    ]
    return {name: torch.stack([row[name] for row in drawn]) for name in drawn[0]}


class Cell(NamedTuple):
    """What the seeds of one model on one task say."""

    solved: int
    total: int
    flat: int  # of them below the flat threshold
    solved_at: float  # median of the seeds that succeeded; NaN if none did
    sparsity: float  # likewise

    @property
    def share(self) -> str:
        return f"{self.solved}/{self.total}"

    @property
    def step(self) -> str:
        return f"{self.solved_at:,.0f}" if self.solved else "-"

    @property
    def off(self) -> str:
        return number(self.sparsity) if self.solved else "-"


class Benchmark(Experiment):
    """Trains and judges every pair of ``pairs``; a subclass has the tasks and the networks."""

    pairs: ClassVar[tuple[tuple[str, str], ...]]  # models and tasks, in the order of the tables
    success: ClassVar[str | float]  # the rule, as sweep.run takes it
    tasks: ClassVar[tuple[str, ...]] = TASKS
    optimizer: ClassVar[str] = "adam"
    batch: ClassVar[int] = BATCH

    @abstractmethod
    def network(self, model: str, operation: str) -> nn.Module: ...

    @abstractmethod
    def arithmetic(self, operation: str) -> sweep.Arithmetic:
        """The task of this place on the axis of tasks."""

    @abstractmethod
    def operation_and_range(self, task: str) -> tuple[str, str]:
        """The places of a pair's task on the axes of tasks and ranges."""

    def columns(self, model: str, task: str) -> dict[str, Any]:
        """Of a pair's run: ranges that are not those of ``arithmetic``, and how its layers are
        trained."""
        return {}

    def initial(self, trials: Sequence[Trial]) -> dict[str, Tensor] | None:
        """Parameters to begin with, a row a trial; None for those of the layers."""
        return None

    def judge(self, result: sweep.Result) -> dict[str, list[Any]]:
        """What has come of the runs: columns, with the names of the result's own."""
        return result.columns()

    def trials(self, seeds: int) -> list[Trial]:
        return [Trial(*pair, seed) for pair in self.pairs for seed in range(seeds)]

    def place(self, trial: Trial) -> dict[str, str]:
        operation, numbers = self.operation_and_range(trial.task)
        return {"models": trial.model, "tasks": operation, "ranges": numbers}

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        [[(_, _, numbers)]] = self.train([trial], settings, threads=1)
        return numbers

    def train(
        self, trials: Sequence[Trial], settings: Settings, threads: int
    ) -> Iterator[list[Finished]]:
        """Many trials at once, with the numbers that ``run`` has: what has finished, now and then.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM, after what had finished.
        """
        by_place = self._cells(trials)
        cells = list(by_place.values())
        with torch.random.fork_rng(devices=[]):  # templates, whose weights are not used
            networks = [self.network(*place) for place in by_place]
        for (model, operation), cell in by_place.items():
            print(f"{model} on {operation}: {len(cell)} to train", flush=True)
        if torch.device(settings.device).type == "cuda":
            yield from self._all_at_once(networks, cells, settings)
            return
        for network, cell in zip(networks, cells, strict=True):
            size = max(threads, _CALL // self.steps(cell[0], settings))
            for first in range(0, len(cell), size):
                some = cell[first : first + size]
                result = self._sweep(network, some, settings, threads=threads)
                yield list(_finished(some, self.judge(result)))
                if result.stopped:
                    raise KeyboardInterrupt

    def _all_at_once(
        self, networks: Sequence[nn.Module], cells: Sequence[list[Trial]], settings: Settings
    ) -> Iterator[list[Finished]]:
        """On a GPU, which one cell does not fill: each has a thread, and a stream there. Where one
        fails, or has to stop, all stop, and what has finished comes first."""
        leaving = threading.Event()

        def goes_on(_: sweep.Event) -> bool:
            return not leaving.is_set()

        def train(network: nn.Module, cell: list[Trial]) -> list[Finished]:
            with torch.cuda.stream(torch.cuda.Stream(settings.device)):
                result = self._sweep(
                    network, cell, settings, backend=settings.backend, callback=goes_on
                )
            return list(_finished(cell, self.judge(result)))

        with ThreadPoolExecutor(len(cells)) as pool:
            left = set(map(pool.submit, repeat(train), networks, cells))
            failed: BaseException | None = None
            while left:
                try:
                    done = next(as_completed(left))
                    left.remove(done)
                    yield done.result()
                except GeneratorExit:
                    leaving.set()
                    raise
                except BaseException as error:
                    leaving.set()
                    failed = failed or error
        if failed is not None:
            raise failed

    def _sweep(
        self, network: nn.Module, trials: Sequence[Trial], settings: Settings, **options: Any
    ) -> sweep.Result:
        """Of trials that have the model and the operation in common."""
        operation, _ = self.operation_and_range(trials[0].task)
        return sweep.run(
            network,
            self.arithmetic(operation),
            [{"seed": trial.seed, **self.columns(trial.model, trial.task)} for trial in trials],
            steps=self.steps(trials[0], settings),
            batch_size=self.batch,
            test_every=EVERY,
            optimizer=self.optimizer,
            success=self.success,
            initial=self.initial(trials),
            device=settings.device,
            **options,
        )

    def by_eager(self, trials: Sequence[Trial], settings: Settings) -> str:
        """How long eager PyTorch would take for the steps of these trials, one after the other;
        it is measured for a second."""
        places = self._cells(trials)
        took = {}
        for model, operation in places:
            inputs = self.arithmetic(operation).in_features
            if (model, inputs) not in took:
                network = self.network(model, operation)
                took[model, inputs] = eager_step(network, inputs, settings.device, 1 / len(places))
        whole = sum(
            took[model, self.arithmetic(operation).in_features] * self.steps(trial, settings)
            for (model, operation), cell in places.items()
            for trial in cell
        )
        steps = ", ".join(
            f"{model} of {inputs} inputs {number(1e6 * seconds)} µs"
            for (model, inputs), seconds in took.items()
        )
        return (
            f"eager PyTorch would take one core about {duration(whole)} for that: a step of {steps}"
        )

    def _cells(self, trials: Sequence[Trial]) -> dict[tuple[str, str], list[Trial]]:
        """By model and operation, which a call of the trainer has in common."""
        cells: dict[tuple[str, str], list[Trial]] = {}
        for trial in trials:
            operation, _ = self.operation_and_range(trial.task)
            cells.setdefault((trial.model, operation), []).append(trial)
        return cells

    def judged(self, outcome: Outcome) -> list[tuple[str, str]]:
        """Those of ``pairs`` that have run."""
        found = {(row["model"], row["task"]) for row in outcome.rows}
        return [pair for pair in self.pairs if pair in found]

    def cell(self, outcome: Outcome, model: str, *tasks: str) -> Cell:
        """Of all seeds on these tasks."""
        rows = [row for row in outcome.rows if row["model"] == model and row["task"] in tasks]
        solved = [row for row in rows if row["status"] == "solved"]
        solved_at, sparsity = (
            statistics.median(row[metric] for row in solved) if solved else math.nan
            for metric in ("solved_at", "sparsity")
        )
        flat = sum(row["outside"] < FLAT for row in rows)
        return Cell(len(solved), len(rows), flat, solved_at, sparsity)

    def diverged(self, outcome: Outcome) -> list[str]:
        count = sum(row["status"] == "diverged" for row in outcome.rows)
        return [f"trials that diverged, a weight became NaN: {count}"] if count else []

    def seconds(self, outcome: Outcome, model: str) -> float:
        """That a trial takes on one core, or among others on a GPU, median."""
        return statistics.median(row["seconds"] for row in outcome.rows if row["model"] == model)

    def speed_claim(self, outcome: Outcome) -> str:
        steps = ", ".join(
            f"{model} {number(1e6 * self.seconds(outcome, model) / outcome.steps)} µs"
            for model in outcome.models
        )
        trials = len(self.pairs) * self.full.seeds
        full = sum(
            self.seconds(outcome, model) * sum(name == model for name, _ in self.pairs)
            for model in outcome.models
        )
        where = "takes, on one core" if outcome.on_cpu else "took, beside all others on the GPU"
        claim = f"a training step with its share of the tests {where}: {steps}"
        if not outcome.on_cpu or set(outcome.models) < set(self.models):
            return claim
        full *= self.full.seeds * self.full.steps / outcome.steps
        return (
            f"{claim}; all {trials:,} trials of the published size take one core {duration(full)}"
        )


def _finished(trials: Sequence[Trial], table: dict[str, list[Any]]) -> Iterator[Finished]:
    for place, trial in enumerate(trials):
        row = {name: column[place] for name, column in table.items()}
        if row["status"] in ("interrupted", "not_run"):
            continue
        numbers = {
            "status": row["status"],
            "solved_at": row["solved_at"],
            "inside": row["error_inside"],
            "outside": row["error_outside"],
            "step": row["best_step"],
            "sparsity": row["sparsity"],
        }
        yield trial, row["seconds"], numbers


def draw_rate(
    axes: Any, across: float, successes: int, total: int, model: str, *, filled: bool = True
) -> None:
    """A mark with its interval."""
    rate, (low, high) = successes / total, wilson(successes, total)
    axes.errorbar(
        across,
        100 * rate,
        yerr=[[100 * max(0.0, rate - low)], [100 * max(0.0, high - rate)]],
        fmt="o",
        markersize=3.5,
        color=colour(model),
        markerfacecolor=colour(model) if filled else "white",
        linewidth=1,
    )
