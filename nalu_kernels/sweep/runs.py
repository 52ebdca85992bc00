"""The table of runs: a row is a training with its own seed, rates and ranges."""

from __future__ import annotations

import difflib
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .tasks import AnyRange, Distribution, Range, Task, check_range

# torch.optim's own defaults. Beside them every optimizer takes clip_value and clip_norm.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 1e-3, "weight_decay": 0.0, "momentum": 0.0},
    "rmsprop": {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0},
    "adam": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
}
_CLIP = {"clip_value": math.inf, "clip_norm": math.inf}
# What the layers' publications add to the loss; without l1_last, l1 stays as it is, and without
# ramp_stop the regularizer counts in full after ramp_start.
_TERMS = {
    "regularizer": 0.0, "ramp_start": 0.0, "ramp_stop": 0.0, "regularizer_below": math.inf,
    "l1": 0.0, "l1_last": math.inf, "l1_every": 10_000.0,
}  # fmt: skip
# How the iNALU's authors train: steps in turn for weights and gates, a new beginning, and steps for
# saturation alone.
_TURNS = {
    "weight_steps": 0.0, "gate_steps": 0.0, "restart_above": math.inf, "restart_after": 10_000.0,
    "saturation": 0.0, "saturation_start": 0.0, "saturation_below": math.inf,
}  # fmt: skip
# What a column says something of.
_BESIDE = {
    "ramp_start": "regularizer", "ramp_stop": "regularizer", "regularizer_below": "regularizer",
    "l1_last": "l1", "l1_every": "l1", "restart_after": "restart_above",
    "saturation_start": "saturation", "saturation_below": "saturation",
}  # fmt: skip
# None or infinite: no bound.
_ENDLESS = {*_CLIP, "regularizer_below", "l1_last", "restart_above", "saturation_below"}
# As csrc/training.h has them; beta2 is RMSprop's alpha too.
HYPER = (
    "lr", "beta1", "beta2", "eps", "weight_decay", "momentum", *_CLIP, *_TERMS, *_TURNS,
)  # fmt: skip
RANGES = ("train", "test")
MADE = (
    "run", "status", "steps", "solved_at", "error_inside", "error_outside", "best_step", "sparsity",
    "seconds", "backend", "stop",
)  # fmt: skip
_KNOWN = {"seed", "betas", "alpha", *HYPER, *RANGES}
_BELOW_ONE = ("beta1", "beta2", "alpha")
_STEPS = {"l1_every": 1, "weight_steps": 0, "gate_steps": 0}  # whole numbers, and the least
_SCALARS = (type(None), bool, int, float, str)
_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__index__), (float, float.__float__), (str, str.__str__),
)  # fmt: skip
# Names that are no labels: of sweep.run's arguments, and what others call them or a column.
_OF_THE_CALL = {
    *("stack", "task", "runs", "steps", "batch_size", "test_every", "optimizer", "loss", "success"),
    *("stop", "initial", "backend", "device", "threads", "out", "executor", "callback", "seconds"),
    *("dtype", "quiet"),
}
_ALIASES = {"LR": "lr", "learning_rate": "lr"}
# Terms that published.SETTINGS have and no sweep adds to the loss, and what it has.
_OF_SETTINGS = {
    "weights": "it is part of 'regularizer'",
    "gate": "it is part of 'regularizer'",
    "inputs": "a sweep has no term of a layer's inputs",
}
_OF_THE_CALL_TOO = {"batch": "batch_size", "layer": "stack", "operation": "task"}


