"""Turns results files into tables: for the terminal, and for the pages.

    python -m benchmarks.table             prints what the last runs measured
    python -m benchmarks.table --write .   puts it into README.md and the pages of docs/ in this
                                           folder, between their marks

So no number between such marks is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nalu_kernels import published

from . import (
    accuracy,
    family,
    findings,
    instructions,
    markdown,
    recurrence,
    scale,
    sweep,
    training_step,
    units,
)
from .cases import BACKWARD, FORWARD, NEEDED, NEEDED_ON_GRID, shape_name
from .contenders import EAGER, EMPTY, LIBRARY, LINEARS, NAMES
from .gpu import table as gpu

RESULTS = Path(__file__).parent / "results"
LEGEND = """\
Median microseconds of each, interleaved. ÷: how many times faster nalu_kernels is, the median of
the rounds' ratios; best: the faster of eager and torch.compile. of floor: nalu_kernels' time over
that of the higher floor, the Linear products or the empty autograd.Function call. dx: the input
wants its gradient. saved: kept from forward to backward. noisy: samples scatter by half or more."""
# What a stranger reads instead of a contender's short name.
SHOWN = {LINEARS: "three Linear layers", EMPTY: "empty autograd call"}
Results = dict[str, Any]
Row = dict[str, Any]


def microseconds(row: Row, contender: str) -> str:
    summary = row["contenders"].get(contender)
    if summary is None:
        return "–"
    median = summary["median_us"]
    return f"{median:,.1f}" if median < 100 else f"{median:,.0f}"


def times(row: Row, name: str) -> str:
    value = row["ratios"].get(name)
    return "–" if value is None else f"{value:.2f}"


def kilobytes(row: Row, contender: str) -> str:
    size = row["saved_bytes"].get(contender)
    return "–" if size is None else f"{size / 1024:,.1f}"


def pass_name(row: Row) -> str:
    """``dx``: with the gradient of the input, as an inner layer."""
    name = "fwd" if row["what"] == FORWARD else "fwd+bwd"
    return f"{name} dx" if row["inner"] else name


def remark(row: Row) -> str:
    verdict = "met" if row["needed_over_eager"] is not None else ""
    words = ["MISSED" if row["missed"] else verdict, "noisy" if row["noisy"] else ""]
    return " ".join(filter(None, words))


def machine_line(results: Results) -> str:
    machine = results["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['system']}, torch {machine['torch']} ({machine['torch_cpu_capability']}), "
        f"nalu_kernels {machine['nalu_kernels']} on {machine['backend']}"
    )


def _load_warning(results: Results) -> list[str]:
    load = results["machine"].get("load_before")
    if load is None or load < 0.5:
        return []
    return [
        f"The machine was busy before the run (load {load}): on an idle one the numbers differ."
    ]


def verdict(results: Results) -> str:
    """What was needed and missed, in one paragraph."""
    missed = [
        f"{row['layer']} {shape_name(tuple(row['shape']))}{' dx' if row['inner'] else ''}: "
        f"{', '.join(row['missed'])}"
        for row in results["cases"]
        if row["missed"]
    ]
    return "Missed: " + "; ".join(missed) if missed else "Every needed ratio is met."


def text(results: Results) -> str:
    """The table of one run: medians in microseconds, and ratios that favour the library above 1."""
    head = ["layer", "B×I→O", "pass", *NAMES]
    head += ["÷eager", "needed", "÷compile", "÷best", "of floor", "saved kB", "eager kB", ""]
    rows = [head]
    for row in results["cases"]:
        needed = row["needed_over_eager"]
        rows.append(
            [
                row["layer"],
                shape_name(tuple(row["shape"])),
                pass_name(row),
                *(microseconds(row, name) for name in NAMES),
                times(row, "over_eager"),
                "" if needed is None else f"{needed:.2f}",
                times(row, "over_compile"),
                times(row, "over_best"),
                times(row, "of_floor"),
                kilobytes(row, LIBRARY),
                kilobytes(row, EAGER),
                remark(row),
            ]
        )
    reasons = {reason for row in results["cases"] for reason in row["skipped"].values()}
    return "\n".join(
        [
            machine_line(results),
            markdown.align(rows, left=3),
            LEGEND,
            *_load_warning(results),
            *(f"torch.compile did not run: {reason}" for reason in sorted(reasons)),
            verdict(results),
        ]
    )


def _grid(results: Results) -> list[Row]:
    """Every shape of a tied NALU's forward and backward."""
    return [
        row
        for row in results["cases"]
        if row["layer"] == "nalu" and row["what"] == BACKWARD and not row["inner"]
    ]


def _against_best(results: Results) -> str:
    grid = _grid(results)
    worst = min(grid, key=lambda row: row["ratios"]["over_best"])
    usual = statistics.median(row["ratios"]["over_best"] for row in grid)
    return (
        f"{usual:.2f} times faster than the faster of eager PyTorch and torch.compile in the "
        f"median of {len(grid)} shapes, {worst['ratios']['over_best']:.2f} at worst "
        f"({shape_name(tuple(worst['shape']))})"
    )


def speed_section(results: Results) -> str:
    """The table of the shapes that matter most, and a sentence on all the others."""
    grid = _grid(results)
    rows = [["batch×in→out", *(f"{SHOWN.get(name, name)}, µs" for name in NAMES)]]
    rows[0] += ["times faster than eager", f"kept for the backward, kB: {LIBRARY}", EAGER]
    for row in grid:
        if tuple(row["shape"]) not in NEEDED:
            continue
        rows.append(
            [
                shape_name(tuple(row["shape"])),
                *(microseconds(row, name) for name in NAMES),
                f"**{times(row, 'over_eager')}**",
                kilobytes(row, LIBRARY),
                kilobytes(row, EAGER),
            ]
        )
    slower = sum(row["ratios"]["over_best"] < NEEDED_ON_GRID for row in grid)
    forward = [
        f"{shape_name(tuple(row['shape']))} {times(row, 'over_eager')}"
        for row in results["cases"]
        if row["layer"] == "nalu" and row["what"] == FORWARD
    ]
    return "\n\n".join(
        [
            "Forward and backward of a tied NALU in float32. Times are medians; all contenders "
            f"take turns in one run. It ran on: {machine_line(results)}.",
            markdown.table(rows, left=1),
            f"It is {_against_best(results)}. On {slower} of them it is more than 5 % slower.",
            "How many times faster than eager the forward alone is, without gradients: "
            f"{', '.join(forward)}.",
        ]
    )


def summary(speed: Results, steps: Results, sweeps: Results, on_gpu: Results | None) -> str:
    """For the README: how many times faster a sweep, a training step, a layer, and one on a GPU."""
    machine = speed["machine"]
    return "\n\n".join(
        [
            sweep.summary(sweeps),
            training_step.summary(steps),
            f"On an {machine['processor']} ({machine['torch_cpu_capability']}), forward and "
            f"backward are {_against_best(speed)}.",
            gpu.summary(on_gpu),
        ]
    )


def pages(
    speed: Results,
    steps: Results,
    layers: Results,
    sequences: Results,
    side_by_side: Results,
    sweeps: Results,
    errors: Results,
    on_gpu: Results | None,
) -> dict[str, dict[str, str]]:
    """What stands between which marks of which page."""
    return {
        "README.md": {"speed summary": summary(speed, steps, sweeps, on_gpu)},
        "docs/speed.md": {
            "speed table": speed_section(speed),
            "training step table": training_step.section(steps),
            "family table": family.section(layers),
            "recurrence table": recurrence.section(sequences),
            "units table": units.section(side_by_side),
            "gpu table": gpu.section(on_gpu),
        },
        "docs/sweep.md": {
            "speed table": sweep.section(sweeps),
            "instructions": instructions.section(sweeps["instructions"]),
            "scale": scale.section(sweeps["scale"]),
        },
        "docs/accuracy.md": {"accuracy table": accuracy.section(errors)},
        "docs/family.md": {
            "published settings": published.table(),
            "our tables": findings.section(),
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to read")
    parser.add_argument("--write", type=Path, help="the folder whose pages to fill in")
    chosen = parser.parse_args(arguments)

    def read(name: str) -> Results:
        return json.loads((chosen.results / f"{name}.json").read_text())

    names = ("cpu", "training_step", "family", "recurrence", "units", "sweep", "accuracy")
    speed, steps, layers, sequences, side_by_side, sweeps, errors = map(read, names)
    on_gpu = read("gpu") if (chosen.results / "gpu.json").exists() else None
    if chosen.write is None:
        shown = [text(speed), training_step.text(steps), family.text(layers)]
        shown += [recurrence.text(sequences), units.text(side_by_side), sweep.text(sweeps)]
        on_device = gpu.NOT_YET if on_gpu is None else gpu.text(on_gpu)
        print(*shown, accuracy.text(errors), on_device, sep="\n\n")
        return
    for page, sections in pages(
        speed, steps, layers, sequences, side_by_side, sweeps, errors, on_gpu
    ).items():
        path = chosen.write / page
        document = path.read_text(encoding="utf-8")
        for name, content in sections.items():
            document = markdown.replace_section(document, name, content)
        path.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
