"""How much of its time a search has used."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from nalu_kernels.fit.clock import Clock

pytest.importorskip("tqdm")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def moving() -> list[str]:
    """Threads that move a bar."""
    return [thread.name for thread in threading.enumerate() if "_move" in thread.name]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Clock("searching", 30):
        assert moving()
        time.sleep(1.1)
    assert not moving()
    assert "searching: " in terminal.getvalue() and "1 of at most 30 s" in terminal.getvalue()
    last = terminal.getvalue().rpartition("s\r")[2]
    assert not last.strip()  # it goes when the search has ended


def test_the_bar_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyboardInterrupt), Clock("searching", 30):
        raise KeyboardInterrupt
    assert not moving()


def test_a_line_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with Clock("searching", 30):
        pass
    assert capsys.readouterr().err == "searching: at most 30 s\n"