class Runs:
    """Columns of equal length, and a number for each row that slices keep.

    ``runs["lr"]`` is a column, ``runs[i::n]`` every n-th row, ``len(runs)`` the number of rows.
    Scalars of numpy and torch become Python's own, and lists become tuples. An index that is not
    of ints in [0, 2**63) gives way to the rows' numbers.
    """

    def __init__(self, columns: Mapping[str, Iterable[Any]], index: Sequence[int] | None = None):
        self.columns = {name: list(map(_own, _plain(column))) for name, column in columns.items()}
        lengths = {name: len(column) for name, column in self.columns.items()}
        labels = range(next(iter(lengths.values()), 0)) if index is None else index
        self.index: list[int] = list(map(_own, _plain(labels)))
        count = len(self.index)
        if not set(lengths.values()) <= {count}:
            raise ValueError(
                f"runs: expected columns of one length, got {lengths} and an index of {count}"
            )
        if not all(type(label) is int and 0 <= label < 2**63 for label in self.index):
            self.index = list(range(count))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: str | slice) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        if not isinstance(key, slice):
            raise TypeError(f"runs: expected a column's name or a slice, got {key!r}")
        cut = {name: column[key] for name, column in self.columns.items()}
        return Runs(cut, self.index[key])

    def row(self, number: int) -> dict[str, Any]:
        """A row's values by column."""
        return {name: column[number] for name, column in self.columns.items()}

    def __repr__(self) -> str:
        return f"Runs({len(self)} rows of {', '.join(self.columns)})"


def grid(**columns: Any) -> Runs:
    """Every combination of the values, the last column changing fastest.

    >>> len(grid(seed=range(100), lr=[1e-3, 1e-2]))
    200

    Args:
        columns: for each its values; a single number or word stands for itself.
    """
    given = map(_plain, columns.values())
    rows = list(
        itertools.product(*(column if _is_column(column) else [column] for column in given))
    )
    return Runs({name: [row[place] for row in rows] for place, name in enumerate(columns)})


def as_runs(runs: Any) -> Runs:
    """A DataFrame, a dict of columns, a list of dicts or ``grid(...)`` as Runs.

    Raises:
        TypeError, ValueError: it is none of them, has no row, or columns of several lengths.
    """
    if isinstance(runs, Runs):
        table = Runs(runs.columns, runs.index)
    elif hasattr(runs, "to_dict") and hasattr(runs, "columns"):
        table = _of_frame(runs)
    elif isinstance(runs, Mapping):
        for name, column in runs.items():
            if not _is_column(_plain(column)):
                raise TypeError(f"runs[{name!r}]: expected a column, got {column!r}")
        table = Runs(runs)
    elif isinstance(runs, (list, tuple)) and not runs:
        raise ValueError(f"runs: expected at least one row, got an empty {type(runs).__name__}")
    elif isinstance(runs, Sequence) and runs and all(isinstance(row, Mapping) for row in runs):
        names = list(runs[0])
        for number, row in enumerate(runs):
            if list(row) != names:
                raise ValueError(f"runs, row {number}: expected columns {names}, got {list(row)}")
        table = Runs({name: [row[name] for row in runs] for name in names})
    else:
        raise TypeError(
            "runs: expected a DataFrame, a dict of columns, a list of dicts or sweep.grid(...), "
            f"got {type(runs).__name__}"
        )
    if not len(table):
        raise ValueError("runs: expected at least one row")
    if len(set(table.index)) < len(table):
        raise ValueError("runs: expected an index without repetitions (frame.reset_index())")
    return table


def _of_frame(frame: Any) -> Runs:
    names = list(frame.columns)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"runs: expected columns of different names, got {name!r} twice")
    return Runs({name: frame[name] for name in names}, frame.index)


def _plain(column: Any) -> Any:
    """Python's numbers, of a tensor's or an array's too."""
    return column.tolist() if hasattr(column, "tolist") else column


def _is_column(given: Any) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str)


def _own(value: Any) -> Any:
    """A cell with Python's own scalars and tuples, as a folder gives it back."""
    if type(value) in _SCALARS:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    if isinstance(value, Distribution):
        return type(value)(*map(_own, value))
    if isinstance(value, (tuple, list)):
        return tuple(map(_own, value))
    for kind, exact in _EXACT:
        if isinstance(value, kind):  # an IntEnum, say
            return exact(value)
    return value


