"""Standard output and error that are full, closed, or read by nobody."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from nalu_kernels.__main__ import main

for package in ("matplotlib", "tqdm"):
    pytest.importorskip(package)
if not Path("/dev/full").exists():
    pytest.skip("no /dev/full on this system", allow_module_level=True)

FULL = "python -m nalu_kernels: error: standard output: write error: No space left on device\n"


@pytest.fixture
def full() -> Iterator[IO[str]]:
    with open("/dev/full", "w") as stream:
        yield stream


@pytest.fixture
def unread() -> Iterator[IO[str]]:
    """As ``| true`` leaves it."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        yield stream


def run_identity(out: Path) -> int:
    size = ["--models", "NAC", "--seeds", "1", "--steps", "3", "--jobs", "1"]
    return main(["identity", *size, "--out", str(out)])


@pytest.mark.parametrize("arguments", [[], ["identity", "--help"]], ids=str)
def test_a_listing_into_a_full_file_or_to_nobody(
    arguments: list[str],
    full: IO[str],
    unread: IO[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", full)
    assert main(arguments) == 1
    assert capsys.readouterr().err == FULL
    monkeypatch.setattr(sys, "stdout", unread)
    assert main(arguments) == 141
    assert capsys.readouterr().err == ""


def test_python_says_nothing_of_its_own_when_it_ends(full: IO[str]) -> None:
    command = [sys.executable, "-m", "nalu_kernels"]
    done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, FULL)


def test_a_run_whose_reader_ends_before_the_table_is_saved_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class HeadOfFour(io.StringIO):
        def write(self, text: str) -> int:
            if self.getvalue().count("\n") >= 4:
                raise BrokenPipeError(32, "Broken pipe")
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", HeadOfFour())
    assert run_identity(tmp_path) == 141
    assert "write error" not in capsys.readouterr().err
    assert '"claims": [' in (tmp_path / "results.json").read_text()
    assert (tmp_path / "plot.png").is_file()


def test_a_run_into_a_full_file(
    tmp_path: Path,
    full: IO[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", full)
    assert run_identity(tmp_path) == 1
    assert capsys.readouterr().err == FULL


def test_a_run_with_standard_error_closed_or_full(
    tmp_path: Path,
    full: IO[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place, stream in enumerate((None, full)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert run_identity(tmp_path / str(place)) == 0
        assert "NAC stack exact outside" in capsys.readouterr().out
        assert main(["nonsense"]) == 2
        assert capsys.readouterr().out == "", "an error is not for standard output"


def test_standard_output_that_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main([]) == 1
    assert capsys.readouterr().err.endswith(
        "error: standard output: write error: Bad file descriptor\n"
    )
