"""The seam between a GPU and a dry run: all that only CUDA has stands behind a Device."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..timing import Call
from .cases import DRY_GROUPS, GROUPS, Group
from .roofline import PEAKS, Peaks


class Device(ABC):
    name: str  # torch's
    groups: tuple[Group, ...]
    l2_bytes: int
    peaks: Peaks | None  # None: not known
    budget_s: float  # of each series of rounds
    min_rounds: int
    accuracy_sizes: tuple[int, int, int]  # of accuracy.tasks

    @abstractmethod
    def synchronize(self) -> None: ...

    @abstractmethod
    def free(self) -> None:
        """Gives back memory that nothing uses any more."""

    @abstractmethod
    def capture(self, calls: Sequence[Call]) -> Call:
        """All ``calls`` in a row as one, without the cost of launching them."""

    @abstractmethod
    def peak_bytes(self, call: Call) -> int | None:
        """The most memory that ``call`` holds at once, beside what was held before."""

    @abstractmethod
    def compile(self, function: Callable[..., Any], mode: str | None) -> Callable[..., Any]: ...

    def seconds(self, call: Call, times: int) -> float:
        """Of each of ``times`` calls in a row, with nothing left to do at either end."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            call()
        self.synchronize()
        return (time.perf_counter() - start) / times


class Cuda(Device):
    name = "cuda"
    groups = GROUPS
    budget_s = 0.8
    min_rounds = 5
    # So many rows and outputs that the products go through tensor cores.
    accuracy_sizes = (4096, 4096, 512)

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(0)
        self.l2_bytes, self.peaks = properties.L2_cache_size, PEAKS.get(properties.name)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def free(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()

    def capture(self, calls: Sequence[Call]) -> Call:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lazy initialisation must not be captured
            calls[0]()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return graph.replay

    def peak_bytes(self, call: Call) -> int | None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def compile(self, function: Callable[..., Any], mode: str | None) -> Callable[..., Any]:
        return torch.compile(function, dynamic=False, mode=mode)


class DryRun(Device):
    """A CPU: no graphs, no count of memory, and torch.compile without its compiler."""

    name = "cpu"
    groups = DRY_GROUPS
    l2_bytes = 400
    peaks = None
    budget_s = 0.0
    min_rounds = 2
    accuracy_sizes = (8, 16, 2)

    def synchronize(self) -> None:
        pass

    def free(self) -> None:
        gc.collect()

    def capture(self, calls: Sequence[Call]) -> Call:
        def replay() -> None:
            for call in calls:
                call()

        return replay

    def peak_bytes(self, call: Call) -> int | None:
        call()
        return None

    def compile(self, function: Callable[..., Any], mode: str | None) -> Callable[..., Any]:
        return torch.compile(function, dynamic=False, backend="eager")


def choose(dry_run: bool) -> Device:
    return DryRun() if dry_run else Cuda()