class Columns:
    """What the columns say, checked.

    Attributes:
        table: the columns as given, with ``seed`` if that was missing; ints among floats are
            floats where that changes no number.
        seeds: int64 (runs).
        hyper: float64 (runs, 22), in the order of HYPER.
        ranges: for each run the ranges of training and of the test outside; None for Data.

    Raises:
        TypeError, ValueError: naming column and row.
    """

    def __init__(self, runs: Any, task: Task, optimizer: str) -> None:
        table = as_runs(runs)
        _check_names(table, task, optimizer)
        if "seed" not in table.columns:
            table = Runs({"seed": [0] * len(table), **table.columns}, table.index)
        self.seeds = torch.tensor([_seed(*cell) for cell in _cells(table, "seed")])
        self.hyper = _hyper(table, optimizer)
        self.ranges = _ranges(table, task)
        self.table = Runs({name: _kept(table, name) for name in table.columns}, table.index)

    def __len__(self) -> int:
        return len(self.table)

    def labels(self) -> set[str]:
        """The columns that mean nothing to a training."""
        return self.table.columns.keys() - _KNOWN


def _cells(table: Runs, name: str) -> Iterator[tuple[str, Any]]:
    for number, value in enumerate(table[name]):
        yield f"runs[{name!r}], row {number}", value


def _kept(table: Runs, name: str) -> list[Any]:
    """A column as a folder keeps it."""
    for where, value in _cells(table, name):
        _check_kept(where, value)
    column: list[Any] = table[name]
    exact = all(type(value) is not int or float(value) == value for value in column)
    if exact and {type(value) for value in column} - {type(None)} == {int, float}:
        return [value if value is None else float(value) for value in column]
    return column


def _check_kept(where: str, value: Any) -> None:
    if isinstance(value, Distribution):
        check_range(where, value)
    elif isinstance(value, tuple):
        for part in value:
            _check_kept(where, part)
    elif type(value) not in _SCALARS:
        raise TypeError(
            f"{where}: expected None, bool, int, float, str or a tuple of them, got "
            f"{type(value).__name__}"
        )
    elif type(value) is int and not -(2**63) <= value < 2**63:
        raise ValueError(f"{where}: expected an int of 64 bits, got one of {value.bit_length()}")
    elif isinstance(value, str) and value.encode(errors="replace").decode() != value:
        raise ValueError(f"{where}: expected text that UTF-8 can encode, got {value!r}")


def _check_names(table: Runs, task: Task, optimizer: str) -> None:
    allowed = {*OPTIMIZERS[optimizer], *_CLIP, *_TERMS, *_TURNS}
    if optimizer == "adam":
        allowed.add("betas")
    for name in table.columns:
        if not isinstance(name, str):
            raise TypeError(f"runs: expected columns named by str, got {name!r}")
        _check_kept(f"runs: the name {name!r}", name)
        if (argument := _OF_THE_CALL_TOO.get(name, name)) in _OF_THE_CALL:
            raise ValueError(
                f"runs: {name!r} is no column but {argument}= of sweep.run, the same for all its "
                "runs"
            )
        if name in task.__dataclass_fields__ and name not in RANGES:
            raise ValueError(
                f"runs: {name!r} is no column but {name}= of sweep.{type(task).__name__}, the same "
                "for all runs of a call"
            )
        if name in _OF_SETTINGS:
            raise ValueError(f"runs: {name!r} is no column: {_OF_SETTINGS[name]}")
        if name in MADE:
            raise ValueError(f"runs: the result has a column {name!r} of its own")
        if name in _ALIASES:
            raise ValueError(f"runs: unknown column {name!r}, did you mean {_ALIASES[name]!r}?")
        if name in RANGES and not hasattr(task, name):
            raise ValueError(f"runs: {type(task).__name__} has no range {name!r}")
        if name in _KNOWN - {"seed", *RANGES} - allowed:
            raise ValueError(f"runs: {optimizer} has no {name!r}; it takes {sorted(allowed)}")
        if name not in _KNOWN and (near := difflib.get_close_matches(name, _KNOWN, 1, 0.75)):
            raise ValueError(
                f"runs: unknown column {name!r}, did you mean {near[0]!r}? (a label needs a name "
                "less like it)"
            )
    if "betas" in table.columns and {"beta1", "beta2"} & table.columns.keys():
        raise ValueError("runs: expected betas, or beta1 and beta2, got both")


