"""What ``make test`` leaves to ``make test-all``: never a pair of options."""

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


def pairs(combinations: list[Options]) -> set[tuple[tuple[str, Hashable], ...]]:
    return {
        pair
        for options in combinations
        for pair in itertools.combinations(sorted(options.items()), 2)
    }


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
