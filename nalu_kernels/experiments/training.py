"""Training a trial: random numbers by key, steps that can be resumed, Adam on batches.

Random numbers are drawn on the CPU from generators keyed by seed and purpose, so that a seed means
the same data and the same initial weights whatever else runs and whatever the device.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from .refusal import Refusal
from .report import write_atomic

Network = TypeVar("Network", bound=nn.Module)
Schedule = Callable[[float], float]  # progress from 0 to 1 -> factor of the learning rate

CHUNK = 64  # steps between two moments at which a checkpoint may be saved; batches drawn at a time
FORGETS = 0.95  # a beta2
CHECKPOINT_SECONDS = 30.0  # between two checkpoints, at least


class Stopped(Exception):
    """The run is to end; the trial's checkpoint has been saved."""


class Stateful(Protocol):
    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def generator(*key: str | int) -> torch.Generator:
    """A generator of its own for each key."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def build(make: Callable[[], Network], device: torch.device, *key: str | int) -> Network:
    """make() with its initial weights drawn from ``key``; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(*key).get_state())
        return make().to(device)


def uniform(source: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Uniform numbers from [low, high), on the CPU."""
    return torch.rand(shape, generator=source) * (high - low) + low


def constant(progress: float) -> float:
    """The full learning rate throughout."""
    return 1.0


def cool_down(progress: float) -> float:
    """The full learning rate, then a straight line to 0 over the last 30 %."""
    return min(1.0, (1 - progress) / 0.3)


def warm_up(progress: float) -> float:
    """A straight line up over the first 10 %, then the full learning rate."""
    return min(1.0, progress / 0.1)


def hill(progress: float) -> float:
    """A straight line up to the middle, and down to 0."""
    return 1 - abs(2 * progress - 1)


def saturate(progress: float) -> float:
    """A hundredth of the rate, then exponentially up to all of it at 70 %: first a NAC finds out
    which way its weights should go, then they go all the way to -1, 0 and 1."""
    return float(10 ** (2 * min(1.0, progress / 0.7) - 2))


def fall(progress: float) -> float:
    """Half a cosine: the full learning rate at first, 0 in the end."""
    return (1 + math.cos(math.pi * progress)) / 2


class Group(NamedTuple):
    """Parameters that share a learning rate.

    Adam divides by a mean of the squared gradients over 1 / (1 - beta2) steps. FORGETS is for the
    weights of cells: their gradients fall by orders of magnitude on the way to saturation, and with
    a long memory of the large ones the last part of the way is not made.
    """

    parameters: Iterable[nn.Parameter]
    rate: float
    schedule: Schedule = constant
    beta2: float = 0.999


def adam(groups: list[Group]) -> torch.optim.Adam:
    """With a parameter group for each of ``groups``; set_rates() before each step."""
    return torch.optim.Adam(
        [
            {"params": list(group.parameters), "lr": group.rate, "betas": (0.9, group.beta2)}
            for group in groups
        ],
        fused=True,
    )


def set_rates(optimizer: torch.optim.Optimizer, groups: list[Group], progress: float) -> None:
    for group, options in zip(groups, optimizer.param_groups, strict=True):
        options["lr"] = group.rate * group.schedule(progress)


class Training:
    """The training of one trial: counts its steps, saves and restores its checkpoint.

    Args:
        device: where to train.
        checkpoint: the file for it; None saves none.
        advance: told of steps that have been done, for the progress bar.
        stopping: asked now and then whether the run is to end.
    """

    def __init__(
        self,
        device: torch.device,
        checkpoint: Path | None = None,
        advance: Callable[[int], None] = lambda steps: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.device = device
        self._checkpoint = checkpoint
        self._advance = advance
        self._stopping = stopping
        self._before = 0.0  # seconds, until the checkpoint that was restored
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent on this trial, interruptions not counted."""
        return self._before + time.perf_counter() - self._started

    def steps(self, total: int, **stateful: Stateful | torch.Generator) -> Iterator[int]:
        """The numbers of the steps that are still to do.

        All that a step changes has to be in ``stateful``: it is saved now and then, and restored
        before the first step. Once in a trial.

        Raises:
            Stopped: the run is to end; nothing of the trial is lost.
            Refusal: the checkpoint cannot be written, and the one before it still is there.
        """
        first = self._restore(stateful)
        self._advance(first)
        saved = time.monotonic()
        for step in range(first, total):
            if step % CHUNK == 0 and step > first:
                self._advance(CHUNK)
                stopping = self._stopping()
                if stopping or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                    self._save(step, stateful)
                    saved = time.monotonic()
                if stopping:
                    raise Stopped
            yield step
        if total > first:
            self._advance((total - 1) % CHUNK + 1)

    def fit(
        self,
        network: nn.Module,
        groups: Iterable[Group],
        draw: Callable[[int], Tensor],
        loss: Callable[[Tensor], Tensor],
        steps: int,
        *,
        after: Callable[[int], None] = lambda step: None,
        **stateful: Stateful | torch.Generator,
    ) -> None:
        """``steps`` steps of Adam on loss(batch).

        Args:
            draw: draw(count) is ``count`` batches, stacked; the generator it draws with, and all
                else that ``draw``, ``loss`` and ``after`` change, has to be in ``stateful``.
            after: called with the number of each step that has been done.
        """
        groups = list(groups)
        optimizer = adam(groups)
        batches = torch.empty(0)
        for step in self.steps(steps, network=network, optimizer=optimizer, **stateful):
            if step % CHUNK == 0:
                batches = draw(min(CHUNK, steps - step)).to(self.device)
            set_rates(optimizer, groups, (step + 0.5) / steps)
            optimizer.zero_grad()
            loss(batches[step % CHUNK]).backward()
            optimizer.step()
            after(step)

    def _save(self, step: int, stateful: dict[str, Any]) -> None:
        if self._checkpoint is None:
            return
        state = {
            "step": step,
            "seconds": self.seconds,
            "states": {
                name: thing.get_state()
                if isinstance(thing, torch.Generator)
                else thing.state_dict()
                for name, thing in stateful.items()
            },
        }
        content = io.BytesIO()
        torch.save(state, content)  # not to the file: torch does not say why that failed
        try:
            self._checkpoint.parent.mkdir(exist_ok=True)
            write_atomic(self._checkpoint, lambda path: path.write_bytes(content.getbuffer()))
        except OSError as error:
            raise Refusal(
                f"{self._checkpoint}: cannot write the checkpoint: {error.strerror}; what had "
                "finished is saved"
            ) from error

    def _restore(self, stateful: dict[str, Any]) -> int:
        """The step of the checkpoint, whose states are restored; 0 where there is none."""
        if self._checkpoint is None or not self._checkpoint.exists():
            return 0
        try:
            state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # of many kinds
            raise Refusal(
                f"{self._checkpoint}: cannot be read as a checkpoint; delete it, and its trial "
                "starts anew"
            ) from error
        for name, thing in stateful.items():
            if isinstance(thing, torch.Generator):
                thing.set_state(state["states"][name])
            else:
                thing.load_state_dict(state["states"][name])
        self._before = state["seconds"] + self._started - time.perf_counter()
        return int(state["step"])
