"""Spreads the runs of a sweep over a concurrent.futures.Executor, by slices."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

import torch
from torch import Tensor

from . import executors
from .specification import Specification
from .state import State
from .watch import SEGMENT, Watch

_SHARDS = 64  # at most


def advance(
    executor: Executor,
    specification: Specification,
    state: State,
    watch: Watch,
    backend: str | None,
    device: Any,
    threads: int | None,
) -> Iterator[Tensor]:
    """Trains the unfinished runs there, and yields the numbers of those that have come back.

    A task of the executor takes a slice of the table and of the state, and returns the state; all
    of it goes as bytes. Where one fails the others are not begun, and its error is raised once
    those that run have come back.
    """
    unfinished = state.unfinished()
    size = -(-len(unfinished) // _SHARDS) if len(unfinished) else 1
    pending: dict[Future[bytes], Tensor] = {}
    failed: BaseException | None = None
    try:
        for rows in unfinished.split(size):
            remaining = watch.remaining()
            until = None if remaining is None else time.time() + remaining
            arguments = specification.part(rows.tolist())
            held = _pack(state.rows(rows))
            chosen = (backend, str(device), threads or 1, until)
            pending[executor.submit(train, arguments, held, *chosen)] = rows
        while pending and not (failed and all(not future.running() for future in pending)):
            done, _ = wait(pending, SEGMENT, FIRST_COMPLETED)
            for future in done:
                rows = pending.pop(future)
                if future.cancelled():
                    continue
                if error := future.exception():
                    failed = failed or error
                    for other in pending:
                        other.cancel()
                    continue
                state.put(rows, _unpack(future.result()))
                yield rows
            if not done:
                yield torch.empty(0, dtype=torch.int64)
    finally:
        for future in pending:
            future.cancel()
    if failed is not None:
        raise failed


def train(
    arguments: dict[str, Any],
    held: bytes,
    backend: str | None,
    device: str,
    threads: int,
    until: float | None,
) -> bytes:
    """What the executor calls, in a process or on a machine of its own: a slice's new state.

    Args:
        arguments: of the slice's Specification.
        held: its state.
        backend, device, threads: as of ``sweep.run``.
        until: the time of day at which it returns, finished or not.
    """
    specification, state = Specification(**arguments), _unpack(held)
    name, advance = executors.choose(specification, backend, device, threads)
    with Watch(None if until is None else max(0.0, until - time.time())) as watch:
        if watch.stopped() is None:
            for rows in advance(specification, state, watch.budget):
                state.trained(rows, name)
                if watch.stopped():
                    break
    return _pack(state)


def _pack(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(state.tensors(), buffer)
    return buffer.getvalue()


def _unpack(held: bytes) -> State:
    return State(**torch.load(io.BytesIO(held), weights_only=True))
