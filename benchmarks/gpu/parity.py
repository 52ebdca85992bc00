"""The step ``parity``: the tests that need a GPU, in several processes at once.

Most of their time goes into compiling kernels, which one process does on one core.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from .children import TAIL, Ended, processes, python, run_all
from .results import OUT_OF_TIME, Clock, Results

STEP = "parity"
SHARE_OF_TIME = 1 / 3
# A dry run collects everything, and runs a few tests that need no GPU.
DRY_TESTS = ("tests/test_parity_rule.py", "-k", "one_wrong_element or cliffs")


def _command(record: Path, share: str, dry_run: bool) -> list[str]:
    tests = DRY_TESTS if dry_run else ("tests", "-m", "gpu and not long")
    return [
        *python("-m", "pytest", "-q", "-p", "benchmarks.gpu.record_tests"),
        *("-p", "no:cacheprovider", "--continue-on-collection-errors"),
        *("--record", str(record), "--share", share, *tests),
    ]


def read(record: Path) -> tuple[dict[str, dict[str, str]], str | None, int]:
    """Outcomes by test, the test that was not ended, and how many were collected."""
    outcomes: dict[str, dict[str, str]] = {}
    running, collected = None, 0
    for line in record.read_text().splitlines() if record.exists() else ():
        event: dict[str, Any] = json.loads(line)
        if "begin" in event:
            running = event["begin"]
        elif "collected" in event:
            collected = event["collected"]
        else:
            # A test that passed may still fail while it is torn down.
            outcomes[event["test"]] = {"outcome": event["outcome"], "why": event["why"]}
            running = None if running == event["test"] else running
    return outcomes, running, collected


def summarise(ended: dict[str, Ended], records: dict[str, Path]) -> dict[str, Any]:
    """Counts, and the reasons of whatever did not pass. Tests that the time did not suffice for
    are not run; they did not fail."""
    outcomes: dict[str, dict[str, str]] = {}
    failing: dict[str, str] = {}
    cut: list[str] = []
    collected = 0
    for share, end in ended.items():
        found, running, count = read(records[share])
        outcomes |= found
        collected += count
        if end.status is None:
            cut.append(running or f"share {share}")
        elif end.status not in (0, 1, 5):  # passed, failed, none collected
            failing[running or f"share {share}"] = f"{end}: {end.output[-TAIL:].strip()}"
    by_outcome: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for test, outcome in outcomes.items():
        by_outcome[outcome["outcome"]].append(test)
    failing |= {test: outcomes[test]["why"] for test in by_outcome["failed"]}
    skipped = sorted({outcomes[test]["why"] for test in by_outcome["skipped"]})
    return {
        "collected": collected,
        **{name: len(tests) for name, tests in by_outcome.items()},
        "not_run": max(0, collected - len(outcomes)),
        "failing": failing,
        "cut": cut,
        "why_skipped": skipped,
    }


def run(results: Results, clock: Clock, environment: dict[str, str], dry_run: bool) -> None:
    count = 1 if dry_run else processes()
    shares = [f"{share}/{count}" for share in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        records = {share: Path(folder) / share.replace("/", "-") for share in shares}
        commands = {share: _command(records[share], share, dry_run) for share in shares}
        ended = run_all(commands, environment, clock.part(SHARE_OF_TIME))
        found = summarise(ended, records)
    for test, why in found["failing"].items():
        results.fail(test, why)
    for test in found["cut"]:
        results.skip(test, OUT_OF_TIME)
    if not found["passed"] and not found["failing"]:
        results.fail(STEP, "no test passed")
    print(
        f"parity: {found['passed']} passed, {len(found['failing'])} failing, "
        f"{found['skipped']} skipped, {found['not_run']} not run",
        flush=True,
    )
    results.step(STEP, **found)
