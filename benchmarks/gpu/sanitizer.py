"""The step ``sanitizer``: compute-sanitizer's memcheck and racecheck over the small set."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from .children import TAIL, Ended, processes, python, run_all
from .results import OUT_OF_TIME, Clock, Results
from .small_set import NOT_RUN

STEP = "sanitizer"
SHARE_OF_TIME = 0.2
TOOLS = ("memcheck", "racecheck")
NAME = "compute-sanitizer"
MOST_AT_ONCE = 8  # it takes a port for each, and has ten
# Of its time a tool begins new calls for so long: the last has to end, and the tool to sum up.
BEGINS_FOR = 0.7
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) .*")


def _folders() -> list[Path]:
    """Where an environment may have it that does not have it on its PATH."""
    cuda = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    folders = [root / "bin" for root in (*cuda, Path("/usr/local/cuda"))]
    for package, pattern in (("nvidia", "**"), ("triton", "backends/nvidia/**")):
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            folders += [found.parent for found in Path(place).glob(f"{pattern}/{NAME}")]
    return folders


def find() -> str | None:
    path = shutil.which(NAME)
    for folder in _folders() if path is None else ():
        path = path or shutil.which(NAME, path=str(folder))
    return path


def judge(ended: Ended) -> tuple[str | None, str | None]:
    """The tool's own summary, and what is wrong; None: nothing, or the time ran out."""
    if ended.status is None:
        return None, None
    summary = None
    for match in _SUMMARY.finditer(ended.output):
        summary = match
    line = summary and summary.group()
    if ended.status != 0:
        return line, f"{ended}: {ended.output[-TAIL:].strip()}"
    if summary is None:
        return None, "it ended without a summary"
    if int(summary.group(1)):
        return line, f"{line}: {ended.output[:TAIL].strip()}"
    return line, None


def not_run(ended: Ended) -> list[str]:
    """The calls that the time did not suffice for. Of a tool that was cut off nothing is known."""
    if ended.status is None:
        return ["all"]
    lines = ended.output.splitlines()
    return [line.removeprefix(NOT_RUN).strip() for line in lines if line.startswith(NOT_RUN)]


def _small_set(share: int, shares: int, dry_run: bool, *options: str) -> list[str]:
    dry = ["--dry-run"] if dry_run else []
    place = ("--share", f"{share}/{shares}")
    return python("-m", "benchmarks.gpu.small_set", *place, *options, *dry)


def run(results: Results, clock: Clock, environment: dict[str, str], dry_run: bool) -> None:
    """First without a tool, which compiles the kernels, then with both at once."""
    limit = clock.part(SHARE_OF_TIME)
    before = clock.left
    shares = 1 if dry_run else processes()
    plain = {f"{share}/{shares}": _small_set(share, shares, dry_run) for share in range(shares)}
    found: dict[str, Any] = {"plain": "passed"}
    for share, ended in run_all(plain, environment, limit).items():
        if ended.status != 0:
            found["plain"] = f"{ended}: {ended.output[-TAIL:].strip()}"
            results.fail(f"small set {share}", found["plain"])
    tool = find()
    if tool is None:
        found |= dict.fromkeys(TOOLS, f"not run: {NAME} was not found")
        print(f"sanitizer: {NAME} was not found", flush=True)
    else:
        found |= _watch(results, tool, environment, limit - (before - clock.left), dry_run)
    results.step(STEP, tool=tool, **found)


def _watch(
    results: Results, tool: str, environment: dict[str, str], seconds: float, dry_run: bool
) -> dict[str, Any]:
    # Torch's cache of memory would hide where a tensor ends.
    environment = environment | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    shares = 1 if dry_run else min(MOST_AT_ONCE, processes()) // len(TOOLS) or 1
    # Without a GPU there is nothing to watch, which the tool takes for a mistake.
    extra = ["--require-cuda-init=no"] if dry_run else []
    options = ["--error-exitcode", "99", "--target-processes", "application-only", *extra]
    until = ("--until", str(time.time() + BEGINS_FOR * seconds))
    commands = {
        f"{name} {share}/{shares}": [
            *(tool, "--tool", name, *options),
            *_small_set(share, shares, dry_run, *until),
        ]
        for name in TOOLS
        for share in range(shares)
    }
    found: dict[str, Any] = {name: {"summaries": [], "wrong": [], "not_run": []} for name in TOOLS}
    for name, ended in run_all(commands, environment, seconds).items():
        summary, wrong = judge(ended)
        late = not_run(ended)
        print(f"sanitizer: {name}: {summary}, {len(late)} not run", flush=True)
        about = found[name.split()[0]]
        about["summaries"].append(summary)
        about["not_run"] += late
        for call in late:
            results.skip(f"{name}: {call}", OUT_OF_TIME)
        if wrong is not None:
            about["wrong"].append(wrong)
            results.fail(name, wrong)
    return found
