"""A pytest plugin: runs one of N shares of the tests, and appends each outcome to a file.

Line by line, so that a crash or a time limit loses no outcome and shows which test it met.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks.gpu")
    group.addoption("--record", type=Path, required=True, help="the file to append outcomes to")
    group.addoption("--share", default="0/1", help="I/N: the tests I, I + N, I + 2 N, …")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Recorder(config.getoption("record")), "gpu recorder")


@pytest.hookimpl(trylast=True)  # what is deselected by a mark is gone by then
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # What only a GPU can show comes first: the time may not suffice for all. Otherwise in an order
    # that is always the same and tells nothing, so that what is cut is a bit of everything.
    items.sort(
        key=lambda item: (
            item.path.name != "test_gpu.py",
            hashlib.sha256(item.nodeid.encode()).digest(),
        )
    )
    share, shares = map(int, config.getoption("share").split("/"))
    items[:] = items[share::shares]


class _Recorder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **line: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def outcome(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if isinstance(report.longrepr, tuple):  # of a skip: path, line, reason
            why = report.longrepr[2]
        else:
            why = getattr(getattr(report.longrepr, "reprcrash", None), "message", "")
            why = why or report.longreprtext
        self.write(test=report.nodeid, outcome=report.outcome, why=why[:500])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self.outcome(report)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.write(collected=len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write(begin=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.outcome(report)
