"""RESULTS.md: what runs measured, from their results.json, beside published figures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from . import BESIDE, NAMES, load, narrowing
from .experiment import Comparison, Experiment, Outcome
from .refusal import Refusal
from .report import write_atomic
from .store import read, writable_folder

_INTRODUCTION = """# What the experiments measured

Made by `python -m nalu_kernels report` from the numbers in `results/` beside it; nothing here is
written by hand. `make experiments` runs the small size of each experiment and makes it anew (the
run on MNIST needs its files: `python -m nalu_kernels digits --data DIR --out
results/digits-mnist`; `discover` needs gplearn, and two hours with `--seconds 60`:
`python examples/discover.py`).
`python -m nalu_kernels` lists the experiments, `--full` runs a large size: the published one where
it is known, of `testbench`, `single`, `division` and `inalu`; the last three always have it. Times
are of this machine, with as many trials at once as it has cores. Figures of others stand beside
ours only where their source could be read; an empty place means that none could. The small sizes
are far from the published ones, so a figure that differs says little about either; the note under
each table says how ours differ.
"""


def write(folder: str, out: str) -> None:
    """Copies the finished runs of ``folder`` to ``out``/results and writes ``out``/RESULTS.md.

    Raises:
        Refusal: there is no finished run, a file is not the results of one, or ``out`` cannot be
            written.
    """
    runs = list(_runs(Path(folder)))
    if not runs:
        hint = "it is a run itself: name the folder that holds it"
        if not (Path(folder) / "results.json").is_file():
            hint = "a folder with results.json and plot.png"
        raise Refusal(f"{folder}: no finished run in it ({hint})")
    kept = writable_folder(Path(out)) / "results"
    path = Path(out) / "RESULTS.md"
    try:
        for run in runs:
            target = kept / run.name
            if target.resolve() != run.resolve():
                target.mkdir(parents=True, exist_ok=True)
                for name in ("results.json", "plot.png"):
                    write_atomic(target / name, partial(shutil.copyfile, run / name))
        text = page(kept)
        write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"--out {out}: cannot write there: {error.strerror}") from error
    print(f"{path}: {', '.join(run.name for run in runs)}")


def _runs(folder: Path) -> Iterator[Path]:
    """The folders of finished runs, in the order of NAMES, then of BESIDE."""
    names = (*NAMES, *BESIDE)
    found = []
    for path in sorted(folder.glob("*/results.json")):
        recorded = read(path)
        plotted = (path.parent / "plot.png").is_file()
        if recorded["experiment"] in names and "claims" in recorded and plotted:
            found.append((names.index(recorded["experiment"]), path.parent))
    yield from (path for _, path in sorted(found))


def page(folder: Path) -> str:
    """RESULTS.md of the runs in ``folder``, which stands beside it."""
    sections = [
        _section(run, Outcome(read(run / "results.json")), folder.name) for run in _runs(folder)
    ]
    return "\n".join([_INTRODUCTION, *sections])


def _section(run: Path, outcome: Outcome, folder: str) -> str:
    experiment = load(outcome.recorded["experiment"])
    seconds = sum(row["seconds"] for row in outcome.rows)
    options = "".join(f", {name}: {value}" for name, value in outcome.options.items() if value)
    whole = outcome.full or (outcome.seeds, outcome.steps) == experiment.full
    size = "Full size" if whole else "Small size"
    narrowed = narrowing.words(outcome.narrowed)
    if narrowed:
        size += f", {narrowed}"
    lines = [
        f"## {run.name}: {experiment.title}",
        "",
        f"{experiment.source}. {size}: {outcome.seeds} "
        f"seed{'s' if outcome.seeds > 1 else ''}, "
        f"{outcome.steps:,} {experiment.unit}{options}; {outcome.recorded['device']}, back end "
        f"{outcome.recorded['backend']}, torch {outcome.recorded['torch']}; "
        f"{seconds / 60:.1f} minutes, all trials added up.",
        "",
        "```",
        *narrowing.table(experiment, outcome),
        "```",
        "",
        *(f"- {claim}" for claim in experiment.claims(outcome)),
        "",
        *_comparison(experiment, outcome),
        f"Where ours differs: {experiment.differs}",
        "",
        f"![{run.name}]({folder}/{run.name}/plot.png)",
        "",
    ]
    return "\n".join(lines)


def _comparison(experiment: Experiment, outcome: Outcome) -> list[str]:
    rows = experiment.compare(outcome)
    if not rows:
        return []
    rows = [Comparison("", "ours", "published", "source"), *rows]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [lines[0], "|:--|--:|--:|:--|", *lines[1:], ""]
