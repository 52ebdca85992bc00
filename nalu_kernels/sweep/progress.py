"""How far a sweep is: a bar on a terminal where tqdm is there, else a line now and then; stderr."""

from __future__ import annotations

import importlib.util
import sys
import time
from types import TracebackType
from typing import Any

_LINE_SECONDS = 15.0  # between two lines


class Progress:
    """Of ``runs`` runs with ``steps`` training steps in all, of which ``done`` are behind them."""

    def __init__(self, runs: int, steps: int, done: int) -> None:
        self._runs, self._steps, self._begun_at = runs, steps, done
        self._started = time.perf_counter()
        self._said = -_LINE_SECONDS
        self._bar: Any = None
        if sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=done, desc="sweep", unit="step", unit_scale=True)

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

    def show(self, finished: int, solved: int, steps: int) -> None:
        """So many runs have finished, so many of them solved their task, and so many steps been
        done; those that a finished run did not need count."""
        if self._bar is not None:
            said = f"{finished:,} of {self._runs:,} runs, {solved:,} solved"
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(steps - self._bar.n)
            return
        seconds = time.perf_counter() - self._started
        if seconds - self._said < _LINE_SECONDS and finished < self._runs:
            return
        self._said = seconds
        new = steps - self._begun_at
        left = f", {seconds / new * (self._steps - steps):.0f} s left" if new else ""
        print(
            f"sweep: {finished:,} of {self._runs:,} runs, {solved:,} solved; {steps:,} of "
            f"{self._steps:,} steps; {seconds:.0f} s{left}",
            file=sys.stderr,
            flush=True,
        )
