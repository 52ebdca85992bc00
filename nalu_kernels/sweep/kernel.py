"""Trains runs by the kernels of a back end, whole stretches of many trainings in a call."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .. import dispatch
from ..layers import SNMU
from . import stream
from .runs import HYPER, OPTIMIZERS
from .specification import LOSSES, Specification
from .state import RUNNING, State
from .tasks import OPERATIONS, Arithmetic, Data, Exponential, Function, Normal, Range, inputs

_RUNS = {"cpu": 4096, "cuda": 16_384}  # in a call, at most
_BYTES = {"cpu": 2**28, "cuda": 2**30}  # of what a call reads and writes, at most
# Of batches that are drawn at once, which nothing interrupts.
_GIVEN_BYTES = {"cpu": 2**22, "cuda": 2**27}
_MOST_ROWS, _MOST_SAMPLES = 2**31, 2**62  # csrc/training_arguments.h
_STEPS = 512  # whose batches a call is given, at most
_TASKS = (Arithmetic, Function, Data)
_DISTRIBUTIONS = (tuple, Normal, Exponential)  # of ranges


_LAST_OF_TRITON = 5  # of the kinds of layers (csrc/training.h)
# Columns, and the values with which they do nothing.
_NOT_OF_TRITON = {
    "regularizer": 0.0, "l1": 0.0, "weight_steps": 0.0, "gate_steps": 0.0,
    "restart_above": math.inf, "saturation": 0.0,
}  # fmt: skip
_BLOCK_ROWS = 128  # of a batch at a time


class Kernel(NamedTuple):
    """What trains, with the arguments that csrc/ops.cpp has for ``train``; on tensors of which
    device; on a CPU, on how many threads at most."""

    train: Callable[..., None]
    device: torch.device
    threads: int


def trainer(name: str) -> Callable[..., None]:
    """Of a back end that lacks nothing."""
    if name == "triton":
        from ..triton import train

        return train.train
    operators = getattr(torch.ops, dispatch.namespace(name))
    return cast(Callable[..., None], operators.train)


def lacks(name: str, specification: Specification) -> str | None:
    """Why the back end cannot train this, in words; None if it can."""
    usable, reason = dispatch.status(name)
    if not usable:
        return reason
    if name != "triton" and not hasattr(getattr(torch.ops, dispatch.namespace(name)), "train"):
        return f"back end {name!r} was built without the operator train: install it again"
    batch, steps = specification.batch_size, specification.steps
    if batch > _MOST_ROWS or steps > _MOST_SAMPLES // batch:
        return f"{steps:,} batches of {batch:,} rows are more than it can count"
    beyond = specification.stack.beyond_kernels()
    if beyond is None and batch > _BLOCK_ROWS and _noise_follows(specification):
        beyond = (
            f"an SNMU with noise='batch' takes the deviation of {_BLOCK_ROWS} samples at most, "
            f"and batch_size is {batch}"
        )
    return beyond or (_lacks_of_triton(specification) if name == "triton" else None)


def _noise_follows(specification: Specification) -> bool:
    layers = specification.stack.layers()
    return any(isinstance(layer, SNMU) and layer.noise == "batch" for layer in layers)


def _lacks_of_triton(specification: Specification) -> str | None:
    stack, hyper = specification.stack, specification.columns.hyper
    new = (stack.program[:, 0] > _LAST_OF_TRITON) | (stack.constants[:, 2] != 1)
    new |= stack.program[:, 6:].any(1)  # NACs of weights from 0 to 1
    if new.any():
        names = [type(layer).__name__ for layer in stack.layers()]
        return f"Triton's trainer has no {names[int(new.nonzero()[0])]}"
    for name, default in _NOT_OF_TRITON.items():
        if (hyper[:, HYPER.index(name)] != default).any():
            return f"Triton's trainer has no {name}"
    ranges = specification.columns.ranges or []
    if any(isinstance(train, Exponential) for train, _ in ranges):
        return "Triton's trainer draws no exponential numbers"
    return None


def advance(
    specification: Specification, state: State, budget: Callable[[], float], kernel: Kernel
) -> Iterator[Tensor]:
    """As ``reference.advance``.

    A call of the operator spreads its runs over the threads. Where each run has test inputs of its
    own, which a call shares, the threads of a CPU make a call each instead; but a user's function
    is only called from the user's thread.
    """
    alone = isinstance(specification.task, Arithmetic) and specification.task.per_seed
    alone = alone and kernel.device.type == "cpu"
    callers = kernel.threads if alone else 1
    kernel = kernel._replace(threads=1) if alone else kernel
    begun: list[Iterator[Tensor]] = []
    others = _trainings(specification, state, budget, kernel)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                training = begun.pop() if begun else next(others, None)
            if training is None:
                return
            for numbers in training:
                changed.append(numbers)
                if time.perf_counter() >= until:
                    begun.append(training)
                    return

    while True:
        changed: list[Tensor] = []
        until = time.perf_counter() + budget()
        if callers == 1:
            work()
        else:
            with ThreadPoolExecutor(callers) as pool:
                for call in [pool.submit(work) for _ in range(callers)]:
                    call.result()
        if not changed:
            return
        yield torch.cat(changed).unique()


def _trainings(
    specification: Specification, state: State, budget: Callable[[], float], kernel: Kernel
) -> Iterator[Iterator[Tensor]]:
    """Of the unfinished runs, as many in each as a call takes."""
    groups: dict[object, list[int]] = {}
    for number in state.unfinished().tolist():
        groups.setdefault(specification.group(number), []).append(number)
    device = kernel.device
    size = _chunk(specification, state, device)
    for numbers in groups.values():
        given = functools.cache(functools.partial(_Given.of, specification, numbers[0], device))
        for chunk in torch.tensor(numbers).split(size):
            yield _train(specification, state, chunk, given, budget, kernel)


class _Given(NamedTuple):
    """The arguments of the operator that a group of runs shares."""

    constants: Tensor
    table: tuple[Tensor, Tensor]  # task Data: x, y
    tests: tuple[Tensor, Tensor, Tensor, Tensor]  # x_inside, y_inside, x_outside, y_outside

    @classmethod
    def of(cls, specification: Specification, number: int, device: torch.device) -> _Given:
        task, empty = specification.task, torch.empty(0, dtype=specification.dtype)
        tests: list[Tensor] = []
        for outside in (False, True):
            x = specification.test_inputs(number, outside=outside)
            y = (
                empty
                if isinstance(task, Arithmetic)
                else specification.test_targets(number, x, outside=outside)
            )
            tests += [x.contiguous().to(device), y.contiguous().to(device)]
        if isinstance(task, Data):
            dtype = specification.dtype
            x, y = task.x.to(dtype).contiguous(), task.y.to(dtype).contiguous()
            table = x.to(device), y.to(device)
            constants = torch.zeros(6, dtype=torch.float64)
        else:
            nothing = empty.to(device)
            table, constants = (nothing, nothing), _constants(specification.training_range(number))
        return cls(constants, table, (tests[0], tests[1], tests[2], tests[3]))


def _constants(range: Range) -> Tensor:
    if isinstance(range, Normal):
        mean, std, low, high = range
        values = [mean, std, *stream.bounds(*range), low, high]
    elif isinstance(range, Exponential):
        values = [range.scale, 0.0, 0.0, 0.0, 0.0, 0.0]
    else:
        values = [*range[0], *range[-1], 0.0, 0.0]
    return torch.tensor(values, dtype=torch.float64)


def _given_bytes(specification: Specification) -> int:
    """Of one step of one run, where batches are given."""
    if not isinstance(specification.task, Function):
        return 0
    numbers = specification.stack.in_features + specification.stack.out_features
    return specification.batch_size * numbers * specification.dtype.itemsize


def _chunk(specification: Specification, state: State, device: torch.device) -> int:
    """How many runs a call takes."""
    given = max(1, _given_bytes(specification))
    most, memory = _RUNS[device.type], _BYTES[device.type]
    return max(1, min(most, memory // state.bytes_a_run(), _GIVEN_BYTES[device.type] // given))


def _train(
    specification: Specification,
    state: State,
    numbers: Tensor,
    shared: Callable[[], _Given],
    budget: Callable[[], float],
    kernel: Kernel,
) -> Iterator[Tensor]:
    """One chunk of runs, to the end of all of them."""
    stack, given = specification.stack, shared()
    layers = stack.constants.nan_to_num(nan=torch.finfo(specification.dtype).eps)
    (x, y), first, until = given.table, 0, specification.steps
    while len(numbers):
        if isinstance(specification.task, Function):
            first = int(state.progress[numbers, 0].min())
            window = _window(specification, len(numbers), kernel.device)
            until = min(specification.steps, first + window)
            drawn = _batches(specification, numbers, torch.arange(first, until))
            x, y = (tensor.to(kernel.device) for tensor in drawn)
        settings = _settings(specification, int(numbers[0]), first, until)
        seeds = specification.columns.seeds[numbers].to(kernel.device)
        starts = _starts(specification, numbers).to(kernel.device)
        thresholds = specification.thresholds[numbers, None]
        hyper = torch.cat((specification.columns.hyper[numbers], thresholds), 1).to(kernel.device)
        part, going = state.part(numbers).to(kernel.device), True
        while going:
            kernel.train(
                stack.program,
                layers,
                settings,
                given.constants,
                seeds,
                starts,
                hyper,
                x,
                y,
                *given.tests,
                part.parameters,
                part.moments,
                part.best,
                part.progress,
                part.scores,
                part.curves,
                budget(),
                kernel.threads,
            )
            state.put(numbers, part)
            yield numbers
            steps, status = state.progress[numbers].unbind(1)
            going = bool(((status <= RUNNING) & (steps < until)).any())
        numbers = numbers[state.progress[numbers, 1] <= RUNNING]


def _settings(specification: Specification, number: int, first: int, until: int) -> Tensor:
    task = specification.task
    operation = length = distribution = 0
    if isinstance(task, Arithmetic):
        operation, length = list(OPERATIONS).index(task.operation), task.lengths[0]
        range = specification.training_range(number)
        distribution = (
            1 if isinstance(range, Normal) else 2 if isinstance(range, Exponential) else 0
        )
    settings = [
        specification.batch_size,
        specification.steps,
        specification.test_every,
        list(OPTIMIZERS).index(specification.optimizer),
        LOSSES.index(specification.loss),
        int(specification.stop == "solved"),
        _TASKS.index(type(task)),
        operation,
        distribution,
        length,
        first,
        until,
    ]
    return torch.tensor(settings)


def _starts(specification: Specification, numbers: Tensor) -> Tensor:
    if isinstance(specification.task, Arithmetic):
        return specification.starts(numbers)
    return torch.zeros(len(numbers), 2, dtype=torch.int64)


def _window(specification: Specification, runs: int, device: torch.device) -> int:
    """For how many steps the batches of so many runs are drawn at once."""
    given = _given_bytes(specification) * runs
    return max(1, min(_STEPS, _GIVEN_BYTES[device.type] // given))


def _batches(specification: Specification, numbers: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs (runs, steps, batch, in) and targets (runs, steps, batch, out)."""
    task, seeds = specification.task, specification.columns.seeds[numbers]
    assert isinstance(task, Function)
    drawn = [
        stream.drawn(seeds, stream.TRAIN, step, specification.batch_size, task.in_features)
        for step in steps.tolist()
    ]
    range = specification.training_range(int(numbers[0]))
    x = inputs(torch.stack(drawn, 1), range, specification.dtype)
    return x, task.answers(x)
