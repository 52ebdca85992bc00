"""How many runs found which formula."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..sweep.success import wilson
from .read import formula
from .result import Formula
from .verdict import VERDICTS

Rows = tuple[Tensor, Tensor]


class Count(NamedTuple):
    """A formula, and how many of all runs found it.

    Attributes:
        formula: the first of them, in the order of the runs.
        runs: their labels.
        rate, low, high: share of all runs, and Wilson's 95 % interval.
    """

    formula: Formula
    runs: list[int]
    rate: float
    low: float
    high: float


@dataclass(frozen=True, repr=False)
class Formulas:
    """What :meth:`nalu_kernels.sweep.Result.formulas` returns.

    Attributes:
        counts: a :class:`Count` for each formula that is exact or approximate, most runs first.
        none: the labels of the runs whose network is not a formula.
        total: how many runs there were; those without a network are in no count.
    """

    counts: list[Count]
    none: list[int]
    total: int

    def __str__(self) -> str:
        rows = [
            (of.formula.text, of.formula.verdict, len(of.runs), of.low, of.high)
            for of in self.counts
        ]
        if self.none:
            interval = wilson(len(self.none), self.total)
            rows.append(("no formula", "", len(self.none), *interval))
        if missing := self.total - sum(row[2] for row in rows):
            rows.append(("no network", "", missing, *wilson(missing, self.total)))
        return "\n".join(
            f"{text}: {runs}/{self.total} ({100 * low:.1f}-{100 * high:.1f} %)"
            + (f", {verdict}" if verdict else "")
            for text, verdict, runs, low, high in rows
        )

    __repr__ = __str__

    def columns(self) -> dict[str, list[Any]]:
        """The counts as a table, which ``pandas.DataFrame`` takes."""
        return {
            "formula": [of.formula.text for of in self.counts],
            "verdict": [of.formula.verdict for of in self.counts],
            "runs": [len(of.runs) for of in self.counts],
            "rate": [of.rate for of in self.counts],
            "low": [of.low for of in self.counts],
            "high": [of.high for of in self.counts],
        }


def count(
    found: Iterable[tuple[int, nn.Module, Rows, Rows | None]],
    total: int,
    names: Sequence[str] | None,
    tolerance: float,
) -> Formulas:
    """Of labels, modules and their rows inside and outside."""
    groups: dict[tuple[str, str], list[tuple[int, Formula]]] = {}
    none = []
    for label, module, inside, outside in found:
        read = formula(module, names, inside=inside, outside=outside, tolerance=tolerance)
        if read.verdict == VERDICTS[2]:
            none.append(label)
        else:
            groups.setdefault((read.text, read.verdict), []).append((label, read))
    counts = [
        Count(
            group[0][1],
            [label for label, _ in group],
            len(group) / total,
            *wilson(len(group), total),
        )
        for group in groups.values()
    ]
    return Formulas(sorted(counts, key=lambda of: -len(of.runs)), none, total)
