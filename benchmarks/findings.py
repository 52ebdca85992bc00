"""What the tables of examples/RESULTS.md found, a row a model: for docs/family.md. The iNALU's
tasks, of other distributions and with gates in turn, have a table of their own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from nalu_kernels.experiments.benchmark import rate_and_interval

from . import markdown

RESULTS = Path(__file__).parent.parent / "examples" / "results"


class Column(NamedTuple):
    """Trials of an experiment whose task begins like this, all its ranges together."""

    experiment: str
    task: str
    said: str


TABLES = (
    (
        *(
            Column("single", task, f"one layer, {task}")
            for task in ("a + b", "a - b", "a * b", "a / b")
        ),
        *(
            Column("testbench", task, f"two layers, 100 inputs, {task}")
            for task in ("a + b", "a - b", "a * b")
        ),
        Column("division", "2 inputs", "`division`, 2 inputs, a / b"),
        Column("division", "10 inputs", "`division`, 10 inputs, a / b"),
    ),
    tuple(
        Column("inalu", task, f"`inalu`, {task}") for task in ("a + b", "a - b", "a * b", "a / b")
    ),
)


def trials(folder: Path) -> list[dict[str, Any]]:
    """Of all results in ``folder``, each with the name of its experiment."""
    found = []
    for path in sorted(folder.glob("*/results.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        name = results["experiment"]
        found += [{**trial, "experiment": name} for trial in results["trials"]]
    return found


def section(folder: Path = RESULTS) -> str:
    """Success in per cent, with Wilson's interval."""
    known = trials(folder)
    return "\n\n".join(_table(known, columns) for columns in TABLES)


def _table(known: list[dict[str, Any]], columns: tuple[Column, ...]) -> str:
    solved: Counter[tuple[str, Column]] = Counter()
    total: Counter[tuple[str, Column]] = Counter()
    for trial in known:
        for column in columns:
            if trial["experiment"] == column.experiment and trial["task"].startswith(column.task):
                total[trial["model"], column] += 1
                solved[trial["model"], column] += trial["status"] == "solved"
    rows = [["model", *(column.said for column in columns)]]
    for model in dict.fromkeys(model for model, _ in total):
        cells = [
            rate_and_interval(solved[model, column], total[model, column])
            if total[model, column]
            else ""
            for column in columns
        ]
        rows.append([model, *cells])
    return markdown.table(rows, left=1)
