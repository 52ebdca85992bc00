"""Text tables, and results on disk."""

from __future__ import annotations

import json
import math
import os
import statistics
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WIDTH = 100  # of all that is printed


def paragraph(text: str) -> str:
    """``text`` in lines of at most WIDTH columns."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")


def median(values: Sequence[float]) -> float:
    """The median; NaN counts as worse than every number."""
    return statistics.median(finite_or_infinite(value) for value in values)


def finite_or_infinite(value: float) -> float:
    """``value``, or infinity for NaN: an error that overflowed is as bad as errors get."""
    return math.inf if math.isnan(value) else value


def best(values: Sequence[float]) -> float:
    """The smallest; NaN counts as worse than every number."""
    return min(finite_or_infinite(value) for value in values)


def number(value: float) -> str:
    """Three significant digits (two with an exponent) in at most 8 characters."""
    if not math.isfinite(value):
        return "overflow"
    if 0.001 <= abs(value) < 9999.5:
        return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".removesuffix(".")
    return f"{value:.1e}" if value else "0"


def columns(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Rows as lines: a column of negative width is flush left, the others flush right."""
    return [
        "".join(
            cell.ljust(-width) if width < 0 else cell.rjust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def how_often(successes: Sequence[bool]) -> str:
    """For example "partly, on 2 of 5 seeds"."""
    count, total = sum(successes), len(successes)
    word = "yes" if count == total else "partly" if count else "no"
    return f"{word}, on {count} of {total} seed{'s' if total > 1 else ''}"


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` fill a file beside ``path`` and then renames it: never half a file."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """The same, with infinity for NaN and for null, which is what JSON has instead of both."""
    if value is None:
        return math.inf
    if isinstance(value, float):
        return finite_or_infinite(value)
    return _each(finite, value)


def _strict(value: Any) -> Any:
    """The same, with null for what JSON has no number for (infinities and NaN)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _each(_strict, value)


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: function(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [function(item) for item in value]
    return value


def write_json(path: Path, numbers: dict[str, Any]) -> None:
    """Writes ``numbers`` as strict JSON, a line for each key and for each item of a list of
    objects; null stands for an error that overflowed."""

    def text(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n  " + ",\n  ".join(map(text, value)) + "\n ]"
        return json.dumps(_strict(value), allow_nan=False)

    lines = ",\n ".join(f"{json.dumps(key)}: {text(value)}" for key, value in numbers.items())
    write_atomic(
        path, lambda temporary: temporary.write_text(f"{{\n {lines}\n}}\n", encoding="utf-8")
    )
