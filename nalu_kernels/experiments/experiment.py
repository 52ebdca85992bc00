"""What an experiment is: trials of models on tasks, and what their numbers say."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from .training import Training


class Scale(NamedTuple):
    """How large a run is: seeds 0, 1, ..., seeds - 1, and training steps of a trial."""

    seeds: int
    steps: int


class Trial(NamedTuple):
    """One network trained on one task. Its numbers depend on this and the settings alone."""

    model: str
    task: str
    seed: int


@dataclass(frozen=True)
class Settings:
    """What the user chose. ``options`` are the experiment's own."""

    device: torch.device
    seeds: int
    steps: int
    out: Path
    full: bool = False
    backend: str = "reference"
    options: dict[str, Any] = field(default_factory=dict)


class Outcome:
    """The finished trials of one run, and what was recorded about it: results.json."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.recorded = recorded
        self.seeds: int = recorded["seeds"]
        self.steps: int = recorded["steps"]
        self.full: bool = recorded["full"]
        self.options: dict[str, Any] = recorded["options"]
        self.rows: list[dict[str, Any]] = recorded["trials"]

    def values(self, metric: str, *, model: str, task: str) -> list[Any]:
        """One number (or what else the trial measured) for each seed, in their order."""
        return [row[metric] for row in self.rows if (row["model"], row["task"]) == (model, task)]

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
    requires: ClassVar[tuple[str, ...]] = ()  # packages beyond those that every experiment needs

    def add_options(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027
        """Adds options of the experiment's own; they come back in ``settings.options``."""

    def check(self, settings: Settings) -> None:  # noqa: B027
        """Raises Refusal, before anything is trained, for what cannot be met."""

    def describe(self, settings: Settings) -> dict[str, Any]:
        """What of ``settings.options`` is recorded, and has to be the same to resume a run."""
        return settings.options

    @abstractmethod
    def trials(self, settings: Settings) -> list[Trial]:
        """All trials, in the order of the tables."""

    def steps(self, trial: Trial, settings: Settings) -> int:
        """How many steps the trial's training takes, for the progress bar."""
        return settings.steps

    @abstractmethod
    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        """Trains and tests: the numbers (or lists of them) of one trial, for JSON."""

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


def every(models: list[str] | tuple[str, ...], tasks: list[str], seeds: int) -> list[Trial]:
    """Every model on every task with every seed, a task at a time."""
    return [Trial(model, task, seed) for task in tasks for model in models for seed in range(seeds)]
