"""Random laws and tables of numbers that obey them, for :mod:`benchmarks.fit`.

A law is a sum, a difference, a product or a quotient of columns, or two levels of these, without
constants. Its table has columns that do not matter too.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ("sum", "product", "quotient", "sum of terms", "product of sums", "quotient of sums")
RANGES = ("1 to 5", "0 to 1", "-2 to 2", "10 to 100", "normal", "mixed")
MOST_USED, MOST_COLUMNS = 6, 10
_BOUNDS = {"1 to 5": (1, 5), "0 to 1": (0, 1), "-2 to 2": (-2, 2), "10 to 100": (10, 100)}


class Law(NamedTuple):
    """``text`` is Python over ``x0``, ``x1`` ...; ``ranges`` has one for each column."""

    kind: str
    text: str
    range: str
    ranges: tuple[str, ...]

    def answers(self, x: Tensor) -> Tensor:
        """(rows,) of inputs (rows, columns)."""
        names: dict[str, Tensor] = {f"x{k}": column for k, column in enumerate(x.unbind(1))}
        answer: Tensor = eval(self.text, {}, names)
        return answer

    def inputs(self, rows: int, generator: torch.Generator, outside: bool = False) -> Tensor:
        """Inputs (rows, columns) in float64; outside of the ranges, but for a normal column, which
        is three times as wide there."""
        columns = []
        for name in self.ranges:
            if name == "normal":
                drawn = torch.randn(rows, generator=generator, dtype=torch.float64)
                columns.append(3 * drawn if outside else drawn)
                continue
            low, high = _BOUNDS[name]
            if outside:
                low, high = high, 2 * high - low
            drawn = torch.rand(rows, generator=generator, dtype=torch.float64)
            columns.append(low + (high - low) * drawn)
        return torch.stack(columns, 1)


def draw(seed: int) -> Law:
    """The law of a seed."""
    chance = random.Random(seed)
    kind, of_range = chance.choice(KINDS), chance.choice(RANGES)
    used = chance.randint(3 if "of" in kind else 2, MOST_USED)
    columns = chance.randint(used, MOST_COLUMNS)
    names = [f"x{k}" for k in chance.sample(range(columns), used)]
    text = _TEXTS[kind](chance, names)
    plain = [name for name in RANGES if name != "mixed"]
    each = [chance.choice(plain) if of_range == "mixed" else of_range for _ in range(columns)]
    return Law(kind, text, of_range, tuple(each))


def _sum(chance: random.Random, names: list[str]) -> str:
    signs = [chance.choice("+-") for _ in names[1:]]
    return names[0] + "".join(sign + name for sign, name in zip(signs, names[1:], strict=True))


def _product(chance: random.Random, names: list[str]) -> str:
    return "*".join(names)


def _quotient(chance: random.Random, names: list[str]) -> str:
    above = chance.randint(1, len(names) - 1)
    below = "*".join(names[above:])
    return f"{'*'.join(names[:above])}/({below})"


def _parts(chance: random.Random, names: list[str], count: int) -> list[list[str]]:
    """The names in so many parts, none of them empty."""
    cuts = [0, *sorted(chance.sample(range(1, len(names)), count - 1)), len(names)]
    return [names[low:high] for low, high in itertools.pairwise(cuts)]


def _terms(chance: random.Random, names: list[str]) -> str:
    count = 2 if len(names) < 4 else chance.choice((2, 2, 3))
    terms = [
        chance.choice((_product, _quotient))(chance, part) if len(part) > 1 else part[0]
        for part in _parts(chance, names, count)
    ]
    return _sum(chance, terms)


def _sums(chance: random.Random, names: list[str]) -> str:
    count = 2 if len(names) < 5 else chance.choice((2, 2, 3))
    return "*".join(f"({_sum(chance, part)})" for part in _parts(chance, names, count))


def _quotient_of_sums(chance: random.Random, names: list[str]) -> str:
    above, below = _parts(chance, names, 2)
    if len(above) > 1 and len(below) > 1 and chance.random() < 0.3:
        return f"{'*'.join(above)}/({_sum(chance, below)})"
    return f"({_sum(chance, above)})/({_sum(chance, below)})"


_TEXTS: dict[str, Callable[[random.Random, list[str]], str]] = {
    "sum": _sum,
    "product": _product,
    "quotient": _quotient,
    "sum of terms": _terms,
    "product of sums": _sums,
    "quotient of sums": _quotient_of_sums,
}
