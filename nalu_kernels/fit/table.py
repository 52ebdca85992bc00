"""A table of numbers: inputs and a target, checked before anything is fitted to them.

What is wrong with a column that nobody asked for leaves it out, with a note; what is wrong with the
target, or with a column that was asked for, is refused. docs/fit.md has the rules in a table.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nalu_kernels.experiments.refusal import Refusal

from .files import Columns, Untyped, columns_of, printable

LEAST_ROWS = 30
_MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "-", "?", "."}
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_EXACT = 2**53  # up to which float64 has every integer
_SHOWN = 40  # characters of a value that a message shows
_COMMA = " (decimals are written with a point)"
_WHERE = "correct it, or name the columns to use without it"


@dataclass(frozen=True)
class Table:
    """Numbers to find a law in; all of them are finite, and no column is constant.

    Attributes:
        names: of the inputs.
        target: the name of what is to be found.
        x: (rows, inputs), float64.
        y: (rows,), float64.
        notes: a sentence for each thing that was left out or rounded.
    """

    names: tuple[str, ...]
    target: str
    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)


def read(path: str | os.PathLike[str], target: str, columns: Sequence[str] | None = None) -> Table:
    """The table in a file.

    Args:
        path: CSV (its separator may be a comma, a semicolon, a tab or a bar), TSV or Parquet, by
            its extension. A text is UTF-8, and begins with the columns' names.
        target: the column to be found.
        columns: those to find it from; None is every other column that is fit for it.

    Raises:
        ValueError: the file is no such table; the message says what came, where, and what to do.
        ImportError: for Parquet, pyarrow is missing.
    """
    file = columns_of(path)
    try:
        return _checked(file, target, columns, LEAST_ROWS)
    except Refusal as error:
        raise Refusal(f"{printable(path)}: {error}") from error


def table(
    data: Mapping[str, Iterable[Any]],
    target: str,
    columns: Sequence[str] | None = None,
    *,
    least: int = LEAST_ROWS,
) -> Table:
    """The table of a mapping from names to columns, such as a DataFrame or a dict of lists.

    Args:
        target, columns: as in :func:`read`.
        least: fewer rows than these are refused.

    Raises:
        ValueError: as in :func:`read`.
    """
    names = list(data.keys())
    values: list[Sequence[Any]] = []
    for name in dict.fromkeys(names):
        column = data[name]
        if getattr(column, "ndim", 1) != 1:  # a DataFrame's columns of one name
            raise Refusal(f"two columns are called {name!r}: give them different names")
        values.append(column.tolist() if hasattr(column, "tolist") else list(column))
    lengths = {str(name): len(column) for name, column in zip(names, values, strict=False)}
    if len(set(lengths.values())) > 1:
        raise Refusal(f"columns have to be of one length, got {lengths}")
    rows = range(1, max(lengths.values(), default=0) + 1)
    return _checked(Columns([str(n) for n in names], values, "row", rows), target, columns, least)


class _Column(NamedTuple):
    numbers: list[float]  # NaN where missing
    missing: int
    wrong: list[tuple[int, str]]  # where no number stands, and what stands there
    rounded: int | None  # where an integer first lost digits


def _checked(file: Columns, target: str, columns: Sequence[str] | None, least: int) -> Table:
    """The table of what ``file`` has."""
    columns = [columns] if isinstance(columns, str) else columns
    _check_names(file.names, target, columns)
    notes: list[str] = []
    y = _asked(file, target, f"the target {target!r}")
    inputs: dict[str, list[float]] = {}
    for name in file.names if columns is None else columns:
        if name == target:
            continue
        if columns is not None:
            inputs[name] = _asked(file, name, f"column {name!r}", notes)
        elif (column := _offered(file, name, notes)) is not None:
            inputs[name] = column
    _check_inputs(inputs, target, notes)
    rows = torch.tensor([y, *inputs.values()], dtype=torch.float64).T
    whole = ~rows.isnan().any(1)
    kept = rows[whole]
    if len(kept) < len(rows):
        notes.append(_said_missing(file, [target, *inputs], rows, whole))
    if len(kept) < least:
        also = "" if len(kept) == len(rows) else f" of {len(rows)} rows that miss no value"
        raise Refusal(f"at least {least} rows are needed, got {len(kept)}{also}")
    if bool((kept[:, 0] == kept[0, 0]).all()):
        raise Refusal(f"the target {target!r} is {kept[0, 0]:g} in all rows: there is no law in it")
    varies = (kept[:, 1:] != kept[0, 1:]).any(0).tolist()
    for name, column, changes in zip(inputs, kept[0, 1:].tolist(), varies, strict=True):
        if not changes:
            _constant(name, column, columns is not None, notes)
    names = tuple(name for name, changes in zip(inputs, varies, strict=True) if changes)
    _check_inputs(names, target, notes)
    x = kept[:, 1:][:, torch.tensor(varies)].contiguous()
    return Table(names, target, x, kept[:, 0].contiguous(), tuple(notes))


def _check_names(names: Sequence[str], target: str, columns: Sequence[str] | None) -> None:
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if name and name in seen:
            raise Refusal(
                f"columns {seen[name]} and {number} are both called {_short(name)}: give them "
                "different names"
            )
        seen[name] = number
    there = ", ".join(map(_short, names[:20])) + (", ..." if len(names) > 20 else "")
    for what, name in [("target", target), *(("columns", name) for name in columns or ())]:
        if not name or name not in seen:
            raise Refusal(f"{what}: no column is called {_short(name)}; there are {there}")
    if columns is None:
        return
    if not columns:
        raise Refusal("columns: expected at least one name")
    if target in columns:
        raise Refusal(f"columns: {target!r} is the target, which is not to be found from itself")
    if repeated := [name for k, name in enumerate(columns) if name in columns[:k]]:
        raise Refusal(f"columns: {repeated[0]!r} is there twice")


def _asked(file: Columns, name: str, called: str, notes: list[str] | None = None) -> list[float]:
    """A column that has to be of numbers."""
    column = _read_column(file.values[file.names.index(name)])
    if len(column.numbers) and column.missing == len(column.numbers):
        raise Refusal(f"{called} has no values")
    if column.wrong:
        raise Refusal(f"{called} {_mixed(file, column)}")
    if notes is not None:
        _note_rounding(file, name, column, notes)
    return column.numbers


def _offered(file: Columns, name: str, notes: list[str]) -> list[float] | None:
    """A column that is used if it is fit for it; a note if it is not."""
    column = _read_column(file.values[file.names.index(name)])
    rows = len(column.numbers)
    there = [value for value in column.numbers if value == value]
    why = ""
    if not name:
        why = "it has no name"
    elif rows and column.missing == rows:
        why = "it has no values"
    elif 2 * len(column.wrong) > rows - column.missing and _COMMA not in column.wrong[0][1]:
        why = f"it has {column.wrong[0][1]}, not numbers"
    elif column.wrong:
        raise Refusal(f"column {_short(name)} {_mixed(file, column)}; {_WHERE}")
    elif 2 * column.missing > rows:
        why = f"{column.missing} of its {rows} values are missing"
    elif rows and there.count(there[0]) == len(there):
        _constant(name, there[0], False, notes)
        return None
    if why:
        number = file.names.index(name) + 1
        called = f"column {_short(name)}" if name else f"column {number}"
        notes.append(f"{called} is left out: {why}")
        return None
    _note_rounding(file, name, column, notes)
    return column.numbers


def _mixed(file: Columns, column: _Column) -> str:
    """Where it has something else than numbers."""
    place, what = column.wrong[0]
    count = len(column.wrong)
    more = f", and {count - 1} more like it" if count > 1 else ""
    return f"has to be of numbers: {file.row} {file.places[place]} has {what}{more}"


def _constant(name: str, value: float, asked: bool, notes: list[str]) -> None:
    said = f"it is {value:g} in all rows"
    if asked:
        raise Refusal(f"columns: {name!r} can tell nothing: {said}")
    notes.append(f"column {_short(name)} is left out: {said}")


def _note_rounding(file: Columns, name: str, column: _Column, notes: list[str]) -> None:
    if column.rounded is not None:
        notes.append(
            f"column {_short(name)}: integers beyond 2**53 are rounded to 16 digits "
            f"({file.row} {file.places[column.rounded]} first)"
        )


def _said_missing(file: Columns, names: list[str], rows: Tensor, whole: Tensor) -> str:
    first = int(whole.logical_not().nonzero()[0, 0])
    name = names[int(rows[first].isnan().nonzero()[0, 0])]
    return (
        f"{int(whole.logical_not().sum())} of {len(rows)} rows are left out: they miss a value "
        f"({file.row} {file.places[first]}, column {_short(name)}, first)"
    )


def _check_inputs(names: Iterable[str], target: str, notes: list[str]) -> None:
    if not any(True for _ in names):
        why = "; ".join(notes) or f"{target!r} is the only column"
        raise Refusal(f"no column is left to find {target!r} from: {why}"[:2000])


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 4] + "..." + shown[0]


def _read_column(values: Sequence[Any]) -> _Column:
    read, missing, wrong, rounded = [], 0, [], None
    for place, value in enumerate(values):
        number = _number(value)
        if isinstance(number, str):
            wrong.append((place, number))
            number = math.nan
        elif number != number:
            missing += 1
        elif rounded is None and abs(number) >= _EXACT and _loses_digits(value, number):
            rounded = place
        read.append(number)
    return _Column(read, missing, wrong, rounded)


def _number(value: Any) -> float | str:
    """The value as float64, NaN for a missing one; for what is no number, what it is."""
    if isinstance(value, str):
        return _number_of_text(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return math.nan
    if type(value).__name__ in ("bool", "bool_"):
        return f"a boolean ({value}; write 1 and 0 for it to be a number)"
    if isinstance(value, Untyped):
        return value.kind
    if isinstance(value, (date, time, timedelta)) or "datetime64" in type(value).__name__:
        return f"a date or time ({_short(str(value))})"
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        return f"a complex number ({_short(value)})"
    if isinstance(value, (bytes, bytearray)):
        return f"the bytes {_short(value)}"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError, ArithmeticError):
        return f"{_short(value)}, of type {type(value).__name__}"
    return "an infinite value" if math.isinf(number) else number


def _number_of_text(text: str) -> float | str:
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number) and text.isascii() and "_" not in text:
        return number
    if text.lower() in _MISSING:
        return math.nan
    if _INFINITE.fullmatch(text):
        return "an infinite value"
    if math.isinf(number):
        return f"a number beyond float64's ({_short(text)})"
    comma = re.fullmatch(r"[+-]?\d+,\d+", text)
    return f"the text {_short(text)}{_COMMA if comma else ''}"


def _loses_digits(value: Any, number: float) -> bool:
    if isinstance(value, str):
        digits = value.strip().lstrip("+-0")
        return digits.isdigit() and int(digits) != abs(number)
    return isinstance(value, numbers.Integral) and int(value) != number
