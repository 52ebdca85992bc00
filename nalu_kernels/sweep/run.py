"""``sweep.run``: trains a table of runs, shows how far it is, and keeps what it has."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..dispatch import forced
from . import executors, shards
from .progress import Progress
from .result import Result
from .specification import Specification
from .state import RUNNING, SOLVED, State
from .store import Store, locked
from .success import Success
from .tasks import Task
from .watch import Watch

_SAVE_SECONDS = 5.0  # between two checkpoints, at least
_SAVE_SHARE = 20  # and so many times as long as writing one takes


class Event(NamedTuple):
    """What a callback is told: counts of runs, steps done of all, and which runs got on."""

    runs: int
    finished: int
    solved: int
    steps: int
    total_steps: int
    seconds: float
    changed: list[int]  # their labels


def run(
    stack: nn.Module,
    task: Task,
    runs: Any,
    *,
    steps: int,
    batch_size: int = 128,
    test_every: int = 1000,
    optimizer: str = "adam",
    loss: str = "mse",
    success: Success | None = None,
    stop: str | None = None,
    initial: Mapping[str, Tensor] | None = None,
    backend: str | None = None,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    out: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    callback: Callable[[Event], object] | None = None,
    seconds: float | None = None,
    dtype: torch.dtype | None = None,
    quiet: bool = False,
) -> Result:
    r"""Trains one network for each row of ``runs``, and tests it as it learns.

    A step draws a batch, takes the gradients of the mean loss and updates the parameters. After
    every ``test_every`` steps, and after the last, the mean squared error is taken on the test
    inside and the test outside; the test with the least error inside is the run's best. All of a
    run's numbers come from its own row: neither the other rows, the number of threads nor where a
    call was stopped change a bit of it.

    Args:
        stack: an ``nn.Sequential`` of this library's layers, of ``nn.Linear``, ReLU, ReLU6 and
            Identity, or one layer. It is a template: its sizes, options and dtype count, its
            weights do not.
        task: :class:`Arithmetic`, :class:`Function` or :class:`Data`.
        runs: a DataFrame, a dict of columns, a list of dicts or :func:`grid`. Columns: ``seed``
            (0 if there is none); of the optimizer ``lr``, ``betas`` (or ``beta1`` and ``beta2``),
            ``alpha``, ``eps``, ``weight_decay``, ``momentum``, with torch's defaults;
            ``clip_value`` and ``clip_norm``; ``regularizer``, ``ramp_start``, ``ramp_stop``,
            ``regularizer_below``, ``l1``, ``l1_last`` and ``l1_every``, what is added to the loss;
            ``weight_steps``, ``gate_steps``, ``restart_above``, ``restart_after``, ``saturation``,
            ``saturation_start`` and ``saturation_below``, habits of the iNALU's authors
            (docs/sweep.md; :mod:`nalu_kernels.published` has the papers' numbers); ``train`` and
            ``test``, ranges of the task. Any other column is a label.
        steps: of each run.
        batch_size, test_every: see above.
        optimizer: "adam", "rmsprop" or "sgd", as torch.optim's; in capitals ("Adam") or not.
        loss: "mse" or "l1", for training; tests take the mean squared error.
        success: when a run has solved the task: its error outside at its best test is below that of
            weights off by 1e-5 ("weights_1e-5", the default for Arithmetic) or 1e-4
            ("weights_1e-4"), below a number (1e-5, the default for other tasks), or below
            ``success(task, row)``.
        stop: None trains for all steps, as published; "solved" ends a run at a test that is its
            best and below the threshold.
        initial: initial parameters in the form of ``torch.func.stack_module_state``, a row a run;
            None draws them by seed as the layers do.
        backend: "cpu", "cuda" or "triton" for kernels, "reference" for plain PyTorch; None takes
            the best that can, and warns if that is the reference.
        device: of the computation.
        threads: at most so many, on a CPU; None: as torch has, or 1 in each task of an
            ``executor``.
        out: a folder for the results. The same call goes on where an earlier one was; a folder
            with anything else is refused. Needs the extra ``sweep``.
        executor: any ``concurrent.futures.Executor``; slices of the runs are its tasks.
        callback: called with an :class:`Event`, about once a second. One that returns False stops
            the call, as Ctrl-C does.
        seconds: stops after so long. Ctrl-C and SIGTERM stop likewise: what has been reached is
            saved and returned.
        dtype: float32 or float64; None: the ``stack``'s own.
        quiet: True shows no progress on stderr; warnings stay.

    Returns:
        the runs' results; runs that were stopped are ``interrupted`` or ``not_run``.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range, before anything runs;
            a ``backend`` that cannot train this; an ``out`` with other results or a damaged file.
        BackendUnavailable: a ``backend`` that cannot be used here.
        ImportError: ``out`` needs a package that is missing.
        OSError, RuntimeError: ``out`` cannot be written to, or another process is at work there.
    """
    watch = Watch(_check_seconds(seconds))
    if not isinstance(quiet, bool):
        raise TypeError(f"quiet: expected True or False, got {type(quiet).__name__}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a function, got {type(callback).__name__}")
    if executor is not None and (
        isinstance(executor, type) or not callable(getattr(executor, "submit", None))
    ):
        raise TypeError(
            f"executor: expected a concurrent.futures.Executor, got {type(executor).__name__}"
        )
    specification = Specification(
        stack,
        task,
        runs,
        steps=steps,
        batch_size=batch_size,
        test_every=test_every,
        optimizer=optimizer,
        loss=loss,
        success=success,
        stop=stop,
        initial=initial,
        dtype=dtype,
    )
    name, advance = executors.choose(specification, backend, device, threads)
    with ExitStack() as left:
        store = None
        if out is not None:
            folder = _folder(out)
            left.enter_context(locked(folder))
            store = Store(folder, specification)
            state = store.begin({"backend": name, "device": str(device)})
        else:
            state = specification.begin()
        left.enter_context(watch)
        if executor is not None:
            source = shards.advance(
                executor, specification, state, watch, backend or forced(), device, threads
            )
        else:
            source = _here(specification, state, watch, name, advance)
        _follow(source, specification, state, watch, store, callback, quiet)
        return Result(
            specification.stack,
            specification.columns.table,
            state,
            steps,
            test_every,
            stop,
            watch.stopped() if len(state.unfinished()) else watch.signal,
            specification.fresh,
        )


def _folder(out: Any) -> Path:
    if not isinstance(out, (str, os.PathLike)):
        raise TypeError(f"out: expected a path, got {type(out).__name__}")
    if not os.fspath(out):
        raise ValueError("out: expected the path of a folder, got ''")
    return Path(out).expanduser()


def _check_seconds(seconds: Any) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"seconds: expected a number or None, got {type(seconds).__name__}")
    if not seconds > 0:
        raise ValueError(f"seconds: expected a number above 0, got {seconds}")
    return float(seconds)


def _here(
    specification: Specification,
    state: State,
    watch: Watch,
    name: str,
    advance: executors.Advance,
) -> Generator[Tensor, None, None]:
    """Trains in this process."""
    for rows in advance(specification, state, watch.budget):
        state.trained(rows, name)
        yield rows


def _follow(
    source: Generator[Tensor, None, None],
    specification: Specification,
    state: State,
    watch: Watch,
    store: Store | None,
    callback: Callable[[Event], object] | None,
    quiet: bool,
) -> None:
    """Drives the training: shows, tells and saves until all is done or has to stop."""
    keeper = _Keeper(store, state)
    started, index = time.perf_counter(), specification.columns.table.index
    runs, total = len(specification), len(specification) * specification.steps
    finished, solved, done = _counts(specification, state)
    with Progress("sweep", runs, "runs", total, done, quiet=quiet) as progress:
        try:
            progress.show(finished, done, f", {solved:,} solved")
            if watch.stopped():
                return
            with closing(source):  # which brings in what others are at
                for rows in source:
                    finished, solved, done = _counts(specification, state)
                    progress.show(finished, done, f", {solved:,} solved")
                    if callback is not None and len(rows):
                        seconds = time.perf_counter() - started
                        changed = [index[row] for row in rows.tolist()]
                        event = Event(runs, finished, solved, done, total, seconds, changed)
                        if callback(event) is False:
                            watch.signal = "callback"
                    keeper.save_if_due()
                    if watch.stopped():
                        break
        finally:
            keeper.finish()
            if (why := watch.stopped()) and (unfinished := len(state.unfinished())):
                progress.stopped(why, unfinished)


def _counts(specification: Specification, state: State) -> tuple[int, int, int]:
    """Runs that have finished, that have solved their task, and steps that need no more doing."""
    steps, status = state.progress.unbind(1)
    finished = status > RUNNING
    done = torch.where(finished, specification.steps, steps)
    return int(finished.sum()), int((status == SOLVED).sum()), int(done.sum())


class _Keeper:
    """Saves now and then. If a folder can no longer be written to, it warns and training goes on:
    the result is still returned."""

    def __init__(self, store: Store | None, state: State) -> None:
        self._store, self._state = store, state
        self._due = time.perf_counter() + _SAVE_SECONDS
        self._warned = False

    def save_if_due(self) -> None:
        if self._store is not None and time.perf_counter() >= self._due:
            started = time.perf_counter()
            self._try(self._store.save)
            took = time.perf_counter() - started
            self._due = started + took + max(_SAVE_SECONDS, _SAVE_SHARE * took)

    def finish(self) -> None:
        if self._store is not None:
            self._try(self._store.save)
            self._try(self._store.export)

    def _try(self, write: Callable[[State], None]) -> None:
        try:
            write(self._state)
        except OSError as error:
            if not self._warned:
                warnings.warn(
                    f"{error}; the training goes on, and its result is returned",
                    RuntimeWarning,
                    stacklevel=5,
                )
            self._warned = True
