"""The columns of a file, as they stand there: CSV, TSV, Parquet."""

from __future__ import annotations

import csv
import importlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nalu_kernels.experiments.refusal import Refusal
from nalu_kernels.sweep.extras import optional

TEXT, PARQUET = (".csv", ".tsv"), (".parquet", ".pq")
_SEPARATORS = ",;\t|"  # of .csv; of equals the first
_NAMED = re.compile(r'sep=([^"\r\n])\r?\n')  # the separator, by the first line
_MAGIC = {
    b"PAR1": "a Parquet file; call it .parquet",
    b"PK\x03\x04": "a ZIP archive, as Excel's workbooks are; save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
}
_BYTE_ORDERS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Columns(NamedTuple):
    """What a table has. ``values[i][k]`` is in the column ``names[i]``, in the row that is called
    ``row`` and ``places[k]``: "line 7" of a text, "row 7" of what has no lines."""

    names: list[str]
    values: list[Sequence[Any]]
    row: str
    places: Sequence[int]


class Untyped:
    """Stands for a value that is no number, of which only the ``kind`` is known."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def columns_of(path: str | os.PathLike[str]) -> Columns:
    """Reads the file, which its extension says the format of.

    Raises:
        Refusal: it cannot be read, or is no table.
        ImportError: for Parquet, pyarrow is missing.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            raise Refusal(f"{printable(path)}: expected a file, got a folder")
        if suffix not in TEXT + PARQUET:
            known = f"{', '.join(TEXT)} or {PARQUET[0]}"
            raise Refusal(f"{printable(path)}: expected a file whose name ends in {known}")
        if path.exists() and not path.is_file():
            raise Refusal(f"{printable(path)}: expected a file, got a device or a pipe")
        content = path.read_bytes()
    except OSError as error:
        raise Refusal(f"{printable(path)}: cannot read: {error.strerror}") from error
    except Refusal:
        raise
    except ValueError as error:  # a zero in the name
        raise Refusal(f"{printable(path)}: cannot read: {error}") from error
    if not content:
        raise Refusal(f"{printable(path)}: the file is empty")
    if suffix in PARQUET:
        return _parquet(path, content)
    return _text(path, content, "\t" if suffix == ".tsv" else None)


def printable(text: object) -> str:
    """The text, in which nothing ends a line or moves a terminal's cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def _text(path: Path, content: bytes, separator: str | None) -> Columns:
    lines = _decoded(path, content)
    if named := _NAMED.match(lines):  # by Excel
        separator, lines = named[1], "\n" + lines[named.end() :]
    if separator is None:
        first = next((line for line in lines.splitlines() if line.strip()), "")
        unquoted = re.sub(r'"[^"]*"?', "", first)
        separator = max(_SEPARATORS, key=unquoted.count)
    reader = csv.reader(io.StringIO(lines, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    places: list[int] = []
    try:
        for fields in reader:
            if not any(map(str.strip, fields)):  # a line of nothing, or of separators
                continue
            if not header:
                header = [field.strip() for field in fields]
                continue
            if len(fields) != len(header):
                raise Refusal(
                    f"{printable(path)}: line {reader.line_num} has "
                    f"{_count(len(fields), 'field')}, the line of names has {len(header)}; the "
                    f"separator is {separator!r}"
                )
            rows.append(fields)
            places.append(reader.line_num)
    except csv.Error as error:
        raise Refusal(
            f"{printable(path)}: line {reader.line_num} is not CSV: {printable(error)}; look at "
            "its quotes"
        ) from error
    if not header:
        raise Refusal(f"{printable(path)}: the file has nothing but blanks")
    if all(map(_is_number, header)):
        raise Refusal(
            f"{printable(path)}: the first line has to be the columns' names, got numbers "
            f"({header[0]!r} first)"
        )
    values: list[Sequence[Any]] = [[row[k] for row in rows] for k in range(len(header))]
    return Columns(header, values, "line", places)


def _decoded(path: Path, content: bytes) -> str:
    """The text, without the mark that some programs begin UTF-8 with."""
    for magic, what in _MAGIC.items():
        if content.startswith(magic):
            raise Refusal(f"{printable(path)}: not a text but {what}")
    encoding = next((e for mark, e in _BYTE_ORDERS.items() if content.startswith(mark)), "utf-8")
    if encoding != "utf-16" and b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise Refusal(f"{printable(path)}: not a text: line {line} has a zero byte")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Refusal(
            f"{printable(path)}: line {line} has bytes that are not {encoding.upper()}: "
            f"{content[error.start : error.start + 4]!r}; save the file as UTF-8"
        ) from error


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _parquet(path: Path, content: bytes) -> Columns:
    pyarrow, parquet = (
        optional(module, "reading Parquet", "fit") for module in ("pyarrow", "pyarrow.parquet")
    )
    try:
        table = parquet.ParquetFile(pyarrow.BufferReader(content)).read()
        values: list[Sequence[Any]] = [_plain(column) for column in table.columns]
    except Exception as error:  # of pyarrow, of many kinds
        reason = printable(" ".join(str(error).split()))
        raise Refusal(
            f"{printable(path)}: not a Parquet file, or a damaged one: {reason[:200]}"
        ) from error
    return Columns(list(table.column_names), values, "row", range(1, table.num_rows + 1))


def _plain(column: Any) -> list[Any]:
    """A column of Parquet as Python has it. Dates and what is nested stay unread: pyarrow cannot
    give Python all that they may be."""
    types = importlib.import_module("pyarrow.types")
    kind = column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
    readable = (
        types.is_null,
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_decimal,
        types.is_string,
        types.is_large_string,
    )
    if any(test(kind) for test in readable):
        return column.to_pylist()
    said = "dates or times" if types.is_temporal(kind) else f"values of type {str(kind)[:40]}"
    return [Untyped(said)] * len(column)
