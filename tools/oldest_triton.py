"""``make oldest-triton``: does the oldest Triton that pyproject.toml claims compile the kernels?

For one family of chips, which is enough for its front end to see every line. A register that
spills is not counted: the tiles are chosen with the Triton of constraints.txt. pip fetches the
oldest one, once, 190 MB; where pip has none, the check is skipped and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from oldest import ROOT, fetch

FAMILY = "sm_90"


def installed(wheel: Path) -> Path:
    """A folder for Python's path, which is kept."""
    folder = wheel.with_suffix("")
    if not folder.exists():
        command = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([sys.executable, *command, str(wheel)], check=True)
    return folder


def main() -> None:
    wheel = fetch("triton")
    if wheel is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        path = os.pathsep.join([str(installed(wheel)), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": f"{scratch}/cache"}
        environment.pop("TRITON_INTERPRET", None)
        command = ["-m", "nalu_kernels.triton.aot", "--family", FAMILY, "--json", str(report)]
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if not report.exists():
            raise SystemExit(done.stdout + done.stderr)
        kernels = json.loads(report.read_text())
    failed = [one for one in kernels if one["report"] is None]
    for one in failed:
        print(one["kernel"], one["case"], one["dtype"], one["shape"], *one["problems"])
    print(f"{wheel.name}: {len(kernels)} kernels for {FAMILY}, {len(failed)} not compiled")
    if failed or not kernels:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
