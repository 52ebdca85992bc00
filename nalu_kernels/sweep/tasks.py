"""What the runs of a sweep learn: where batches, test sets and answers come from."""

from __future__ import annotations

import ctypes
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from . import stream

OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a^2": lambda a, b: a * a,
    "sqrt(a)": lambda a, b: a.sqrt(),
}
# As they are found, without blanks: "a + b", "a+b" and "+" are one.
_NAMES = {
    short: name
    for name in OPERATIONS
    for short in (name.replace(" ", ""), name.replace("a ", "").replace(" b", ""))
}
SAMPLES = 10_000


class Normal(NamedTuple):
    """A range of inputs: normal numbers, truncated to [low, high] where bounds are given."""

    mean: float = 0.0
    std: float = 1.0
    low: float = -math.inf
    high: float = math.inf


class Exponential(NamedTuple):
    """A range of inputs: exponential numbers with this mean."""

    scale: float = 1.0


Distribution = (Normal, Exponential)
Range: TypeAlias = "Normal | Exponential | tuple[tuple[float, float], ...]"  # one or two parts
AnyRange: TypeAlias = "Normal | Exponential | tuple[float, float] | tuple[tuple[float, float], ...]"


def check_range(name: str, value: Any) -> Range:
    """A range in its one form: Normal, Exponential, or a tuple of one or two parts (low, high).

    Raises:
        TypeError, ValueError: it is none.
    """
    wanted = (
        "expected (low, high), ((low, high), (low, high)), sweep.Normal(mean, std, ...) or "
        "sweep.Exponential(scale)"
    )
    if isinstance(value, Exponential):
        scale = _number(name, wanted, value.scale)
        if not 0 < scale < math.inf:
            raise ValueError(f"{name}: expected a finite scale above 0, got {value}")
        return Exponential(scale)
    if isinstance(value, Normal):
        numbers = [_number(name, wanted, part) for part in value]
        mean, std, low, high = numbers
        if not (math.isfinite(mean) and 0 < std < math.inf and low < high):
            raise ValueError(f"{name}: expected a finite mean, std > 0 and low < high, got {value}")
        if not stream.bounds(*numbers)[1] > 0:
            raise ValueError(f"{name}: almost nothing of {value} lies within its bounds")
        return Normal(*numbers)
    if not isinstance(value, (tuple, list)) or len(value) not in (1, 2):
        raise TypeError(f"{name}: {wanted}, got {value!r}")
    parts = value if isinstance(value[0], (tuple, list)) else [value]
    checked = []
    for part in parts:
        if not isinstance(part, (tuple, list)) or len(part) != 2:
            raise TypeError(f"{name}: {wanted}, got {value!r}")
        low, high = (_number(name, wanted, end) for end in part)
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"{name}: expected finite low < high, got {value!r}")
        checked.append((low, high))
    return tuple(checked)


