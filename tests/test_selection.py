"""What ``make test`` leaves to ``make test-all``: never a pair of options; and what that leaves
out: never a triple."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from types import SimpleNamespace

import pytest

import selection
from layers import KINDS

Options = Mapping[str, Hashable]


def product(**options: list[Hashable]) -> list[Options]:
    return [
        dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())
    ]


def together(count: int, combinations: list[Options]) -> set[tuple[tuple[str, Hashable], ...]]:
    return {
        some
        for options in combinations
        for some in itertools.combinations(sorted(options.items()), count)
    }


def pairs(combinations: list[Options]) -> set[tuple[tuple[str, Hashable], ...]]:
    return together(2, combinations)


def chosen(combinations: list[Options], costs: list[float] | None = None) -> list[Options]:
    found = selection.covering(combinations, costs or [1.0] * len(combinations))
    assert len(set(found)) == len(found)
    return [combinations[i] for i in found]


LISTS = [
    {"a": [1]},
    {"a": [1, 2, 3]},
    {"a": [1, 2], "b": [1, 2, 3]},
    {"a": [1, 2], "b": [1, 2], "c": [1, 2], "d": [1, 2]},
    {"a": list(range(13)), "b": list(range(4)), "c": [1, 2, 3], "d": [True, False]},
]


@pytest.mark.parametrize(
    "options", LISTS, ids=lambda lists: "x".join(map(str, map(len, lists.values())))
)
def test_every_option_and_every_pair_is_there(options: dict[str, list[Hashable]]) -> None:
    combinations = product(**options)
    found = chosen(combinations)
    assert pairs(found) == pairs(combinations)
    for name, values in options.items():
        assert {one[name] for one in found} == {*values}
    widest = sorted(map(len, options.values()))[-2:]
    if len(options) > 2:  # at the least one for each pair of the two longest lists; not many more
        assert widest[0] * widest[1] <= len(found) < 1.5 * widest[0] * widest[1] + 2


@pytest.mark.parametrize(
    "options", LISTS[1:], ids=lambda lists: "x".join(map(str, map(len, lists.values())))
)
def test_pairs_and_what_is_added_have_every_triple(options: dict[str, list[Hashable]]) -> None:
    combinations = product(**options)
    costs = [1.0] * len(combinations)
    short = selection.covering(combinations, costs)
    more = selection.covering(combinations, costs, 3, short)
    assert not {*short} & {*more}
    found = [combinations[i] for i in (*short, *more)]
    assert together(3, found) == together(3, combinations)
    if len(options) < 4:
        assert len(found) == len(combinations)
    else:
        assert len(found) < len(combinations)


class Combination(SimpleNamespace):
    """As much of a collected test as is chosen by."""

    __hash__ = object.__hash__

    def __init__(self, slow: bool, **parameters: object) -> None:
        super().__init__(slow=slow, callspec=SimpleNamespace(params=parameters))

    def get_closest_marker(self, name: str) -> bool:
        return name == "long" and self.slow


def test_what_is_slow_stands_in_triples_alone() -> None:
    test = [
        Combination(options["a"] == options["b"] == 0, **options)
        for options in product(a=[0, 1, 2], b=[0, 1, 2], c=[0, 1, 2], d=[0, 1, 2])
    ]
    short, more = selection._chosen(test)
    assert not any(one.slow for one in short) and any(one.slow for one in more)
    options = [one.callspec.params for one in test]
    assert together(3, [one.callspec.params for one in (*short, *more)]) == together(3, options)
    assert len(short) + len(more) < len(test)


def test_what_is_no_combination_is_not_asked_for() -> None:
    combinations = [one for one in product(a=[1, 2, 3], b=[1, 2], c=[1, 2]) if one["a"] != one["b"]]
    assert pairs(chosen(combinations)) == pairs(combinations)


def test_the_dearer_option_is_chosen_no_more_often_than_it_has_to_be() -> None:
    combinations = product(backend=["fast", "slow"], shape=list(range(10)), dtype=list(range(3)))
    found = chosen(
        combinations, [10.0 if one["backend"] == "slow" else 1.0 for one in combinations]
    )
    assert pairs(found) == pairs(combinations)
    assert sum(one["backend"] == "slow" for one in found) == 10


def test_kinds_are_paired_by_their_options() -> None:
    made_of = [kind.made_of() for kind in KINDS]
    assert pairs(chosen(made_of)) == pairs(made_of)
    assert len(chosen(made_of)) < len(KINDS)


def item(own: bool = False, **parameters: object) -> SimpleNamespace:
    """As much of a collected test as a condition is asked about."""
    mark = selection.only(lambda backend, size: backend != "small" or size < 10).mark
    made = SimpleNamespace(callspec=SimpleNamespace(params=parameters), nodeid="test")
    marks = [(made if own else "its module", mark)]
    made.iter_markers_with_node = lambda name: marks
    return made


def test_conditions_of_parameters() -> None:
    def conditions(**parameters: object) -> list[bool]:
        return list(selection._conditions(item(**parameters), "only"))

    assert conditions(backend="small", size=9) == [True]
    assert conditions(backend="large", size=10) == [True]
    assert conditions(backend="small", size=10) == [False]
    assert conditions(backend="small") == []  # it has no say in this
    assert conditions(own=True, backend="small", size=9) == [True]
    with pytest.raises(pytest.UsageError, match="test: only looks at size, which it lacks"):
        conditions(own=True, backend="small")
