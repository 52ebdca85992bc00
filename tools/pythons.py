"""``make pythons``: ``make short`` on every Python that pyproject.toml claims and this machine has.

Each has an environment of its own, .venv-3.10 and so on, which ``make`` sets up like .venv.
``make pythons PYTHONS="3.10 3.13"`` takes these alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import claimed

ROOT = claimed.PYPROJECT.parent


def version(python: str) -> str | None:
    """Such as "3.10"; None if it does not run (pyenv has commands for Pythons that are not on)."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def find(wanted: str) -> str | None:
    """A Python of version ``wanted``: the one running, one on the PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [
        sys.executable,
        shutil.which(f"python{wanted}"),
        *map(str, sorted(pyenv.glob(f"versions/{wanted}.*/bin/python"))),
    ]
    return next((python for python in candidates if python and version(python) == wanted), None)


def main(wanted: list[str]) -> None:
    lines = []
    failed = False
    for name in wanted:
        python = find(name)
        if python is None:
            lines.append(f"Python {name}: not on this machine")
            continue
        start = time.perf_counter()
        command = ["make", "short", f"VENV=.venv-{name}", f"PYTHON={python}"]
        print("\n$", *command, flush=True)
        code = subprocess.run(command, cwd=ROOT).returncode
        minutes = (time.perf_counter() - start) / 60
        lines.append(f"Python {name}: {'FAILED' if code else 'passed'} ({minutes:.0f} min)")
        failed |= code != 0
    print("", *lines, sep="\n")
    if failed or not any("passed" in line for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:] or claimed.pythons())
