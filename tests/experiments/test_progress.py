"""How far a run is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from nalu_kernels.experiments import progress

pytest.importorskip("tqdm")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.Progress("words", trials=4, steps=1000) as shown:
        shown.show(1, 250)
        shown._bar.refresh()
    assert "words" in terminal.getvalue() and " 25%" in terminal.getvalue()
    assert "1 of 4 trials" in terminal.getvalue()


def test_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.Progress("words", trials=4, steps=1000) as shown:
        shown.show(1, 250)
        assert capsys.readouterr().err == "", "not a line for each step"
        monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
        shown.show(2, 500)
        assert "words: 2 of 4 trials, 500 of 1,000 steps" in capsys.readouterr().err
        monkeypatch.setattr(progress, "_LINE_SECONDS", 1e9)
        shown.show(4, 1000)
        assert "words: 4 of 4 trials, 1,000 of 1,000 steps" in capsys.readouterr().err
