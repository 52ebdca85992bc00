"""Where the runs of a sweep stand: all that they need to go on, in tensors of a row a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

import torch
from torch import Tensor

NOT_RUN, RUNNING, OUT_OF_STEPS, SOLVED, DIVERGED = range(5)
STATUS = ("not_run", "interrupted", "out_of_steps", "solved", "diverged")  # when a call returns
BEST_INSIDE, OUTSIDE_AT_BEST, BEST_STEP, FIRST_BELOW, SECONDS, BEGUN = range(6)  # of scores
BACKENDS = ("reference", "cpu", "cuda", "triton")


@dataclass
class State:
    """
    Attributes:
        parameters: (runs, size), in the dtype of the sweep.
        moments: (runs, 2, size): of Adam the first and the second moment, of RMSprop the momentum's
            buffer and the square average, of SGD the momentum's buffer.
        best: (runs, size), the parameters at the test with the least error inside.
        progress: int64 (runs, 2): steps done, and NOT_RUN to DIVERGED.
        scores: float64 (runs, 6): the least error inside, the error outside then, the step then,
            the first step with an error outside below the threshold, seconds, and the step after
            which the run last began anew; NaN where there is none.
        curves: float64 (runs, tests, 4): errors inside and outside; and of the steps since the last
            test the losses' sum and that of their squares, where a run may begin anew. NaN where
            there is none.
        backends: int64 (runs): bit k is set if BACKENDS[k] has trained the run.
    """

    parameters: Tensor
    moments: Tensor
    best: Tensor
    progress: Tensor
    scores: Tensor
    curves: Tensor
    backends: Tensor

    @classmethod
    def begin(cls, parameters: Tensor, tests: int) -> State:
        """Of runs that have done nothing yet.

        Raises:
            MemoryError: the machine has not so much.
        """
        runs, size = parameters.shape
        needed = parameters.nbytes * 4 + runs * (16 + 48 + 8 + 32 * tests)
        _check_memory(needed, runs, size, tests)
        scores = torch.full((runs, 6), torch.nan, dtype=torch.float64)
        scores[:, SECONDS] = 0.0
        return cls(
            parameters=parameters.clone(),
            moments=torch.zeros(runs, 2, size, dtype=parameters.dtype),
            best=torch.full_like(parameters, torch.nan),
            progress=torch.zeros(runs, 2, dtype=torch.int64),
            scores=scores,
            curves=torch.full((runs, tests, 4), torch.nan, dtype=torch.float64),
            backends=torch.zeros(runs, dtype=torch.int64),
        )

    def tensors(self) -> dict[str, Tensor]:
        """All of them by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def rows(self, rows: Tensor) -> State:
        """A copy of some rows."""
        return State(**{name: tensor[rows] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device) -> State:
        """Moves all of it; what is there already is not copied."""
        return State(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def part(self, rows: Tensor) -> State:
        """Some rows, given in increasing order: in place if they are neighbours, else a copy."""
        first, last = int(rows[0]), int(rows[-1])
        if last - first >= len(rows):
            return self.rows(rows)
        return State(**{name: tensor[first : last + 1] for name, tensor in self.tensors().items()})

    def put(self, rows: Tensor, part: State) -> None:
        """Writes back what :meth:`rows` or :meth:`part` copied."""
        if part.progress.untyped_storage().data_ptr() == self.progress.untyped_storage().data_ptr():
            return
        for name, tensor in self.tensors().items():
            tensor[rows] = getattr(part, name).cpu()

    def trained(self, rows: Tensor, backend: str) -> None:
        """Records the back end of what has happened to some rows."""
        self.backends[rows] |= 1 << BACKENDS.index(backend)

    def unfinished(self) -> Tensor:
        """The numbers of the runs that have steps to do."""
        return (self.progress[:, 1] <= RUNNING).nonzero().flatten()

    def bytes_a_run(self) -> int:
        """How much memory a row takes."""
        return sum(tensor[:1].nbytes for tensor in self.tensors().values())


def _check_memory(needed: int, runs: int, size: int, tests: int) -> None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise MemoryError(
            f"runs: {runs:,} runs of {size} parameters and {tests:,} tests take "
            f"{needed / 2**30:.1f} GiB, the machine has {there / 2**30:.1f}: take slices of runs, "
            "each with an out= of its own, and sweep.join, or a larger test_every"
        )
