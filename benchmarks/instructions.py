"""The floor of a training step: `python -m benchmarks.sweep --instructions`.

native/parts.cpp trains by the AVX2 kernels, or does a part of a step alone, and valgrind counts the
instructions. The floor is what random numbers, logarithms and products take by themselves; the rest
of a step is the weights, the join of the products, the optimizer and the loops around them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import markdown

ROOT = Path(__file__).parent.parent
SOURCES = (ROOT / "benchmarks" / "native" / "parts.cpp", ROOT / "csrc" / "cpu" / "threads.cpp")
FLAGS = ("-O3", "-std=c++17", "-mavx2", "-mfma", "-pthread")
PARTS = ("random", "logarithms", "products")
STEP = "step"
TIMES = (100, 300)  # of which the difference counts
NETWORKS = {  # as parts.cpp is asked for them
    "NALU 2→1": ("nalu", "2", "0"),
    "NAC 2→1": ("nac", "2", "0"),
    "NALU 100→2→1": ("nalu", "100", "2"),
    "NAC 100→2→1": ("nac", "100", "2"),
}
Counts = dict[str, dict[str, int]]


def measure() -> Counts:
    """Instructions of each part, and of a step, by network.

    Raises:
        SystemExit: there is no C++ compiler, no valgrind, or no AVX2.
    """
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    for program in (compiler[0], "valgrind"):
        if shutil.which(program) is None:
            raise SystemExit(f"--instructions needs {program}, which was not found")
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "parts"
        subprocess.run([*compiler, *FLAGS, *SOURCES, "-o", parts], check=True)
        return {
            network: {part: _difference([str(parts), part, *words]) for part in (*PARTS, STEP)}
            for network, words in NETWORKS.items()
        }


def _difference(command: list[str]) -> int:
    few, many = (_count([*command, str(times)]) for times in TIMES)
    return round((many - few) / (TIMES[1] - TIMES[0]))


def _count(command: list[str]) -> int:
    watched = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    ended = subprocess.run(watched, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", ended.stderr)
    if ended.returncode != 0 or found is None:
        raise SystemExit(f"{shlex.join(watched)}: {ended.stderr[-500:]}")
    return int(found[1])


def section(counts: Counts) -> str:
    """For docs/sweep.md."""
    table = [["network, batch of 128", *PARTS, "floor, their sum", "whole step", "÷ floor"]]
    for network, of in counts.items():
        floor = sum(of[part] for part in PARTS)
        numbers = [*(of[part] for part in PARTS), floor, of[STEP]]
        table.append([network, *(f"{n:,}" for n in numbers), f"{of[STEP] / floor:.2f}"])
    return (
        f"{markdown.table(table, left=1)}\n\n"
        "Instructions of a training step with AVX2, counted by valgrind, and of what no training "
        "of these networks can do without."
    )
