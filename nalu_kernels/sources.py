"""Which C++ sources a binary was built from. setup.py runs this file without importing the rest."""

from __future__ import annotations

import hashlib
from pathlib import Path

_SUFFIXES = (".h", ".cuh", ".cpp", ".cu")


def digest(csrc: Path) -> str:
    """Of all sources below this folder, their names and their contents."""
    found = hashlib.sha256()
    for path in sorted(path for path in csrc.rglob("*") if path.suffix in _SUFFIXES):
        found.update(f"{path.relative_to(csrc).as_posix()} {path.stat().st_size}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def record(binary: Path) -> Path:
    """Where the digest stands of the sources that a binary was built from: beside it."""
    return binary.with_name(f"{binary.name.partition('.')[0]}.sources")
