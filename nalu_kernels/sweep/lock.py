"""A folder of results for one process alone."""

from __future__ import annotations

from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def lock(handle: int) -> None:
    """Until an open file is closed, by whatever ends the process too. Where the system or the file
    system has no locks, nothing is locked.

    Raises:
        BlockingIOError: another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass
