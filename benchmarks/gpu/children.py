"""Processes with a time limit, which are ended with everything that they started."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parents[2]
TAIL = 2000  # characters of a process's last words


class Ended(NamedTuple):
    """``status`` is None if the time ran out."""

    status: int | None
    output: str

    def __str__(self) -> str:
        if self.status is None:
            return "out of time"
        return f"ended by signal {-self.status}" if self.status < 0 else f"status {self.status}"


def processes() -> int:
    """How many to run at once that each use one core and little of the GPU."""
    return max(1, min(16, os.cpu_count() or 1))


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _start(
    command: Sequence[str], environment: Mapping[str, str], output: int, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process's whole session, helpers that outlived it included."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def run_all(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], seconds: float
) -> dict[str, Ended]:
    """Runs all at once; those that have not ended after ``seconds`` are ended."""
    deadline = time.monotonic() + seconds
    started: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
    ended = {}
    with ExitStack() as stack:
        for name, command in commands.items():
            file = stack.enter_context(tempfile.TemporaryFile())
            process = _start(command, environment, file.fileno(), file)
            stack.callback(_end, process)
            started[name] = process, file
        for name, (process, output) in started.items():
            status: int | None = None
            try:
                status = process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _end(process)
            ended[name] = Ended(status, _text(output))
    return ended


class Lines:
    """What a process writes, line by line as it comes."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process, self._errors = process, errors
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._queue.put(line.decode())
        self._queue.put(None)

    def next(self, seconds: float) -> str | None:
        """The next line; None if the process has closed its output. TimeoutError after so long."""
        try:
            return self._queue.get(timeout=max(0, seconds))
        except queue.Empty:
            raise TimeoutError from None

    def ended(self) -> Ended:
        return Ended(self._process.wait(), _text(self._errors)[-TAIL:])


@contextmanager
def lines(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Lines]:
    """Runs ``command``, and ends it if it has not ended at the end of the block."""
    with tempfile.TemporaryFile() as errors:
        process = _start(command, environment, subprocess.PIPE, errors)
        try:
            yield Lines(process, errors)
        finally:
            _end(process)
