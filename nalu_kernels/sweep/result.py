"""What has come of the runs: a table, success rates, curves, and each run's network."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from .extras import optional
from .runs import Runs
from .stack import Stack
from .state import (
    BACKENDS,
    BEST_INSIDE,
    BEST_STEP,
    FIRST_BELOW,
    NOT_RUN,
    OUTSIDE_AT_BEST,
    SECONDS,
    SOLVED,
    STATUS,
    State,
)
from .success import wilson

if TYPE_CHECKING:
    from ..formulas.counts import Formulas

Rows: TypeAlias = "tuple[Tensor, Tensor]"
_METRICS = {
    "solved_at": FIRST_BELOW,
    "error_inside": BEST_INSIDE,
    "error_outside": OUTSIDE_AT_BEST,
    "best_step": BEST_STEP,
}
_FINISHED = ("solved", "out_of_steps", "diverged")

_NAN = math.nan  # one of them, for all of a table are another to a dict


class Result:
    """What :func:`nalu_kernels.sweep.run`, ``load`` and ``join`` return.

    A run is called by its label: the index of the DataFrame that ``runs`` was, if that is of ints
    in [0, 2**63), else its number.

    Attributes:
        stopped: what ended the call before all runs had: "seconds", "SIGINT" or "SIGTERM" (a
            signal also where it came as the last run ended); None if nothing did.
    """

    def __init__(
        self,
        stack: Stack,
        table: Runs,
        state: State,
        steps: int,
        test_every: int,
        stop: str | None,
        stopped: str | None = None,
        fresh: Callable[..., Rows] | None = None,
    ) -> None:
        self.stopped = stopped
        self._fresh = fresh
        self._stop = stop
        self._stack, self._table, self._state = stack, table, state
        self._steps, self._every = steps, test_every

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        counts = {name: self._statuses().count(name) for name in STATUS}
        said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        return f"Result({len(self):,} runs: {said})"

    def columns(self) -> dict[str, list[Any]]:
        """The table of :meth:`to_pandas` as lists, without pandas; None and NaN where it has."""
        made = {name: self._metric(name).tolist() for name in _METRICS}
        seconds = self._state.scores[:, SECONDS].clone()
        seconds[self._state.progress[:, 1] == NOT_RUN] = torch.nan
        return {
            **self._table.columns,
            "status": self._statuses(),
            "steps": self._state.progress[:, 0].tolist(),
            **made,
            "sparsity": self._metric("sparsity").tolist(),
            "seconds": seconds.tolist(),
            "backend": list(map(_names, self._state.backends.tolist())),
            **({} if self._stop is None else {"stop": [self._stop] * len(self)}),
        }

    def to_pandas(self) -> Any:
        """A DataFrame with a row for each run: every column of ``runs``, and

        * ``status``: ``solved``, ``out_of_steps``, ``diverged`` (a parameter became NaN),
          ``interrupted`` or ``not_run``;
        * ``steps``: done;
        * ``solved_at``: the first test with an error outside below the threshold, of solved runs;
        * ``error_inside``, ``error_outside``, ``best_step``: at the test with the least error
          inside;
        * ``sparsity``: there, how far a weight is from -1, 0 and 1 at most;
        * ``seconds``: of its training, and ``backend``, what has trained it;
        * ``stop``: the option of that name, if it was given.

        What was not computed is NaN.

        Raises:
            ImportError: pandas is missing.
        """
        pandas = optional("pandas", "to_pandas")
        return pandas.DataFrame(self.columns(), index=pandas.Index(self._table.index, name="run"))

    def success_rate(self, by: str | Sequence[str] | None = None) -> Any:
        """How many of the runs that have finished have solved their task.

        Args:
            by: columns of ``runs``; a row of the answer for each combination of their values.

        Returns:
            a DataFrame with ``runs``, ``solved``, ``rate``, and ``low`` and ``high``: Wilson's 95 %
            interval; NaN where no run has finished.

        Raises:
            ImportError: pandas is missing.
            ValueError: no such column.
        """
        names = [] if by is None else [by] if isinstance(by, str) else list(by)
        for name in names:
            if name not in self._table.columns:
                raise ValueError(f"by: expected some of {list(self._table.columns)}, got {name!r}")
        groups: dict[tuple[Any, ...], list[str]] = {}
        keys = zip(*(self._table[name] for name in names), strict=True) if names else ()
        for key, status in zip(keys or [()] * len(self), self._statuses(), strict=True):
            groups.setdefault(tuple(_NAN if value != value else value for value in key), []).append(
                status
            )
        rows = [
            {**dict(zip(names, key, strict=True)), **_rate(statuses)}
            for key, statuses in groups.items()
        ]
        return optional("pandas", "success_rate").DataFrame(rows)

    def curves(self) -> Any:
        """A DataFrame with a row for each test: ``run``, ``step``, ``error_inside``,
        ``error_outside``.

        Raises:
            ImportError: pandas is missing.
        """
        return optional("pandas", "curves").DataFrame(self.curve_columns())

    def curve_columns(self) -> dict[str, Tensor]:
        """The table of :meth:`curves` as tensors."""
        places = torch.arange(self._state.curves.shape[1])
        steps = ((places + 1) * self._every).clamp(max=self._steps)
        done = self._state.progress[:, :1]
        rows, tested = (steps <= done).nonzero().unbind(1)
        inside, outside = self._state.curves[rows, tested, :2].unbind(1)
        return {
            "run": torch.tensor(self._table.index)[rows],
            "step": steps[tested],
            "error_inside": inside,
            "error_outside": outside,
        }

    def best(self, metric: str = "error_outside") -> int:
        """The run with the least ``metric``: a column of numbers of the table.

        Raises:
            ValueError: no such column, or NaN in all runs.
        """
        if metric not in (*_METRICS, "sparsity"):
            known = ", ".join((*_METRICS, "sparsity"))
            raise ValueError(f"metric: expected one of {known}, got {metric!r}")
        values = self._metric(metric)
        if values.isnan().all():
            raise ValueError(f"metric: no run has a {metric}")
        return self._table.index[int(values.nan_to_num(math.inf).argmin())]

    def module(self, run: int, which: str = "best") -> nn.Module:
        """The network of a run: an ordinary module like the ``stack``, in the sweep's dtype and in
        ``eval()``, as it was tested; call ``train()`` before training it further.

        Args:
            run: its label.
            which: "best" for the weights at the test with the least error inside, "last" for those
                that it ended with.

        Raises:
            TypeError, ValueError: no such run, or it has no best test.
        """
        label = operator.index(run)
        number = self._numbers.get(label)
        if number is None:
            raise ValueError(f"run: expected one of the {len(self)} runs' labels, got {label}")
        rows = self._rows(which)
        if which == "best" and bool(self._state.scores[number, BEST_STEP].isnan()):
            raise ValueError(
                f"run: {label} has no test to be best at; which='last' has its weights"
            )
        return self._stack.module(rows[number]).eval()

    def formulas(
        self,
        names: Sequence[str] | None = None,
        *,
        inside: Rows | None = None,
        outside: Rows | None = None,
        tolerance: float = 0.01,
        which: str = "best",
    ) -> Formulas:
        """What the runs found: each formula with the number of runs that have it.

        :func:`nalu_kernels.formula` reads each run's network. ``print`` the answer for a table.

        Args:
            names: of the inputs.
            inside, outside: inputs and targets, as of :func:`nalu_kernels.formula`; None draws 1000
                rows of the task's ranges that neither training nor a test had.
            tolerance: within which weights are rounded.
            which: "best" or "last", as of :meth:`module`; runs without are counted as such.

        Raises:
            TypeError, ValueError: as :func:`nalu_kernels.formula`, and inside is None where the
                task is a table, or the result was loaded from a folder.
        """
        from ..formulas.counts import count

        if inside is None and outside is not None:
            raise ValueError("outside: expected inside with it")
        fresh = self._fresh
        if inside is None and fresh is None:
            raise ValueError("inside: expected rows for a result that was loaded, got None")
        rows = self._rows(which)
        found = []
        for number, label in enumerate(self._table.index):
            if bool(rows[number].isfinite().all()):
                module = self._stack.module(rows[number])
                if inside is not None:
                    found.append((label, module, inside, outside))
                elif fresh is not None:
                    drawn = fresh(number, outside=False), fresh(number, outside=True)
                    found.append((label, module, *drawn))
        return count(found, len(self), names, tolerance)

    def modules(self, which: str = "best") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights of all runs, in the form of ``torch.func.stack_module_state``.

        Returns:
            parameters by name, each with a first dimension of runs, and no buffers. Runs without a
            best test have NaN.
        """
        return self._stack.state(self._rows(which).clone()), {}

    @functools.cached_property
    def _numbers(self) -> dict[int, int]:
        """Of the runs by label."""
        return {label: number for number, label in enumerate(self._table.index)}

    def _rows(self, which: str) -> Tensor:
        if which not in ("best", "last"):
            raise ValueError(f"which: expected 'best' or 'last', got {which!r}")
        return self._state.best if which == "best" else self._state.parameters

    def _statuses(self) -> list[str]:
        return [STATUS[code] for code in self._state.progress[:, 1].tolist()]

    def _metric(self, name: str) -> Tensor:
        scores = self._state.scores
        if name == "sparsity":
            values = self._stack.sparsity(self._state.best)
        else:
            values = scores[:, _METRICS[name]].clone()
        if name == "solved_at":
            values[self._state.progress[:, 1] != SOLVED] = torch.nan
        return values


def _names(bits: int) -> str | None:
    return "+".join(name for k, name in enumerate(BACKENDS) if bits >> k & 1) or None


def _rate(statuses: list[str]) -> dict[str, Any]:
    total = sum(status in _FINISHED for status in statuses)
    solved = statuses.count("solved")
    rate, (low, high) = math.nan, (math.nan, math.nan)
    if total:
        rate, (low, high) = solved / total, wilson(solved, total)
    return {"runs": total, "solved": solved, "rate": rate, "low": low, "high": high}