def _number(name: str, wanted: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {wanted}, got {value!r}") from None


def inputs(u: Tensor, range: Range, dtype: torch.dtype) -> Tensor:
    """Numbers of the range made of u in [0, 1)."""
    if isinstance(range, Normal):
        return stream.normal(u, *range, dtype)
    if isinstance(range, Exponential):
        return stream.exponential(u, range.scale, dtype)
    return stream.uniform(u, range, dtype)


class _Drawn:
    """A task whose inputs the stream draws."""

    in_features: int
    train: AnyRange
    test: AnyRange
    samples: int
    test_seed: int
    per_seed: bool

    def _check(self) -> None:
        for name, least in (("in_features", 1), ("samples", 1), ("test_seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        for name in ("train", "test"):
            object.__setattr__(self, name, check_range(name, getattr(self, name)))

    def batches(
        self, range: Range, seeds: int | Tensor, steps: int | Tensor, batch: int, dtype: torch.dtype
    ) -> Tensor:
        """Training inputs (*seeds.shape, *steps.shape, batch, in_features)."""
        return inputs(
            stream.draw(seeds, stream.TRAIN, steps, batch, self.in_features), range, dtype
        )

    def test_inputs(
        self,
        outside: bool,
        range: Range,
        seed: int,
        samples: int,
        dtype: torch.dtype,
        *,
        fresh: bool = False,
    ) -> Tensor:
        """Test inputs (samples, in_features), for a run with this seed; fresh ones are of the same
        range, and no training and no test has them."""
        which = stream.OUTSIDE if outside else stream.INSIDE
        seed = seed if self.per_seed else self.test_seed
        u = stream.drawn(seed, which, int(fresh), samples, self.in_features)
        return inputs(u, range, dtype)


@dataclass(frozen=True)
class Arithmetic(_Drawn):
    """An operation on two numbers a and b that are sums over hidden subsets of the inputs.

    The subsets are contiguous, of ⌊subset · in_features⌋ inputs each, of which ⌊overlap · that⌋ are
    in both; where they begin differs by seed. With two inputs a = x[0] and b = x[1].

    Args:
        operation: "a + b", "a - b", "a * b", "a / b", "a^2", "sqrt(a)", or "+", "-", "*", "/";
            with blanks or without.
        in_features: size of the input.
        subset, overlap: shares of the input and of the subset.
        train: range of the inputs in training and in the test inside: (low, high), two of these,
            a :class:`Normal` or an :class:`Exponential`.
        test: range of the test outside.
        samples: of each of the two test sets.
        test_seed: of the test sets, which are the same for all runs.
        per_seed: draw the test sets by each run's own seed instead.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 4.1; with two inputs,
    Mistry, Farrahi and Hare 2022, "A Primer for Neural Arithmetic Logic Modules".
    """

    operation: str
    in_features: int = 100
    subset: float = 0.25
    overlap: float = 0.5
    train: AnyRange = (1.0, 2.0)
    test: AnyRange = (2.0, 6.0)
    samples: int = SAMPLES
    test_seed: int = 0
    per_seed: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.operation, str):
            kind = type(self.operation).__name__
            raise TypeError(f"operation: expected a str, got {kind}")
        operation = _NAMES.get("".join(self.operation.split()))
        if operation is None:
            raise ValueError(
                f"operation: expected one of {', '.join(OPERATIONS)}, or +, -, *, /, got "
                f"{self.operation!r}"
            )
        object.__setattr__(self, "operation", operation)
        self._check()
        for name in ("subset", "overlap"):
            value = _number(name, "expected a number in [0, 1]", getattr(self, name))
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a number in [0, 1], got {value}")
        length, _, used = self.lengths
        if length < 1 or used > self.in_features:
            raise ValueError(
                f"subset, overlap: two subsets of {length} inputs need {used} of them, "
                f"in_features is {self.in_features}"
            )

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Length of a subset, of what both have in common, and of all inputs used."""
        if self.in_features == 2:
            return 1, 0, 2
        length = math.floor(self.subset * self.in_features)
        common = math.floor(self.overlap * length)
        return length, common, 2 * length - common

    def starts(self, seeds: Tensor) -> Tensor:
        """The first index of a's and of b's subset for each seed: int64 (len(seeds), 2)."""
        length, common, used = self.lengths
        u = stream.drawn(seeds, stream.SUBSETS, 0, 1, 1).flatten().double()
        offset = (u * (self.in_features - used + 1)).floor().long()
        return torch.stack((offset, offset + length - common), 1)

    def operands(self, x: Tensor, starts: tuple[int, int], length: int) -> tuple[Tensor, Tensor]:
        """a and b, (..., 1): sums over ``length`` inputs each, added from the first on."""
        sums = []
        for start in starts:
            total = x[..., start]
            for index in range(start + 1, min(start + length, self.in_features)):
                total = total + x[..., index]
            sums.append(total.unsqueeze(-1))
        return sums[0], sums[1]

    def targets(self, x: Tensor, starts: tuple[int, int]) -> Tensor:
        """The answers (..., 1) to inputs (..., in_features) of a run with these starts."""
        return OPERATIONS[self.operation](*self.operands(x, starts, self.lengths[0]))

    def describe(self) -> dict[str, Any]:
        """What makes it the same task, as JSON has it."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        ranges = {name: describe_range(fields[name]) for name in ("train", "test")}
        return {"task": "Arithmetic", **fields, **ranges}


@dataclass(frozen=True)
class Function(_Drawn):
    """A function of one's own on inputs that the stream draws.

    Args:
        f: takes inputs (samples, in_features) and returns targets (samples, out_features), or
            (samples,) for one output. Each row's answer has to depend on this row alone.
        in_features, train, test, samples, test_seed, per_seed: as of :class:`Arithmetic`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.
    """

    f: Callable[[Tensor], Tensor]
    in_features: int
    train: AnyRange
    test: AnyRange
    samples: int = SAMPLES
    test_seed: int = 0
    per_seed: bool = False

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise TypeError(f"f: expected a function, got {type(self.f).__name__}")
        self._check()

    def answers(self, x: Tensor) -> Tensor:
        """Targets (..., out_features) to inputs (..., in_features).

        Raises:
            TypeError, ValueError: f returned something else.
            RuntimeError: f raised an error, which is this one's cause.
        """
        rows = x.reshape(-1, self.in_features)
        try:
            y = self.f(rows.clone())  # which may work in place
        except Exception as error:
            raise RuntimeError(
                f"task: f, {self._name} of this sweep.Function, raised {type(error).__name__} for "
                f"inputs {tuple(rows.shape)}: {error}"
            ) from error
        if not isinstance(y, Tensor):
            raise TypeError(f"f: expected it to return a tensor, got {type(y).__name__}")
        if y.dim() == 1:
            y = y.unsqueeze(-1)
        if y.dim() != 2 or len(y) != len(rows):
            raise ValueError(
                f"f: expected ({len(rows)}, out_features) for inputs {tuple(rows.shape)}, got "
                f"{tuple(y.shape)}"
            )
        return y.detach().to(x.dtype).contiguous().view(*x.shape[:-1], y.shape[-1])

    def describe(self) -> dict[str, Any]:
        """What makes it the same task, as JSON has it; of f its name and some of its answers."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "f"}
        ranges = {name: describe_range(fields[name]) for name in ("train", "test")}
        tried = self.test_inputs(True, check_range("test", self.test), 0, 64, torch.float64)
        answers = fingerprint(self.answers(tried))
        return {"task": "Function", "f": self._name, "answers": answers, **fields, **ranges}

    @property
    def _name(self) -> str:
        """That of f."""
        return str(getattr(self.f, "__qualname__", type(self.f).__qualname__))


def _check_finite(name: str, table: Tensor, where: str = "") -> None:
    wrong = (~table.isfinite().all(1)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(
            f"{name}: {len(wrong)} rows are not finite{where}, row {first} is the first"
        )


@dataclass(frozen=True, eq=False)
class Data:
    """A table of one's own, shuffled anew in each epoch.

    Args:
        x, y: the table to train on: inputs (rows, in_features), targets (rows, out_features) or
            (rows,).
        x_test, y_test: the test inside, likewise.
        x_outside, y_outside: the test outside; without it the test inside serves as both.

    Raises:
        TypeError, ValueError: not tensors, or of shapes that do not fit.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    x_outside: Tensor | None = None
    y_outside: Tensor | None = None
    in_features: int = field(init=False)

    def __post_init__(self) -> None:
        if (self.x_outside is None) != (self.y_outside is None):
            raise ValueError("x_outside, y_outside: expected both or neither")
        pairs = [("x", "y"), ("x_test", "y_test")]
        if self.x_outside is not None:
            pairs.append(("x_outside", "y_outside"))
        shapes = set()
        for names in pairs:
            for name in names:
                shapes.add((name[0], self._table(name)))
                _check_finite(name, getattr(self, name))
            if len(getattr(self, names[0])) != len(getattr(self, names[1])):
                raise ValueError(f"{names[0]}, {names[1]}: expected as many rows of both")
        if len(shapes) != 2:
            raise ValueError(f"x, y: expected as many columns in all parts, got {sorted(shapes)}")
        object.__setattr__(self, "in_features", self.x.shape[1])

    def check_within(self, dtype: torch.dtype) -> None:
        """Raises ValueError if a number is beyond the range of ``dtype``."""
        where = f" in {str(dtype).removeprefix('torch.')}"
        for name in ("x", "y", "x_test", "y_test", "x_outside", "y_outside"):
            table = getattr(self, name)
            if table is not None:
                _check_finite(name, table.to(dtype), where)

    def _table(self, name: str) -> int:
        value = getattr(self, name)
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
        if name[0] == "y" and value.dim() == 1:
            value = value.unsqueeze(-1)
        if value.dim() != 2 or not value.numel():
            raise ValueError(f"{name}: expected (rows, columns), got shape {tuple(value.shape)}")
        object.__setattr__(self, name, value.detach().cpu())
        return int(value.shape[1])

    def describe(self) -> dict[str, Any]:
        """What makes it the same task, as JSON has it: shapes and hashes of the tables."""
        tables = {
            name: None if value is None else [list(value.shape), fingerprint(value)]
            for name, value in vars(self).items()
            if name != "in_features"
        }
        return {"task": "Data", **tables}


Task: TypeAlias = "Arithmetic | Function | Data"


def describe_range(value: Any) -> Any:
    """A range as JSON has it."""
    if isinstance(value, Normal):
        return {"normal": [part if math.isfinite(part) else None for part in value]}
    if isinstance(value, Exponential):
        return {"exponential": value.scale}
    return [list(part) for part in value]


def fingerprint(value: Tensor) -> str:
    """A hash of a tensor's numbers."""
    numbers = value.detach().cpu().contiguous()
    held = ctypes.string_at(numbers.data_ptr(), numbers.nbytes)
    return hashlib.sha256(held).hexdigest()[:16]
