"""Spreads the runs of a sweep over a concurrent.futures.Executor, by slices."""

from __future__ import annotations

import io
import time
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

import torch
from torch import Tensor

from . import executors
from .specification import Specification
from .state import RUNNING, State
from .watch import SEGMENT, Watch

_SHARDS = 64  # at most
_TURN = 10.0  # seconds after which a slice comes back, to be kept and to be sent again


def advance(
    executor: Executor,
    specification: Specification,
    state: State,
    watch: Watch,
    backend: str | None,
    device: Any,
    threads: int | None,
) -> Generator[Tensor, None, None]:
    """Trains the unfinished runs there, and yields the numbers of those that have come back.

    A task of the executor takes a slice of the table and of the state, and returns the state after
    a turn; all of it goes as bytes. Where one fails the others are not begun, and its error is
    raised once those that run have come back. Those are waited for also where the caller leaves.
    """
    unfinished = state.unfinished()
    size = -(-len(unfinished) // _SHARDS) if len(unfinished) else 1
    pending: dict[Future[bytes], Tensor] = {}
    failed: BaseException | None = None

    def send(rows: Tensor) -> None:
        remaining = watch.remaining()
        until = None if remaining is None else time.time() + remaining
        arguments, held = specification.part(rows.tolist()), _pack(state.rows(rows))
        chosen = (backend, str(device), threads or 1, _TURN, until)
        pending[executor.submit(train, arguments, held, *chosen)] = rows

    try:
        for rows in unfinished.split(size):
            send(rows)
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
                rest = rows[state.progress[rows, 1] <= RUNNING]
                if len(rest) and not failed and not watch.stopped():
                    send(rest)
                yield rows
            if not done:
                yield torch.empty(0, dtype=torch.int64)
    except GeneratorExit:
        for future in pending:
            future.cancel()
        for future, rows in pending.items():
            if not future.cancelled() and not future.exception():
                state.put(rows, _unpack(future.result()))
        raise
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
    turn: float,
    until: float | None,
) -> bytes:
    """What the executor calls, in a process or on a machine of its own: a slice's new state.

    Args:
        arguments: of the slice's Specification.
        held: its state.
        backend, device, threads: as of ``sweep.run``.
        turn: for so many seconds.
        until: the time of day at which it returns in any case.
    """
    specification, state = Specification(**arguments), _unpack(held)
    name, advance = executors.choose(specification, backend, device, threads)
    with Watch(turn if until is None else max(0.0, min(turn, until - time.time()))) as watch:
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
