"""Which combinations of a test's parameters are run, and which of them by ``make test``.

``only(condition)`` leaves out what a back end does not promise: no test is made of it.
``slow(condition)`` marks as ``long`` what takes seconds and has a quicker test beside it. A
condition names the parameters that it looks at.

``pairs`` is for a test of many options. Nearly every fault shows with one option or with two at
once (Kuhn, Wallace and Gallo 2004, "Software Fault Interactions and Implications for Software
Testing", IEEE Transactions on Software Engineering 30(6)). So ``make test`` runs combinations that
have every pair of options between them; the others of the whole product are marked ``long``, and
``make test-all`` runs them too. A parameter with a method ``made_of``, such as a layer's kind,
counts as the options that this returns.
"""

from __future__ import annotations

import inspect
import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from operator import itemgetter

import pytest

pairs = pytest.mark.pairs
long = pytest.mark.long

MARKERS = (
    "long: left to `make test-all`",
    "pairs: `make test` runs every pair of this test's options, not their whole product",
    "only(condition): made only of the combinations that condition(**parameters) accepts",
    "slow(condition): long, where condition(**parameters) holds",
)


def only(condition: Callable[..., bool]) -> pytest.MarkDecorator:
    return pytest.mark.only.with_args(condition)


def slow(condition: Callable[..., bool]) -> pytest.MarkDecorator:
    return pytest.mark.slow.with_args(condition)


def covering(combinations: Sequence[Mapping[str, Hashable]], costs: Sequence[float]) -> list[int]:
    """Indices of combinations that have every pair of options that occurs in any. Each of them is
    the one that adds the most pairs for its cost (Cohen, Dalal, Fredman and Patton 1997, "The AETG
    System", IEEE Transactions on Software Engineering 23(7)), and of equals the first."""
    # An option is paired with itself too, for a combination may have no other.
    pairs_of = [
        set(itertools.combinations_with_replacement(sorted(options.items(), key=itemgetter(0)), 2))
        for options in combinations
    ]
    missing, chosen = set().union(*pairs_of), []
    while missing:
        best = max(range(len(pairs_of)), key=lambda i: len(pairs_of[i] & missing) / costs[i])
        chosen.append(best)
        missing -= pairs_of[best]
    return chosen


def _options(item: pytest.Function) -> dict[str, Hashable]:
    found: dict[str, Hashable] = {}
    for name, value in item.callspec.params.items():
        if hasattr(value, "made_of"):
            found |= value.made_of()
        else:
            found[name] = id(value)  # a test's combinations share their values
    return found


def _cost(item: pytest.Function) -> float:
    """Triton's interpreter takes many times as long as anything else."""
    backend = item.callspec.params.get("backend")
    return 10 if backend is not None and backend.interpreted else 1


def _conditions(item: pytest.Item, marker: str) -> Iterator[bool]:
    """Of each such mark. A whole module's has no say in tests that lack the parameters that it
    looks at; a test's own has to find them."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    for node, mark in item.iter_markers_with_node(marker):
        (condition,) = mark.args
        names = inspect.signature(condition).parameters.keys()
        if names <= given.keys():
            yield condition(**{name: given[name] for name in names})
        elif node is item:
            missing = ", ".join(sorted(names - given.keys()))
            raise pytest.UsageError(f"{item.nodeid}: {marker} looks at {missing}, which it lacks")


@pytest.hookimpl(tryfirst=True)  # before ``-m`` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if all(_conditions(item, "only"))]
    tests = defaultdict(list)
    for item in items:
        if any(_conditions(item, "slow")):
            item.add_marker(long)
        elif item.get_closest_marker("pairs") and hasattr(item, "callspec"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for test in tests.values():
        chosen = covering(list(map(_options, test)), list(map(_cost, test)))
        for item in {*range(len(test))} - {*chosen}:
            test[item].add_marker(long)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
