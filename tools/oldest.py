"""The oldest versions that pyproject.toml claims of what the package needs, as wheels."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def oldest(name: str) -> str:
    found = re.search(rf'"{name}>=([\d.]+)[;"]', (ROOT / "pyproject.toml").read_text())
    assert found is not None, name
    return f"{found[1]}.0"


def fetch(name: str) -> Path | None:
    """The wheel, by pip and once; None, and a word, where pip has none."""
    version, cache = oldest(name), ROOT / "build" / f"oldest_{name}"
    found = sorted(cache.glob(f"{name}-{version}*.whl"))
    if not found:
        command = [*("-m", "pip", "download", "--no-deps", "-d", str(cache)), f"{name}=={version}"]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        if done.returncode != 0:
            print(f"SKIPPED, pip cannot fetch {name} {version}: {done.stderr.splitlines()[-1]}")
            return None
        found = sorted(cache.glob(f"{name}-{version}*.whl"))
    return found[0]
