"""Options, the run's measurements, and the table at its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from . import machine, table
from .cases import ALL, QUICK, Case
from .contenders import NAMES
from .speed import Measured, measure, record

RESULTS = Path(__file__).parent / "results" / "cpu.json"
BUDGET_S = 1.5  # of each case, all contenders together
MEASURED = pytest.StashKey[dict[Case, Measured]]()
LOAD = pytest.StashKey[float | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nalu_kernels")
    group.addoption("--quick", action="store_true", help="only the five shapes that matter most")
    group.addoption(
        "--results",
        type=Path,
        help=f"where to write the measurements (a whole run: {RESULTS.name} in benchmarks/results)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # One table, of ratios; pytest-benchmark's own would be one per case (--benchmark-verbose).
    config.option.benchmark_quiet = True
    config.stash[MEASURED] = {}
    config.stash[LOAD] = machine.load()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = QUICK if metafunc.config.getoption("quick") else ALL
        metafunc.parametrize("case", cases, ids=[case.id for case in cases])
        metafunc.parametrize("contender", NAMES)


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Callable[[Case], Measured]:
    """Measures all contenders of a case, interleaved, when the first of them is asked for."""
    done = pytestconfig.stash[MEASURED]

    def get(case: Case) -> Measured:
        if case not in done:
            done[case] = measure(case, budget_s=BUDGET_S)
        return done[case]

    return get


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    done = config.stash[MEASURED]
    if not done:
        return
    results = {
        "machine": {**machine.describe(), "load_before": config.stash[LOAD]},
        "cases": [record(measurement) for measurement in done.values()],
    }
    terminalreporter.section("nalu_kernels")
    terminalreporter.write_line(table.text(results))
    # A part of the run must not replace a whole one.
    path = config.getoption("results") or (RESULTS if len(done) == len(ALL) else None)
    if path is None:
        terminalreporter.write_line("Not written: a part of the run (--results PATH writes it).")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        terminalreporter.write_line(f"Written to {path}")
