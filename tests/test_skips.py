"""Skipped tests are counted by reason, in one line."""

from __future__ import annotations

from types import SimpleNamespace

import skips


def test_one_line_for_all_reasons() -> None:
    reasons = ["Skipped: no nvcc here", "Skipped: torch finds no GPU", "Skipped: no nvcc here"]
    reports = [SimpleNamespace(longrepr=("a.py", 7, reason)) for reason in reasons]
    lines: list[str] = []
    reporter = SimpleNamespace(getreports=lambda _: reports, write_line=lines.append)
    skips.pytest_terminal_summary(reporter)
    assert lines == ["skipped: 2 no nvcc here; 1 torch finds no GPU"]
    reports.clear()
    skips.pytest_terminal_summary(reporter)
    assert len(lines) == 1