def _seed(where: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{where}: expected an int, got {value!r}")
    seed = operator.index(value)
    if not 0 <= seed < 2**63:
        raise ValueError(f"{where}: expected a seed in [0, 2**63), got {seed}")
    return seed


def _hyper(table: Runs, optimizer: str) -> Tensor:
    columns = {}
    for name, default in {**OPTIMIZERS[optimizer], **_CLIP, **_TERMS, **_TURNS}.items():
        if name in table.columns:
            columns[name] = [_positive(name, *cell) for cell in _cells(table, name)]
        else:
            columns[name] = [default] * len(table)
    if "betas" in table.columns:
        pairs = [_betas(*cell) for cell in _cells(table, "betas")]
        columns["beta1"], columns["beta2"] = map(list, zip(*pairs, strict=True))
    if "alpha" in columns:
        columns["beta2"] = columns["alpha"]
    for begin, end in (("l1", "l1_last"), ("ramp_start", "ramp_stop")):
        if end not in table.columns:
            columns[end] = columns[begin]
        for number, (first, last) in enumerate(zip(columns[begin], columns[end], strict=True)):
            if last < first:
                raise ValueError(
                    f"runs[{end!r}], row {number}: expected at least {begin} = {first}, got {last}"
                )
    for name, of in _BESIDE.items():
        if name in table.columns and of not in table.columns:
            raise ValueError(
                f"runs: expected a column {of!r} beside {name!r}, which does nothing without it"
            )
    unused = [0.0] * len(table)
    chosen = [columns.get(name, unused) for name in HYPER]
    return torch.tensor(chosen, dtype=torch.float64).T.contiguous()


def _betas(where: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"{where}: expected (beta1, beta2), got {value!r}")
    return _positive("beta1", where, value[0]), _positive("beta2", where, value[1])


def _positive(name: str, where: str, value: Any) -> float:
    """A number that may be the value of a hyperparameter of this name; None for no clipping."""
    if value is None and name in _ENDLESS:
        return math.inf
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{where}: expected a number, got {value!r}")
    number = float(value)
    if math.isnan(number) and name in _ENDLESS:  # None in a DataFrame
        return math.inf
    if math.isnan(number) or number < 0 or (name in _BELOW_ONE and number >= 1):
        ends = "[0, 1)" if name in _BELOW_ONE else "[0, inf)"
        raise ValueError(f"{where}: expected a number in {ends}, got {number}")
    if name in _STEPS and not (number.is_integer() and _STEPS[name] <= number < 2**53):
        raise ValueError(
            f"{where}: expected a whole number of steps, at least {_STEPS[name]}, got {number}"
        )
    if math.isinf(number) and name not in _ENDLESS:
        raise ValueError(f"{where}: expected a finite number, got {number}")
    return number


def _ranges(table: Runs, task: Task) -> list[tuple[Range, Range]] | None:
    if not hasattr(task, "train"):
        return None
    both = []
    for name in RANGES:
        default: AnyRange = getattr(task, name)
        if name in table.columns:
            both.append([check_range(*cell) for cell in _cells(table, name)])
        else:
            both.append([check_range(name, default)] * len(table))
    known: dict[Any, Any] = {}  # equal pairs are one object: a million rows have few
    return [known.setdefault(pair, pair) for pair in zip(*both, strict=True)]
