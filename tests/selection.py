"""Which combinations of a test's parameters are run, and which of them by ``make test``.

``only(condition)`` leaves out what a back end does not promise: no test is made of it.
``slow(condition)`` marks as ``long`` what takes seconds and has a quicker test beside it. A
condition names the parameters that it looks at.

``pairs`` is for a test of many options. Most faults show with one option or with two at once, and
nearly all with three at most (Kuhn, Wallace and Gallo 2004, "Software Fault Interactions and
Implications for Software Testing", IEEE Transactions on Software Engineering 30(6)). So
``make test`` runs combinations that have every pair of options between them, and ``make test-long``
what is missing until they have every triple. No test is made of the others: of the whole product
``make fuzz`` draws. A parameter with a method ``made_of``, such as a layer's kind, counts as the
options that this returns.
"""

from __future__ import annotations

import heapq
import inspect
import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

import pytest

pairs = pytest.mark.pairs
long = pytest.mark.long

MARKERS = (
    "long: left to `make test-all`",
    "pairs: `make test` runs every pair of this test's options, `make test-all` every triple",
    "only(condition): made only of the combinations that condition(**parameters) accepts",
    "slow(condition): long, where condition(**parameters) holds",
)


def only(condition: Callable[..., bool]) -> pytest.MarkDecorator:
    return pytest.mark.only.with_args(condition)


def slow(condition: Callable[..., bool]) -> pytest.MarkDecorator:
    return pytest.mark.slow.with_args(condition)


def covering(
    combinations: Sequence[Mapping[str, Hashable]],
    costs: Sequence[float],
    together: int = 2,
    chosen: Iterable[int] = (),
) -> list[int]:
    """Indices of combinations that have, with those ``chosen`` before, all options that occur
    ``together`` in any. Each of them is the one that adds the most for its cost (Cohen, Dalal,
    Fredman and Patton 1997, "The AETG System", IEEE Transactions on Software Engineering 23(7)),
    and of equals the first."""
    # An option goes together with itself too, for a combination may have no other.
    ordered = [sorted(options.items(), key=itemgetter(0)) for options in combinations]
    tuples_of = [set(itertools.combinations_with_replacement(one, together)) for one in ordered]
    missing = set().union(*tuples_of).difference(*(tuples_of[i] for i in chosen))
    found = []
    # What a combination adds only falls, so it is counted again when it comes to the head.
    queue = [(-len(tuples_of[i]) / costs[i], i) for i in range(len(costs))]
    heapq.heapify(queue)
    while missing:
        i = queue[0][1]
        now = (-len(tuples_of[i] & missing) / costs[i], i)
        if now > queue[0]:
            heapq.heapreplace(queue, now)
        else:
            heapq.heappop(queue)
            found.append(i)
            missing -= tuples_of[i]
    return found


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
        if item.get_closest_marker("pairs") and hasattr(item, "callspec"):
            tests[item.nodeid.partition("[")[0]].append(item)
    left_out = set()
    for test in tests.values():
        short, more = _chosen(test)
        for item in more:
            item.add_marker(long)
        left_out |= {*test} - {*short, *more}
    items[:] = [item for item in items if item not in left_out]


def _chosen(test: list[pytest.Function]) -> tuple[list[pytest.Function], list[pytest.Function]]:
    """Of a test's combinations those of ``make test``, none of them slow, and what
    ``make test-long`` adds."""
    options, costs = list(map(_options, test)), list(map(_cost, test))
    quick = [i for i, item in enumerate(test) if not item.get_closest_marker("long")]
    found = covering([options[i] for i in quick], [costs[i] for i in quick])
    short = [quick[i] for i in found]
    more = covering(options, costs, 3, short)
    return [test[i] for i in short], [test[i] for i in more]


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
