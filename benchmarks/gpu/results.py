"""The results file: written again whenever something was measured, so that a cut loses nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

CLOSING_S = 5.0
OUT_OF_TIME = "out of time"


class Results:
    """``path`` None: kept in memory only. ``data`` is what stands in the file."""

    def __init__(self, path: Path | None, **head: Any) -> None:
        self.path = path
        self.data: dict[str, Any] = {**head, "steps": {}, "accuracy": [], "sweeps": [], "cases": {}}
        self.data |= {"failures": [], "skipped": {}}

    def save(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a reader, or a cut, never meets half a file.
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(json.dumps(self.data, indent=1, ensure_ascii=False) + "\n")
        os.replace(new, self.path)

    def fail(self, what: str, why: str) -> None:
        print(f"FAILED {what}: {why}", flush=True)
        self.data["failures"].append({"what": what, "why": why})

    def skip(self, what: str, why: str) -> None:
        self.data["skipped"][what] = why

    def step(self, name: str, **found: Any) -> None:
        self.data["steps"][name] = found
        self.save()


class Clock:
    """The time that the whole run has, but for what ending it takes."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes - CLOSING_S
        self._start = time.monotonic()

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    @property
    def spent(self) -> float:
        return time.monotonic() - self._start

    def part(self, share: float) -> float:
        """The limit of a step that may take so much of the whole, if that is left."""
        return max(0.0, min(share * self.seconds, self.left))
