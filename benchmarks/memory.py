"""The memory that a call adds to its process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")  # Linux alone has it


def is_known() -> bool:
    return _CLEAR.exists()


def _most() -> int:
    """Bytes that this process has held at once since the mark was reset."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def peak(call: Callable[[], object]) -> int:
    """Bytes that the call adds to what the process holds now, at most."""
    _CLEAR.write_text("5")  # the mark is what the process holds now, not what it once held
    before = _most()
    call()
    return _most() - before
