"""What the experiments share: settings, random numbers, the training loop, progress.

Random numbers are drawn on the CPU from generators keyed by seed and purpose, so that a seed means
the same data and the same initial weights whatever else runs and whatever the device.
"""

from __future__ import annotations

import importlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
Schedule = Callable[[float], float]  # progress from 0 to 1 -> factor of the learning rate

_CHUNK = 64  # batches drawn at a time: a draw costs as much as a tiny layer


class Refusal(ValueError):
    """The request cannot be met; the message is the whole explanation."""


@dataclass(frozen=True)
class Settings:
    """What the user chose. Seeds are 0, 1, ..., seeds - 1."""

    device: torch.device
    seeds: int
    steps: int
    out: Path


class Result(ABC):
    """The numbers of one finished experiment: a dataclass that can describe itself."""

    @abstractmethod
    def table(self) -> list[str]:
        """The lines of its table, at most 100 columns wide."""

    @abstractmethod
    def claims(self) -> list[str]:
        """What the numbers say, computed from them."""


def optional(name: str) -> Any:
    """The module ``name`` of the extra ``experiments``, or Refusal if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Refusal(
            f"the experiments need {name.partition('.')[0]} ({error}): "
            "pip install 'nalu_kernels[experiments]'"
        ) from error


def generator(*key: int) -> torch.Generator:
    """A generator of its own for each key of up to four numbers below 65536."""
    seed = 0
    for part in key:
        seed = (seed << 16) + part
    return torch.Generator().manual_seed(seed)


def build(make: Callable[[], Network], device: torch.device, *key: int) -> Network:
    """make() with its initial weights drawn from ``key``; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(*key).get_state())
        return make().to(device)


def uniform(source: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Uniform numbers from [low, high), on the CPU."""
    return torch.rand(shape, generator=source) * (high - low) + low


def batches(draw: Callable[[int], Tensor], steps: int, device: torch.device) -> Iterator[Tensor]:
    """``steps`` batches on ``device``: the slices of draw(n), which holds n of them."""
    for first in range(0, steps, _CHUNK):
        yield from draw(min(_CHUNK, steps - first)).to(device)


def cool_down(progress: float) -> float:
    """The full learning rate, then a straight line to 0 over the last 30 %."""
    return min(1.0, (1 - progress) / 0.3)


def warm_up(progress: float) -> float:
    """A straight line up over the first 10 %, then the full learning rate."""
    return min(1.0, progress / 0.1)


def hill(progress: float) -> float:
    """A straight line up to the middle, and down to 0."""
    return 1 - abs(2 * progress - 1)


class Group(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: list[nn.Parameter] | list[Tensor]
    rate: float
    schedule: Schedule


class Progress:
    """A bar on a terminal, else a line for each finished part; both on stderr."""

    def __init__(self, total: int) -> None:
        self._bar = optional("tqdm").tqdm(
            total=total, unit="step", leave=False, disable=not sys.stderr.isatty()
        )
        self._started = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def start(self, name: str) -> None:
        self._bar.set_description(name)

    def advance(self, steps: int) -> None:
        self._bar.update(steps)

    def finished(self, name: str) -> None:
        if self._bar.disable:
            seconds = time.perf_counter() - self._started
            print(f"{name}: done, {seconds:.0f} s since the start", file=sys.stderr, flush=True)


def train(
    groups: Iterable[Group],
    inputs: Iterator[Tensor],
    loss: Callable[[Tensor], Tensor],
    steps: int,
    progress: Progress,
) -> None:
    """``steps`` steps of Adam on loss(batch), a batch for each step."""
    groups = list(groups)
    optimizer = torch.optim.Adam(
        [{"params": group.parameters, "lr": group.rate} for group in groups], fused=True
    )
    for step, batch in enumerate(inputs):
        for group, options in zip(groups, optimizer.param_groups, strict=True):
            options["lr"] = group.rate * group.schedule((step + 0.5) / steps)
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
        progress.advance(1)
