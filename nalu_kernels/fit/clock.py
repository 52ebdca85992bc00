"""How much of its time a search has used: a bar on a terminal; on stderr."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

_EVERY = 0.25  # seconds between two looks


class Clock:
    """A bar that fills within ``seconds``, moved by a thread of its own while the search computes.
    Without a terminal one line says how long it may take."""

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: Any = None
        if not sys.stderr.isatty():
            print(f"{name}: at most {seconds:g} s", file=sys.stderr, flush=True)
            return
        from tqdm import tqdm

        self._bar = tqdm(
            total=seconds,
            desc=name,
            bar_format="{desc}: {bar}| {n:.0f} of at most {total:.0f} s",
            leave=False,
        )
        self._thread = threading.Thread(target=self._move, daemon=True)

    def _move(self) -> None:
        started = time.perf_counter()
        while not self._ended.wait(_EVERY):
            passed = min(time.perf_counter() - started, self._seconds)
            self._bar.update(passed - self._bar.n)

    def __enter__(self) -> Clock:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._bar.close()
