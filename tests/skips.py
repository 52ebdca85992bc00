"""At the end of a run: how many tests were skipped, by reason, in one line."""

from __future__ import annotations

from collections import Counter

import pytest


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """As it was given to pytest."""
    assert isinstance(report.longrepr, tuple)
    _, _, words = report.longrepr
    return words.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = Counter(map(reason, terminalreporter.getreports("skipped")))
    if counts:
        parts = (f"{count} {words}" for words, count in counts.most_common())
        terminalreporter.write_line(f"skipped: {'; '.join(parts)}")
