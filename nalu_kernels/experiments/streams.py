"""Standard output and error, as Unix tools have them.

What cannot be written to standard output ends the command, without a traceback: quietly where
nobody reads on, as with ``| head -1``, else with a line that says why. What cannot be written to
standard error is left out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

_LAST = 2  # the file descriptor of standard error


class Unwritable(Exception):
    """Standard output takes no more, and why. Not an OSError, which argparse would pass over.

    ``quiet``: nobody reads on. ``status``: the exit code, of which 141 is what a shell reports of a
    command that SIGPIPE ended.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: write error: {error.strerror}")
        self.quiet = isinstance(error, BrokenPipeError)
        self.status = 141 if self.quiet else 1


class _Stream:
    """A text stream with nothing left in its buffer once a write has failed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._do(self._stream.write, text)

    def flush(self) -> None:
        self._do(self._stream.flush)

    def _do(self, action: Any, *arguments: str) -> Any:
        try:
            return action(*arguments)
        except OSError as error:
            self._discard()
            self._failed(error)

    def _discard(self) -> None:
        """Python would try once more to write it when it ends."""
        with suppress(OSError, ValueError), open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), self._stream.fileno())

    def _failed(self, error: OSError) -> None:
        raise NotImplementedError


class _Output(_Stream):
    def _failed(self, error: OSError) -> None:
        raise Unwritable(error) from error


class _Errors(_Stream):
    def _failed(self, error: OSError) -> None:
        pass


@contextmanager
def checked() -> Iterator[None]:
    """Within it, standard output and error are as this module says: printing, and flushing what
    has been printed, raises Unwritable where it cannot be written."""
    _fill_closed()
    with redirect_stdout(_Output(sys.stdout)), redirect_stderr(_Errors(sys.stderr)):
        yield


def _fill_closed() -> None:
    """In place of what was closed: for output what cannot be written to, for errors what takes all.

    The descriptors are taken as well, here and in the processes that are started: a file that is
    opened later would get them, and what libraries write to standard error would go there.
    """
    if sys.stdin is not None and sys.stdout is not None and sys.stderr is not None:
        return
    while (free := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        os.set_inheritable(free, True)
    os.close(free)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
