"""Turns results files into tables: for the terminal, and for a README.

    python -m benchmarks.table                      prints what the last runs measured
    python -m benchmarks.table --readme README.md   puts it there, between its markers:

<!-- speed table --> ... <!-- end of speed table -->, and the same for the accuracy table and the
gpu table. So no number in the README is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cases import BACKWARD, FORWARD, NEEDED, NEEDED_ON_GRID, shape_name
from .contenders import COMPILED, EAGER, EMPTY, LIBRARY, LINEARS, NAMES

RESULTS = Path(__file__).parent / "results"
LEGEND = """\
Median microseconds of each, interleaved. ÷: how many times faster nalu_kernels is, the median of
the rounds' ratios; best: the faster of eager and torch.compile. of floor: nalu_kernels' time over
that of the higher floor, the Linear products or the empty autograd.Function call. dx: the input
wants its gradient. saved: kept from forward to backward. noisy: samples scatter by half or more."""
Results = dict[str, Any]
Row = dict[str, Any]


def align(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns as wide as their widest cell; the first ``left`` of them to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]], left: int) -> str:
    head, *body = rows
    rule = [":--" if index < left else "--:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


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
            align(rows, left=3),
            LEGEND,
            *_load_warning(results),
            *(f"torch.compile did not run: {reason}" for reason in sorted(reasons)),
            verdict(results),
        ]
    )


def speed_section(results: Results) -> str:
    """The README's table of the shapes that matter most, and a sentence on all the others."""
    named = [row for row in results["cases"] if row["layer"] == "nalu"]
    grid = [row for row in named if row["what"] == BACKWARD and not row["inner"]]
    rows = [["B×I→O", "nalu_kernels", "eager", "torch.compile", "three Linear", "empty call"]]
    rows[0] += ["times faster than eager", "times the floor", "saved kB (eager)"]
    for row in grid:
        if tuple(row["shape"]) not in NEEDED:
            continue
        rows.append(
            [
                shape_name(tuple(row["shape"])),
                *(microseconds(row, name) for name in (LIBRARY, EAGER, COMPILED, LINEARS, EMPTY)),
                f"**{times(row, 'over_eager')}**",
                times(row, "of_floor"),
                f"{kilobytes(row, LIBRARY)} ({kilobytes(row, EAGER)})",
            ]
        )
    worst = min(grid, key=lambda row: row["ratios"]["over_best"])
    usual = statistics.median(row["ratios"]["over_best"] for row in grid)
    slower = sum(row["ratios"]["over_best"] < NEEDED_ON_GRID for row in grid)
    forward = [
        f"{shape_name(tuple(row['shape']))} {times(row, 'over_eager')}"
        for row in named
        if row["what"] == FORWARD
    ]
    return "\n\n".join(
        [
            "Forward and backward of a tied NALU in float32, median microseconds of a call, all "
            f"contenders interleaved in one run; the floor is the slower of three Linear layers "
            f"and an empty autograd.Function. {machine_line(results)}.",
            markdown(rows, left=1),
            f"Against the faster of eager and torch.compile, on all {len(grid)} shapes measured: "
            f"{usual:.2f} times faster in the median, {worst['ratios']['over_best']:.2f} at worst "
            f"({shape_name(tuple(worst['shape']))}); {slower} of them more than 5 % slower.",
            f"Forward alone (inference), times faster than eager: {', '.join(forward)}.",
        ]
    )


def replace_section(document: str, name: str, content: str) -> str:
    """``document`` with what stands between the markers of section ``name`` replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    replaced, count = section.subn(lambda _: f"{begin}\n{content}\n{end}", document)
    if count != 1:
        raise ValueError(f"expected one section from {begin} to {end}, found {count}")
    return replaced


def main(arguments: Sequence[str] | None = None) -> None:
    from . import accuracy
    from .gpu import table as gpu

    parser = argparse.ArgumentParser(prog="python -m benchmarks.table")
    parser.add_argument("--speed", type=Path, default=RESULTS / "cpu.json")
    parser.add_argument("--accuracy", type=Path, default=RESULTS / "accuracy.json")
    parser.add_argument("--gpu", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--readme", type=Path, help="the file whose sections to replace")
    chosen = parser.parse_args(arguments)
    speed = json.loads(chosen.speed.read_text())
    errors = json.loads(chosen.accuracy.read_text())
    on_gpu = json.loads(chosen.gpu.read_text()) if chosen.gpu.exists() else None
    if chosen.readme is None:
        last = gpu.NOT_YET if on_gpu is None else gpu.text(on_gpu)
        print(text(speed), accuracy.text(errors), last, sep="\n\n")
        return
    document = chosen.readme.read_text()
    document = replace_section(document, "speed table", speed_section(speed))
    document = replace_section(document, "accuracy table", accuracy.section(errors))
    document = replace_section(document, "gpu table", gpu.section(on_gpu))
    chosen.readme.write_text(document)


if __name__ == "__main__":
    main()
