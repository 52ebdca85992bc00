"""How far a training is: a bar on a terminal, whole lines elsewhere."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest

from nalu_kernels import NAC, sweep
from nalu_kernels.sweep import progress

SCRIPT = """
from nalu_kernels import NAC, sweep
task = sweep.Arithmetic("a + b", in_features=2, samples=10)
result = sweep.run(NAC(2, 1), task, {"seed": [0, 1]}, steps=5, backend="reference")
"""


def test_not_every_step_is_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.Progress("words", 4, "trials", steps=1000) as shown:
        shown.show(0, 0)
        shown.show(1, 250)
        assert capsys.readouterr().err == "words: 0 of 4 trials; 0 of 1,000 steps; 0 s\n"
        monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
        shown.show(2, 500, ", 1 solved")
        assert "words: 2 of 4 trials, 1 solved; 500 of 1,000 steps" in capsys.readouterr().err
        monkeypatch.setattr(progress, "_LINE_SECONDS", 1e9)
        shown.show(4, 1000)
        assert "words: 4 of 4 trials; 1,000 of 1,000 steps" in capsys.readouterr().err


def test_quiet_is_nothing_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    task = sweep.Arithmetic("a + b", in_features=2, samples=10)
    sweep.run(NAC(2, 1), task, {"seed": [0, 1]}, steps=5, backend="reference", quiet=True)
    stopped = sweep.run(
        *(NAC(2, 1), task, {"seed": [0]}),
        steps=10**6,
        backend="reference",
        seconds=0.01,
        quiet=True,
    )
    assert stopped.stopped == "seconds" and capsys.readouterr().err == ""
    with pytest.raises(TypeError, match="quiet: expected True or False, got int"):
        sweep.run(NAC(2, 1), task, {"seed": [0]}, steps=5, quiet=1)


def test_in_a_notebook_it_is_whole_lines() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SCRIPT)])
    nbclient.NotebookClient(notebook, timeout=300).execute()
    outputs = notebook.cells[0].outputs
    assert {(output.output_type, output.name) for output in outputs} == {("stream", "stderr")}
    text = "".join(output.text for output in outputs)
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
    lines = text.splitlines()
    assert lines[0].startswith("sweep: 0 of 2 runs") and lines[-1].startswith("sweep: 2 of 2 runs")


def test_on_a_terminal_it_is_a_bar() -> None:
    pytest.importorskip("tqdm")
    pty = pytest.importorskip("pty")
    fcntl, termios = (pytest.importorskip(module) for module in ("fcntl", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux says so of a terminal that nobody holds any more
        pass
    os.close(ours)
    assert process.wait() == 0
    assert b"sweep: 100%" in shown and b"2 of 2 runs, 0 solved" in shown
