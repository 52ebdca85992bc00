"""What a sweep trains, checked before anything runs; executors and the results' folder read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_eps_in, check_int
from ..layers import GNALU, INALU, NAC, NALU, SNMU
from ..layers.base import Layer
from . import stream
from .runs import HYPER, OPTIMIZERS, Columns, Runs
from .stack import OF_GATES, Stack, options
from .state import State
from .success import Success, check_success, threshold
from .tasks import (
    Arithmetic,
    Data,
    Distribution,
    Function,
    Range,
    Task,
    describe_range,
    fingerprint,
)

LOSSES = ("mse", "l1")
DTYPES = (torch.float32, torch.float64)
_SEEDS = 65_536  # whose initial weights are drawn at once
_SATURATING = (NAC, NALU, GNALU, INALU)
_TRIED = 8  # inputs that a user's function is tried on


class Specification:
    """The arguments of :func:`nalu_kernels.sweep.run` that decide over what is trained.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.
    """

    def __init__(
        self,
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
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(task, (Arithmetic, Function, Data)):
            raise TypeError(
                "task: expected sweep.Arithmetic, sweep.Function or sweep.Data, got "
                f"{type(task).__name__}"
            )
        self.stack = Stack(stack)
        self.task = task
        self.steps = _count("steps", steps)
        self.batch_size = _count("batch_size", batch_size)
        self.test_every = _count("test_every", test_every)
        self.optimizer = _one_of("optimizer", optimizer, tuple(OPTIMIZERS))
        self.loss = _one_of("loss", loss, LOSSES)
        self.stop = None if stop is None else _one_of("stop", stop, ("solved",))
        self.dtype = self._dtype(dtype)
        self.columns = Columns(runs, task, self.optimizer)
        self._check_eps()
        self._check_labels()
        self._check_sizes()
        self._check_turns()
        self._check_regularizer()
        self._check_saturation()
        self.success = check_success(success, task)
        self.thresholds = self._thresholds()
        self.initial = initial
        if initial is not None:
            self._initial = self.stack.flatten(initial, len(self), self.dtype)
        self.tests = -(-self.steps // self.test_every)

    def __len__(self) -> int:
        return len(self.columns)

    def _dtype(self, given: torch.dtype | None) -> torch.dtype:
        """What is trained in: the template's own unless another is given."""
        if given is not None:
            if given not in DTYPES:
                raise TypeError(f"dtype: expected torch.float32 or torch.float64, got {given}")
            return given
        found = {parameter.dtype for parameter in self.stack.template.parameters()}
        own = found.pop()
        if found or own not in DTYPES:
            names = ", ".join(sorted(map(str, found | {own})))
            raise TypeError(
                "stack: expected parameters of torch.float32 or of torch.float64, in which it is "
                f"trained unless dtype= says otherwise, got {names}"
            )
        return own

    def _check_eps(self) -> None:
        """No layer's eps is 0 in what is trained in."""
        for layer in self.stack.layers():
            if getattr(layer, "eps", None) is not None:
                check_eps_in(self.dtype, layer.eps, f"stack: eps of the {type(layer).__name__}")

    def _check_labels(self) -> None:
        """No label says what an option of a layer says."""
        for layer in self.stack.layers():
            for name in self.columns.labels() & options(layer).keys():
                raise ValueError(
                    f"runs: {name!r} is no column but {name}= of the stack's "
                    f"{type(layer).__name__}, the same for all runs of a call"
                )

    def _check_sizes(self) -> None:
        task, stack = self.task, self.stack
        if task.in_features != stack.in_features:
            raise ValueError(
                f"task: has {task.in_features} inputs, and the stack takes {stack.in_features}"
            )
        if isinstance(task, Arithmetic):
            outputs = 1
        elif isinstance(task, Data):
            task.check_within(self.dtype)
            outputs = task.y.shape[1]
        else:
            for outside in (False, True):
                tried = self.test_inputs(0, outside=outside)[:_TRIED]
                answers = task.answers(tried)
                wrong = tried[answers.isnan().any(-1)].tolist()
                if wrong:
                    raise ValueError(f"task: f({wrong[0]}) is NaN, of which no run can learn")
            outputs = answers.shape[-1]
        if outputs != stack.out_features:
            raise ValueError(
                f"task: has {outputs} targets, and the stack {stack.out_features} outputs"
            )
        for layer in stack.layers():
            if not isinstance(layer, SNMU) or layer.noise != "batch":
                continue
            if self.batch_size * layer.in_features == 1:
                raise ValueError(
                    "batch_size: expected at least 2 for an SNMU of one input, as noise='batch' "
                    "takes the standard deviation of its batch, got 1"
                )

    def _check_turns(self) -> None:
        """Weights and gates take turns only where there are gates."""
        if any(name.rpartition(".")[2] in OF_GATES for name, *_ in self.stack.parameters):
            return
        for name in ("weight_steps", "gate_steps"):
            for row, steps in enumerate(self.columns.hyper[:, HYPER.index(name)].tolist()):
                if steps:
                    raise ValueError(
                        f"runs[{name!r}], row {row}: expected 0 for a stack without gates, got "
                        f"{steps:g}"
                    )

    def _check_regularizer(self) -> None:
        """A regularizer has a layer to work on."""
        own = (layer for layer in self.stack.layers() if isinstance(layer, Layer))
        if any(layer._has_regularizer for layer in own):
            return
        for row, weight in enumerate(self.columns.hyper[:, HYPER.index("regularizer")].tolist()):
            if weight:
                raise ValueError(
                    f"runs['regularizer'], row {row}: expected 0 for a stack whose layers have no "
                    f"regularizer (of an NPU that is 'l1'), got {weight:g}"
                )

    def _check_saturation(self) -> None:
        """It is for parameters that saturate, and a step of it moves them all."""
        own = [layer for layer in self.stack.layers() if [*layer.parameters()]]
        others = [type(layer).__name__ for layer in own if not isinstance(layer, _SATURATING)]
        for row, weight in enumerate(self.columns.hyper[:, HYPER.index("saturation")].tolist()):
            if weight and others:
                raise ValueError(
                    f"runs['saturation'], row {row}: expected 0 for a stack that has layers other "
                    f"than NACs, NALUs, GNALUs and INALUs, here {others[0]}, got {weight:g}"
                )

    def _thresholds(self) -> Tensor:
        known: dict[Any, float] = {}
        values = []
        for number in range(len(self)):
            test = None if self.columns.ranges is None else self.columns.ranges[number][1]
            key = number if callable(self.success) else test
            if key not in known:
                row = self.columns.table.row(number)
                known[key] = threshold(self.success, self.task, test, row)
            values.append(known[key])
        return torch.tensor(values, dtype=torch.float64)

    def begin(self) -> State:
        """The state of runs that have done nothing yet."""
        if self.initial is not None:
            return State.begin(self._initial, self.tests)
        drawn = [self.stack.draw(seeds, self.dtype) for seeds in self.columns.seeds.split(_SEEDS)]
        return State.begin(torch.cat(drawn), self.tests)

    def group(self, number: int) -> Any:
        """Equal for runs that have the training range and the test inputs in common."""
        if isinstance(self.task, Data):
            return None
        assert self.columns.ranges is not None
        seed = int(self.columns.seeds[number]) if self.task.per_seed else None
        return self.columns.ranges[number], seed

    def test_inputs(self, number: int, *, outside: bool) -> Tensor:
        """Of run ``number``: (samples, in_features)."""
        task = self.task
        if isinstance(task, Data):
            x = task.x_test if task.x_outside is None or not outside else task.x_outside
            return x.to(self.dtype)
        assert self.columns.ranges is not None
        # the test inside is of the range of training
        range = self.columns.ranges[number][int(outside)]
        seed = int(self.columns.seeds[number])
        return task.test_inputs(outside, range, seed, task.samples, self.dtype)

    def test_targets(self, number: int, x: Tensor, *, outside: bool) -> Tensor:
        """Of run ``number`` for its test inputs: (samples, out_features)."""
        task = self.task
        if isinstance(task, Arithmetic):
            start_a, start_b = self.starts(torch.tensor([number]))[0].tolist()
            return task.targets(x, (start_a, start_b))
        if isinstance(task, Function):
            return task.answers(x)
        y = task.y_test if task.y_outside is None or not outside else task.y_outside
        return y.to(self.dtype)

    def fresh(self, number: int, *, outside: bool, samples: int = 1000) -> tuple[Tensor, Tensor]:
        """Inputs and targets in float64 that neither training nor a test of run ``number`` has.

        Raises:
            ValueError: the task is a table, which has no others.
        """
        if isinstance(self.task, Data):
            raise ValueError("inside: expected rows that the sweep has not seen, got None")
        assert self.columns.ranges is not None
        range, seed = self.columns.ranges[number][int(outside)], int(self.columns.seeds[number])
        x = self.task.test_inputs(outside, range, seed, samples, torch.float64, fresh=True)
        return x, self.test_targets(number, x, outside=outside)

    def starts(self, rows: Tensor) -> Tensor:
        """Where the subsets of these runs begin: int64 (len(rows), 2)."""
        assert isinstance(self.task, Arithmetic)
        return self.task.starts(self.columns.seeds[rows])

    def training_range(self, number: int) -> Range:
        """Of run ``number``."""
        assert self.columns.ranges is not None
        return self.columns.ranges[number][0]

    def describe(self) -> dict[str, Any]:
        """All that has to be the same for a training to go on, as JSON has it."""
        rule = self.success
        return {
            "stream": stream.VERSION,
            "stack": self.stack.describe(),
            "task": self.task.describe(),
            "steps": self.steps,
            "batch_size": self.batch_size,
            "test_every": self.test_every,
            "optimizer": self.optimizer,
            "loss": self.loss,
            "success": getattr(rule, "__qualname__", "function") if callable(rule) else rule,
            "thresholds": fingerprint(self.thresholds),
            "stop": self.stop,
            "dtype": str(self.dtype).removeprefix("torch."),
            "initial": None if self.initial is None else fingerprint(self._initial),
            "rows": len(self),
            "columns": {name: hash_of(cells) for name, cells in self.columns.table.columns.items()},
            "index": hash_of(self.columns.table.index),
        }

    def part(self, rows: list[int]) -> dict[str, Any]:
        """Arguments for a specification of some of the runs alone."""
        table = self.columns.table
        columns = {name: [column[row] for row in rows] for name, column in table.columns.items()}
        return {
            "stack": self.stack.template,
            "task": self.task,
            "runs": Runs(columns, [table.index[row] for row in rows]),
            "steps": self.steps,
            "batch_size": self.batch_size,
            "test_every": self.test_every,
            "optimizer": self.optimizer,
            "loss": self.loss,
            "success": self.success,
            "stop": self.stop,
            "dtype": self.dtype,
        }


def plain(value: Any) -> Any:
    """A cell of the table as JSON has it."""
    if isinstance(value, Distribution):
        return describe_range(value)
    return [plain(part) for part in value] if isinstance(value, tuple) else value


def hash_of(column: list[Any]) -> str:
    """Of its cells, as ``spec.json`` has it."""
    text = json.dumps([plain(value) for value in column])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _count(name: str, value: Any) -> int:
    count = check_int(name, value)
    if not 1 <= count < 2**62:
        expected = "at least 1" if count < 1 else "less than 2**62"
        raise ValueError(f"{name}: expected {expected}, got {count}")
    return count


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    if value.lower() not in known:  # published.SETTINGS and torch.optim have "Adam"
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    return value.lower()
