"""What an experiment is: trials of models on tasks, and what their numbers say."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch

from nalu_kernels import which_backend

from .training import Training

AXES = ("models", "tasks", "ranges")  # on which an experiment can be narrowed


class Scale(NamedTuple):
    """How large a run is: seeds 0, 1, ..., seeds - 1, and training steps of a trial, or what its
    experiment counts in their place."""

    seeds: int
    steps: int


class Trial(NamedTuple):
    """One network trained on one task. Its numbers depend on this and the settings alone."""

    model: str
    task: str
    seed: int


Finished: TypeAlias = "tuple[Trial, float, dict[str, Any]]"  # with its seconds and its numbers


@dataclass(frozen=True)
class Settings:
    """What the user chose. ``options`` are the experiment's own, ``narrowed`` is a Choice of
    narrowing.py."""

    device: torch.device
    seeds: int
    steps: int
    out: Path
    full: bool = False
    backend: str = "reference"
    options: dict[str, Any] = field(default_factory=dict)
    narrowed: dict[str, list[str]] = field(default_factory=dict)


class Outcome:
    """The finished trials of one run, and what was recorded about it: results.json."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.recorded = recorded
        self.seeds: int = recorded["seeds"]
        self.steps: int = recorded["steps"]
        self.full: bool = recorded["full"]
        self.options: dict[str, Any] = recorded["options"]
        self.narrowed: dict[str, list[str]] = recorded.get("narrowed", {})
        self.rows: list[dict[str, Any]] = recorded["trials"]

    def values(self, metric: str, *, model: str, task: str) -> list[Any]:
        """One number (or what else the trial measured) for each seed, in their order."""
        return [row[metric] for row in self.rows if (row["model"], row["task"]) == (model, task)]

    @property
    def on_cpu(self) -> bool:
        return bool(self.recorded["device"] == "cpu")

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(row["model"] for row in self.rows))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(row["task"] for row in self.rows))


class Comparison(NamedTuple):
    """A figure of ours beside one that was published; ``published`` is empty, and ``source`` too,
    where none could be sourced."""

    what: str
    ours: str
    published: str
    source: str


class Experiment(ABC):
    """One task family. Each module of this package that is one ends with its ``EXPERIMENT``."""

    name: ClassVar[str]
    title: ClassVar[str]  # a line for the list of experiments
    source: ClassVar[str]  # paper, section
    differs: ClassVar[str]  # where the task or the models are not the published ones, and why
    small: ClassVar[Scale]
    full: ClassVar[Scale]  # the published size where it is known, else a large one
    unit: ClassVar[str] = "steps"  # what a Scale's steps are
    requires: ClassVar[tuple[str, ...]] = ()  # packages beyond those that every experiment needs
    # The names on its axes, in the order of the tables.
    models: ClassVar[tuple[str, ...]]
    tasks: ClassVar[tuple[str, ...]]
    ranges: ClassVar[tuple[str, ...]] = ()  # none where the experiment has no such axis
    yardstick: ClassVar[str | None] = None  # a model that is not trained, beside all others

    def add_options(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027
        """Adds options of the experiment's own; they come back in ``settings.options``."""

    def check(self, settings: Settings) -> None:  # noqa: B027
        """Raises Refusal, before anything is trained, for what cannot be met."""

    def describe(self, settings: Settings) -> dict[str, Any]:
        """What of ``settings.options`` is recorded, and has to be the same to resume a run."""
        return settings.options

    def backend(self, device: torch.device) -> tuple[str, str]:
        """What its networks run on there, and why."""
        return which_backend(torch.empty(1, device=device))

    def axes(self) -> dict[str, tuple[str, ...]]:
        """Its axes, and the names on each."""
        return {axis: names for axis in AXES if (names := getattr(self, axis))}

    def trials(self, seeds: int) -> list[Trial]:
        """All trials, in the order of the tables: every model on every task with every seed."""
        models = [*self.models, *([self.yardstick] if self.yardstick else [])]
        return [
            Trial(model, task, seed)
            for task in self.tasks
            for model in models
            for seed in range(seeds)
        ]

    def ran(self, outcome: Outcome) -> tuple[list[str], list[str]]:
        """The models and the tasks that have run, without the yardstick."""
        models = [model for model in self.models if model in outcome.models]
        return models, [task for task in self.tasks if task in outcome.tasks]

    def place(self, trial: Trial) -> dict[str, str]:
        """The trial's name on each axis that it has a place on."""
        place = {"models": trial.model, "tasks": trial.task}
        if trial.model == self.yardstick:
            del place["models"]
        return place

    def steps(self, trial: Trial, settings: Settings) -> int:
        """How many steps the trial's training takes, for the progress bar."""
        return 0 if trial.model == self.yardstick else settings.steps

    @abstractmethod
    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        """Trains and tests: the numbers (or lists of them) of one trial, for JSON."""

    # Of a narrowed run, these speak of what has run alone.

    @abstractmethod
    def table(self, outcome: Outcome) -> list[str]:
        """The lines of its table, at most 100 columns wide."""

    @abstractmethod
    def claims(self, outcome: Outcome) -> list[str]:
        """What the numbers say, computed from them."""

    @abstractmethod
    def compare(self, outcome: Outcome) -> list[Comparison]:
        """Figures of ours beside published ones."""

    @abstractmethod
    def draw(self, figure: Any, outcome: Outcome) -> None:
        """Draws the plot into a matplotlib Figure."""
