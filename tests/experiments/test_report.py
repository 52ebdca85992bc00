"""Short numbers, and files that are never half written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nalu_kernels.experiments import report


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    report.write_json(path, {"kept": [1.5, math.inf, math.nan]})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        report.write_atomic(path, fail)
    assert json.loads(path.read_text()) == {"kept": [1.5, None, None]}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_a_line_for_each_object(tmp_path: Path) -> None:
    numbers = {"a": 1, "rows": [{"x": 1.5}, {"x": "y\n"}], "none": [], "list": [1, 2]}
    report.write_json(tmp_path / "file", numbers)
    text = (tmp_path / "file").read_text()
    assert json.loads(text) == numbers
    assert text.count("\n") == 9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00123456, "0.00123"),
        (0.000123456, "1.2e-04"),
        (7.5, "7.50"),
        (99.96, "100"),
        (999.7, "1000"),
        (427.4, "427"),
        (12345.0, "1.2e+04"),
        (math.inf, "overflow"),
        (math.nan, "overflow"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert report.number(value) == text


def test_nan_is_the_worst_error() -> None:
    assert report.median([math.nan, 1.0, 2.0]) == 2.0
    assert report.best([math.nan, 3.0]) == 3.0
    assert report.median([math.nan, math.nan, 1.0]) == math.inf
    assert report.finite({"a": [math.nan, None, 1.0, "x", True]}) == {
        "a": [math.inf, math.inf, 1.0, "x", True]
    }


def test_how_often() -> None:
    assert report.how_often([True, True]) == "yes, on 2 of 2 seeds"
    assert report.how_often([True, False, False]) == "partly, on 1 of 3 seeds"
    assert report.how_often([False]) == "no, on 0 of 1 seed"
