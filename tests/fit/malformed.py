"""Files that are hardly tables: drawn, and the same for the same number."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable

NAMES = ["a", "b", "y", "a", "", " ", "größe", "1", "nan", "x\ny", '"', "lambda", "y" * 300, "\x07"]
VALUES = [
    *("1", "2.5", "-3e7", "0", "", "NA", "nan", "inf", "-Infinity", "1e400", "1_000", "0x10"),
    *("9007199254740993", "0" * 6000 + "7", "9" * 6000, "1,5", "1+2j", "true", "2024-01-31"),
    *("text", "½", "١٢", "\u202e", '"', "'", "\x1b[2J", "=1+1", "-", "5" * 200_000, " 7 "),
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "cp037"]
SEPARATORS = [",", ";", "\t", "|", " ", ":", "\0", "::"]
ENDS = ["\n", "\r\n", "\r", "\n\n", "\x0b", "\u2028"]


def malformed(number: int) -> tuple[str, bytes]:
    """The extension of a file, and what stands in it."""
    rng = random.Random(number)
    ways: list[Callable[[random.Random], tuple[str, bytes]]]
    ways = [_text, _text, _mutated_text, _parquet, _mutated_parquet, _noise]
    return ways[number % len(ways)](rng)


def _plain(rng: random.Random, rows: int = 40) -> list[list[str]]:
    """A table with nothing wrong."""
    drawn = [[rng.uniform(1, 2) for _ in range(2)] for _ in range(rows)]
    return [["a", "b", "y"], *([f"{a:.6g}", f"{b:.6g}", f"{a * b:.6g}"] for a, b in drawn)]


def _suffix(rng: random.Random) -> str:
    return rng.choice([*[".csv"] * 12, ".CSV", ".tsv", ".parquet", ".xlsx", ""])


def _text(rng: random.Random) -> tuple[str, bytes]:
    table = _plain(rng, rng.choice([0, 1, 29, 30, *[40] * 8]))
    for _ in range(rng.choice([0, 0, 1, 1, 3, 60])):
        row = rng.randrange(len(table))
        what = rng.randrange(12)
        if what == 0:
            table[row] = table[row][: rng.randrange(3)]
        elif what == 1:
            table[row] = [*table[row], rng.choice(VALUES)]
        elif table[row]:
            place = rng.randrange(len(table[row]))
            table[row][place] = rng.choice(VALUES if row else NAMES)
    if rng.random() < 0.2:  # a whole column
        place, value = rng.randrange(3), rng.choice(VALUES)
        table[1:] = [[*row[:place], value, *row[place + 1 :]] for row in table[1:]]
    separator = rng.choice([*[","] * 16, *SEPARATORS])
    end = rng.choice([*["\n"] * 12, *ENDS])
    quote = rng.choice(["", "", "", '"', '"', "'"])
    text = end.join(separator.join(f"{quote}{value}{quote}" for value in row) for row in table)
    return _suffix(rng), text.encode(rng.choice([*["utf-8"] * 8, *ENCODINGS]), errors="replace")


def _mutated(rng: random.Random, content: bytes) -> bytes:
    """Bytes changed, cut out, put in; or the file cut short."""
    changed = bytearray(content)
    for _ in range(rng.choice([0, 1, 1, 4, 40])):
        place = rng.randrange(len(changed) + 1)
        what = rng.randrange(3)
        if what == 0:
            changed[place : place + 1] = rng.randbytes(1)
        elif what == 1:
            del changed[place : place + rng.randrange(1, 20)]
        else:
            changed[place:place] = rng.randbytes(rng.randrange(1, 9))
    if rng.random() < 0.2:
        del changed[rng.randrange(len(changed) + 1) :]
    return bytes(changed)


def _mutated_text(rng: random.Random) -> tuple[str, bytes]:
    text = "\n".join(",".join(row) for row in _plain(rng))
    return rng.choice([".csv", ".tsv"]), _mutated(rng, text.encode())


def _written(rng: random.Random) -> bytes:
    """Parquet with columns of any type."""
    import datetime
    import decimal

    import pyarrow
    import pyarrow.parquet

    rows = rng.choice([0, 1, 29, *[40] * 9])
    numbers = [rng.uniform(1, 2) for _ in range(rows)]
    kinds: list[Callable[[], object]] = [
        lambda: pyarrow.array(numbers),
        lambda: pyarrow.array(numbers, pyarrow.float32()),
        lambda: pyarrow.array([2**60 + k for k in range(rows)], pyarrow.int64()),
        lambda: pyarrow.array([2**64 - 1 - k for k in range(rows)], pyarrow.uint64()),
        lambda: pyarrow.array([decimal.Decimal(k) / 8 for k in range(rows)]),
        lambda: pyarrow.array([k % 2 == 0 for k in range(rows)], pyarrow.bool_()),
        lambda: pyarrow.array([f"word {k}" for k in range(rows)], pyarrow.string()),
        lambda: pyarrow.array([f"{k}" for k in range(rows)]).dictionary_encode(),
        lambda: pyarrow.array([b"\xff"] * rows, pyarrow.binary()),
        lambda: pyarrow.array([datetime.date(2024, 1, 1)] * rows, pyarrow.date32()),
        lambda: pyarrow.array([2**62 + k for k in range(rows)], pyarrow.timestamp("ns")),
        lambda: pyarrow.array([[k] for k in range(rows)], pyarrow.list_(pyarrow.int64())),
        lambda: pyarrow.array([{"k": k} for k in range(rows)]),
        lambda: pyarrow.nulls(rows),
        lambda: pyarrow.array([math.nan, math.inf, *numbers][:rows]),
        lambda: pyarrow.array([None, *numbers][:rows]),
    ]
    names = rng.choice([*[["a", "b", "y"]] * 6, ["a", "a", "y"], ["", "b", "y"], ["y"], []])
    table = pyarrow.Table.from_arrays(
        [rng.choice([*kinds[:1] * 8, *kinds])() for _ in names], names
    )
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def _parquet(rng: random.Random) -> tuple[str, bytes]:
    return rng.choice([".parquet", ".parquet", ".pq", ".csv"]), _written(rng)


def _mutated_parquet(rng: random.Random) -> tuple[str, bytes]:
    return ".parquet", _mutated(rng, _written(rng))


def _noise(rng: random.Random) -> tuple[str, bytes]:
    return _suffix(rng), rng.randbytes(rng.choice([0, 1, 4, 100, 10_000]))
