"""When a call has to stop: its time is up, or a signal asks for it."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

SEGMENT = 1.0  # seconds at most between two looks


class Watch:
    """While entered, in the main thread, Ctrl-C and SIGTERM are noted instead of ending Python; a
    second Ctrl-C ends at once.

    Args:
        seconds: how long it may take from now on; None: as long as it takes.
    """

    def __init__(self, seconds: float | None) -> None:
        self.deadline = None if seconds is None else time.perf_counter() + seconds
        self.signal: str | None = None  # that asked to stop
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Watch:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def stopped(self) -> str | None:
        """What has asked to stop, if anything has."""
        if self.signal is None and self.remaining() == 0:
            return "seconds"
        return self.signal

    def remaining(self) -> float | None:
        """Seconds until the time is up; None if there is no such time."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.perf_counter())

    def budget(self) -> float:
        """Seconds that an executor may take before this is asked again."""
        remaining = self.remaining()
        return SEGMENT if remaining is None else min(SEGMENT, remaining)
