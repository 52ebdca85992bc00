"""A table is read, or refused in a sentence that says what came, where, and what to do."""

from __future__ import annotations

import datetime
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from malformed import malformed

from nalu_kernels.experiments.refusal import Refusal
from nalu_kernels.fit import Table, read, table
from selection import long

ROWS = [(1 + k / 40, 3 - k / 50) for k in range(40)]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file of 40 rows with the columns a, b and y, into which a test puts what is wrong."""

    def write(
        change: Callable[[list[list[str]]], object] = lambda rows: None,
        *,
        name: str = "data.csv",
        separator: str = ",",
        encoding: str = "utf-8",
    ) -> Path:
        rows = [["a", "b", "y"], *([str(a), str(b), str(a * b)] for a, b in ROWS)]
        change(rows)
        path = tmp_path / name
        text = "\n".join(separator.join(row) for row in rows) + "\n"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def put(row: int, column: int, value: str) -> Callable[[list[list[str]]], object]:
    """Changes one field; row 0 is the line of names."""
    return lambda rows: rows[row].__setitem__(column, value)


def put_all(column: int, *values: str) -> Callable[[list[list[str]]], object]:
    """Changes a whole column, to these in turn."""
    return lambda rows: [
        row.__setitem__(column, values[k % len(values)]) for k, row in enumerate(rows[1:])
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_numbers_come_as_they_stand(write: Write, separator: str, encoding: str) -> None:
    found = read(write(separator=separator, encoding=encoding), "y")
    a, b = torch.tensor(ROWS, dtype=torch.float64).unbind(1)
    assert found.names == ("a", "b") and found.target == "y" and found.notes == ()
    assert torch.equal(found.x, torch.stack([a, b], 1)) and torch.equal(found.y, a * b)
    assert len(found) == 40 and found.x.is_contiguous() and found.y.is_contiguous()


def test_quotes_blank_lines_and_blanks_about_names(write: Write) -> None:
    def change(rows: list[list[str]]) -> None:
        rows[0][0] = ' "a, of it"'.strip()
        rows[0][1] = " b "
        rows.insert(5, [""])
        rows.insert(7, ["", "", ""])
        rows[9][1] = f"  {rows[9][1]} "

    found = read(write(change), "y")
    assert found.names == ("a, of it", "b") and len(found) == 40


def test_excel_may_name_its_separator(write: Write) -> None:
    found = read(write(lambda rows: rows.insert(0, ["sep=|"]), separator="|"), "y")
    assert found.names == ("a", "b") and len(found) == 40


def test_columns_that_are_asked_for(write: Write) -> None:
    found = read(write(), "b", ["y"])
    assert found.names == ("y",) and found.x.shape == (40, 1)
    assert read(write(), "b", "y").names == ("y",)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (put_all(1, "red", "blue"), "column 'b' is left out: it has the text 'red', not numbers"),
        (put_all(1, "2024-01-31"), "column 'b' is left out: it has the text '2024-01-31', not"),
        (put_all(1, "7"), "column 'b' is left out: it is 7 in all rows"),
        (put_all(1, "7", "", "7"), "column 'b' is left out: it is 7 in all rows"),
        (put_all(1, ""), "column 'b' is left out: it has no values"),
        (put_all(1, "", "NA", "3", "4", "-"), "column 'b' is left out: 24 of its 40 values"),
        (put(0, 1, ""), "column 2 is left out: it has no name"),
    ],
)
def test_an_input_that_is_not_fit_is_left_out_with_a_word(
    write: Write, change: Callable[[list[list[str]]], object], note: str
) -> None:
    found = read(write(change, separator=";"), "y")
    assert found.names == ("a",) and len(found) == 40
    (said,) = found.notes
    assert note in said


def test_rows_that_miss_a_value_are_left_out_with_a_word(write: Write) -> None:
    def change(rows: list[list[str]]) -> None:
        rows[4][1], rows[9][2] = "NaN", "n/a"

    found = read(write(change), "y")
    assert len(found) == 38
    assert found.notes == (
        "2 of 40 rows are left out: they miss a value (line 5, column 'b', first)",
    )


def test_rounded_integers_get_a_word(write: Write) -> None:
    found = read(write(put(3, 0, str(2**53 + 1))), "y")
    assert found.x[2, 0] == 2**53
    (note,) = found.notes
    assert "'a': integers beyond 2**53 are rounded to 16 digits (line 4 first)" in note
    assert read(write(put(3, 0, str(2**60))), "y").notes == ()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (put(7, 1, "1.5x"), {}, "'b' has to be of numbers: line 8 has the text '1.5x'; correct"),
        (put_all(1, "1,5", "2,25"), {}, "line 2 has the text '1,5' (decimals are written with a"),
        (put(7, 1, "inf"), {}, "'b' has to be of numbers: line 8 has an infinite value; correct"),
        (put(7, 1, "1e999"), {}, "line 8 has a number beyond float64's ('1e999')"),
        (put(7, 1, "true"), {}, "line 8 has the text 'true'"),
        (put(7, 1, "1_5"), {}, "line 8 has the text '1_5'"),
        (put(7, 1, "1+2j"), {}, "line 8 has the text '1+2j'"),
        (put(7, 2, "x" * 90), {}, "the target 'y' has to be of numbers: line 8 has the text 'xxxx"),
        (put_all(2, "red", "blue"), {}, "line 2 has the text 'red', and 39 more like it"),
        (put_all(2, "4"), {}, "the target 'y' is 4 in all rows: there is no law in it"),
        (put_all(2, ""), {}, "the target 'y' has no values"),
        (put_all(0, "7"), {"columns": ["a", "b"]}, "columns: 'a' can tell nothing: it is 7 in"),
        (put_all(0, "hm"), {"columns": ["a"]}, "'a' has to be of numbers: line 2 has the text"),
        (put(0, 1, "a"), {}, "columns 1 and 2 are both called 'a': give them different names"),
        (lambda rows: rows[3].pop(), {}, "line 4 has 2 fields, the line of names has 3"),
        (lambda rows: rows[3].append("1"), {}, "line 4 has 4 fields, the line of names has 3"),
        (lambda rows: rows.pop(0), {}, "the first line has to be the columns' names"),
        (lambda rows: rows.__delitem__(slice(30, None)), {}, "at least 30 rows are needed, got 29"),
        (put_all(1, "", "1", "2"), {}, "needed, got 26 of 40 rows that miss no value"),
        (lambda rows: rows.__delitem__(slice(1, None)), {}, "at least 30 rows are needed, got 0"),
        (put(3, 0, '"'), {}, "is not CSV: unexpected end of data; look at its quotes"),
        (put(3, 0, "\0"), {}, "not a text: line 4 has a zero byte"),
        (None, {"target": "z"}, "target: no column is called 'z'; there are 'a', 'b', 'y'"),
        (None, {"columns": ["a", "z"]}, "columns: no column is called 'z'"),
        (None, {"columns": ["a", "y"]}, "columns: 'y' is the target"),
        (None, {"columns": ["a", "a"]}, "columns: 'a' is there twice"),
        (None, {"columns": []}, "columns: expected at least one name"),
        (lambda rows: [row.__delitem__(slice(2)) for row in rows], {}, "'y' is the only column"),
    ],
)
def test_what_is_refused(
    write: Write,
    change: Callable[[list[list[str]]], object] | None,
    options: dict[str, object],
    message: str,
) -> None:
    path = write(change, separator=";") if change else write()
    with pytest.raises(ValueError) as caught:
        read(path, **{"target": "y", **options})  # type: ignore[arg-type]
    assert isinstance(caught.value, Refusal)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "the file is empty"),
        ("blank.csv", b" \n\n , \n", "the file has nothing but blanks"),
        ("book.csv", b"PK\x03\x04....", "not a text but a ZIP archive, as Excel's workbooks are"),
        ("parquet.csv", b"PAR1....", "not a text but a Parquet file; call it .parquet"),
        ("latin.csv", "größe,y\n1,2\n".encode("latin-1"), "line 1 has bytes that are not UTF-8"),
        ("cut.csv", b"\xff\xfea", "line 1 has bytes that are not UTF-16"),
        ("text.parquet", b"a,b\n1,2\n", "not a Parquet file, or a damaged one"),
        ("empty.parquet", b"", "the file is empty"),
        ("data.xlsx", b"", "expected a file whose name ends in .csv, .tsv or .parquet"),
        ("data", b"", "expected a file whose name ends in"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Refusal) as caught:
        read(path, "y")
    assert message in str(caught.value)


def test_places_that_hold_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, message in [
        ("folder.csv", "expected a file, got a folder"),
        ("none.csv", "cannot read: No such file or directory"),
        ("no\0ne.csv", "cannot read: embedded null byte"),
        ("x" * 300 + ".csv", "cannot read: File name too long"),
    ]:
        with pytest.raises(Refusal, match=message):
            read(tmp_path / name, "y")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(Refusal, match="got a device or a pipe"):
        read(tmp_path / "pipe.csv", "y")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_that_one_may_not_read(write: Write) -> None:
    path = write()
    path.chmod(0)
    with pytest.raises(Refusal, match="cannot read: Permission denied"):
        read(path, "y")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    a, b = ([row[k] for row in ROWS] for k in range(2))
    day = datetime.datetime(2024, 1, 31, tzinfo=datetime.timezone.utc)
    columns = {
        "a": a,
        "b": [None, *b[1:]],
        "y": [first * second for first, second in ROWS],
        "when": [day] * 40,
        "flag": [k % 2 == 0 for k in range(40)],
        "text": ["word"] * 40,
        "list": [[1, 2]] * 40,
        "whole": [2**53 + k for k in range(40)],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "data.parquet")
    found = read(tmp_path / "data.parquet", "y")
    assert found.names == ("a", "b", "whole")
    assert found.x[:, 0].tolist() == a[1:]
    assert found.notes == (
        "column 'when' is left out: it has dates or times, not numbers",
        "column 'flag' is left out: it has a boolean (True; write 1 and 0 for it to be a number), "
        "not numbers",
        "column 'text' is left out: it has the text 'word', not numbers",
        "column 'list' is left out: it has values of type list<element: int64>, not numbers",
        "column 'whole': integers beyond 2**53 are rounded to 16 digits (row 2 first)",
        "1 of 40 rows are left out: they miss a value (row 1, column 'b', first)",
    )


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'nalu-kernels\[fit\]'"):
        read(tmp_path / "data.parquet", "y")


def test_a_data_frame_is_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=["a", "b"])
    frame["y"] = frame.a * frame.b
    frame["when"] = pandas.Timestamp("2024-01-31")
    frame["z"] = 1 + 2j
    frame["whole"] = pandas.array([None, *range(39)], dtype="Int64")
    found = table(frame, "y")
    assert found.names == ("a", "b", "whole") and len(found) == 39
    assert [note.partition(" is left")[0] for note in found.notes[:2]] == [
        "column 'when'",
        "column 'z'",
    ]
    frame.columns = ["a", "a", "y", "when", "z", "whole"]
    with pytest.raises(Refusal, match="two columns are called 'a'"):
        table(frame, "y")


def test_columns_of_a_mapping() -> None:
    a, b = torch.tensor(ROWS, dtype=torch.float64).unbind(1)
    found = table({"a": a, "b": b.tolist(), "y": range(40)}, "y")
    assert found.names == ("a", "b") and torch.equal(found.x, torch.stack([a, b], 1))
    with pytest.raises(Refusal, match=r"of one length, got \{'a': 2, 'y': 1\}"):
        table({"a": [1, 2], "y": [1]}, "y")
    with pytest.raises(Refusal, match=r"there are $"):
        table({}, "y")
    assert len(table({"a": [1, 2], "y": [1, 3]}, "y", least=2)) == 2


def outcome(path: Path) -> str:
    """Of a file whose target is called y: a table that keeps its word, or one line of why not."""
    try:
        found = read(path, "y")
    except Refusal as error:
        said = str(error)
        assert said.isprintable() and len(said) < 2500 and said.startswith(str(path)), said
        return "refused"
    assert isinstance(found, Table) and len(found) >= 30
    assert found.x.shape == (len(found), len(found.names)) and found.x.isfinite().all()
    assert found.y.isfinite().all() and (found.y != found.y[0]).any()
    assert (found.x != found.x[0]).any(0).all()
    assert all(note.isprintable() for note in found.notes)
    return "read"


def check_malformed(tmp_path: Path, numbers: range) -> None:
    outcomes: Counter[str] = Counter()
    for number in numbers:
        suffix, content = malformed(number)
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content)
        outcomes[outcome(path)] += 1
    assert min(outcomes["read"], outcomes["refused"]) > len(numbers) // 20, outcomes


def test_no_malformed_file_ends_in_a_traceback(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    check_malformed(tmp_path, range(300))


@long
def test_no_malformed_file_ends_in_a_traceback_of_a_thousand(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    check_malformed(tmp_path, range(300, 1300))
