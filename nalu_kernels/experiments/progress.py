"""How far a run is: a bar on a terminal, else a line now and then; both on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from .refusal import optional

_LINE_SECONDS = 15.0  # between two lines where there is no terminal


class Progress:
    """Of ``trials`` trials with ``steps`` training steps in all."""

    def __init__(self, name: str, trials: int, steps: int) -> None:
        self._name, self._trials, self._steps = name, trials, steps
        self._started = self._said = time.perf_counter()
        self._bar = optional("tqdm").tqdm(
            total=steps, desc=name, unit="step", leave=False, disable=not sys.stderr.isatty()
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, trials: int, steps: int) -> None:
        """So many trials have finished, and so many steps been done."""
        if not self._bar.disable:
            self._bar.set_postfix_str(f"{trials} of {self._trials} trials", refresh=False)
            self._bar.update(steps - self._bar.n)
            return
        now = time.perf_counter()
        if now - self._said >= _LINE_SECONDS or trials == self._trials:
            self._said = now
            print(
                f"{self._name}: {trials} of {self._trials} trials, {steps:,} of {self._steps:,} "
                f"steps, {now - self._started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
