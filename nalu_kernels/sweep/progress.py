"""How far a training is: a bar on a terminal where tqdm is there, else a line now and then; on
stderr."""

from __future__ import annotations

import importlib.util
import sys
import time
from types import TracebackType
from typing import Any

_LINE_SECONDS = 15.0  # between two lines


class Progress:
    """Of so many ``things`` ("runs", say) with ``steps`` training steps in all, of which ``done``
    are behind them. ``quiet``: nothing is shown."""

    def __init__(
        self,
        name: str,
        count: int,
        things: str,
        steps: int,
        done: int = 0,
        *,
        quiet: bool = False,
    ) -> None:
        self._quiet = quiet
        self._name, self._of, self._steps = name, f"of {count:,} {things}", steps
        self._count, self._begun_at = count, done
        self._started = time.perf_counter()
        self._said = -_LINE_SECONDS
        self._bar: Any = None
        if not quiet and sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=done, desc=name, unit="step", unit_scale=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def stopped(self, why: str, unfinished: int) -> None:
        """What is said last where not all has been done."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        print(
            f"{self._name}: stopped by {why}; {unfinished:,} {self._of} have steps left to do",
            file=sys.stderr,
            flush=True,
        )

    def show(self, finished: int, steps: int, also: str = "") -> None:
        """So many have finished, and so many steps been done; those that one which has finished
        did not need count."""
        if self._quiet:
            return
        said = f"{finished:,} {self._of}{also}"
        if self._bar is not None:
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(steps - self._bar.n)
            return
        seconds = time.perf_counter() - self._started
        if seconds - self._said < _LINE_SECONDS and finished < self._count:
            return
        self._said = seconds
        new = steps - self._begun_at
        left = f", {seconds / new * (self._steps - steps):.0f} s left" if new else ""
        print(
            f"{self._name}: {said}; {steps:,} of {self._steps:,} steps; {seconds:.0f} s{left}",
            file=sys.stderr,
            flush=True,
        )
