"""What the runs of a sweep learn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nalu_kernels import NAC, sweep
from nalu_kernels.sweep import stream
from nalu_kernels.sweep.tasks import check_range, fingerprint

F64 = torch.float64


def test_subsets_are_those_of_the_published_task() -> None:
    task = sweep.Arithmetic("a * b")
    assert task.lengths == (25, 12, 38)
    starts = task.starts(torch.arange(2000))
    offsets = starts[:, 0]
    assert (starts[:, 1] - offsets).eq(13).all()
    assert offsets.unique().tolist() == list(range(63))
    x = torch.rand(7, 100, dtype=F64)
    a, b = task.operands(x, (62, 75), 25)
    torch.testing.assert_close(a, x[:, 62:87].sum(1, keepdim=True))
    torch.testing.assert_close(b, x[:, 75:100].sum(1, keepdim=True))


def test_two_inputs_are_a_and_b() -> None:
    task = sweep.Arithmetic("a / b", in_features=2)
    assert task.starts(torch.arange(5)).eq(torch.tensor([0, 1])).all()
    x = torch.tensor([[6.0, 3.0]])
    assert task.targets(x, (0, 1)).tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("a + b", 13.0),
        ("a - b", 5.0),
        ("a * b", 36.0),
        ("a / b", 2.25),
        ("a^2", 81.0),
        ("sqrt(a)", 3.0),
        ("+", 13.0),
        ("-", 5.0),
        ("*", 36.0),
        ("/", 2.25),
        ("a*b", 36.0),
        (" a  /b ", 2.25),
        ("sqrt( a )", 3.0),
    ],
)
def test_operations(operation: str, answer: float) -> None:
    task = sweep.Arithmetic(operation, in_features=2)
    assert task.targets(torch.tensor([[9.0, 4.0]]), (0, 1)).item() == answer


def test_test_sets_are_the_same_for_all_seeds_unless_asked_for() -> None:
    task = sweep.Arithmetic("+", in_features=2, samples=50)
    train = check_range("train", task.train)
    sets = [task.test_inputs(False, train, seed, 50, F64) for seed in (1, 2)]
    assert sets[0].equal(sets[1])
    assert not sets[0].equal(task.test_inputs(True, train, 1, 50, F64))
    own = sweep.Arithmetic("+", in_features=2, samples=50, per_seed=True)
    sets = [own.test_inputs(False, train, seed, 50, F64) for seed in (1, 2)]
    assert not sets[0].equal(sets[1])
    u = stream.draw(2, stream.INSIDE, 0, 50, 2)
    assert sets[1].equal(stream.uniform(u, ((1, 2),), F64))


def test_a_function_may_return_a_vector() -> None:
    task = sweep.Function(lambda x: x.prod(1), 3, (1, 2), (2, 3))
    x = torch.rand(4, 5, 3)
    torch.testing.assert_close(task.answers(x), x.prod(-1, keepdim=True))


def test_a_function_may_work_in_place() -> None:
    task = sweep.Function(lambda x: x.mul_(2)[:, 0], 2, (1, 2), (2, 3))
    x = torch.ones(3, 2)
    assert task.answers(x).eq(2).all() and x.eq(1).all()


def test_a_table_has_numbers_only() -> None:
    x = torch.ones(3, 2)
    gap = x.index_fill(0, torch.tensor([1]), torch.nan)
    for name, given in (("x", (gap, x, x, x)), ("y_test", (x, x, x, gap))):
        with pytest.raises(ValueError, match=f"{name}: 1 rows are not finite, row 1 is the first"):
            sweep.Data(*given)


def test_a_tables_numbers_are_within_the_range_of_the_dtype() -> None:
    x = torch.ones(3, 2, dtype=torch.float64)
    large = x.index_fill(0, torch.tensor([1]), 1e300)
    whole = torch.ones(3, 1, dtype=torch.int64)
    words = "3 rows are not finite in float32, row 0 is the first"
    for name, task in (
        ("x", sweep.Data(x * 1e39, whole, x, whole)),
        ("y_outside", sweep.Data(x, whole, x, whole, x, x[:, :1] * 1e39)),
    ):
        with pytest.raises(ValueError, match=f"{name}: {words}"):
            task.check_within(torch.float32)
    task = sweep.Data(large, whole, x, whole)
    task.check_within(torch.float64)
    with pytest.raises(ValueError, match="x: 1 rows are not finite in float32, row 1"):
        sweep.run(NAC(2, 1), task, {"seed": [0]}, steps=1)


def test_an_error_of_a_function_names_it_and_the_task() -> None:
    def faulty(x: Tensor) -> Tensor:
        raise KeyError("no such thing")

    task = sweep.Function(faulty, 2, (1, 2), (2, 3))
    with pytest.raises(
        RuntimeError, match=r"task: f, .*faulty of this.*KeyError .*\(8, 2\)"
    ) as found:
        sweep.run(NAC(2, 1), task, {"seed": [0]}, steps=1)
    assert isinstance(found.value.__cause__, KeyError)


def test_a_table_serves_both_tests_without_one_outside() -> None:
    task = sweep.Data(torch.rand(5, 2), torch.rand(5), torch.rand(4, 2), torch.rand(4))
    assert task.in_features == 2 and task.y.shape == (5, 1)


def test_the_same_task_has_the_same_description() -> None:
    tables = [torch.rand(5, 2), torch.rand(5), torch.rand(4, 2), torch.rand(4)]
    tasks: list[Callable[[], Any]] = [
        lambda: sweep.Arithmetic("*", train=sweep.Normal(1, 2, high=3)),
        lambda: sweep.Function(torch.sum, 2, (1, 2), ((1, 2), (3, 4))),
        lambda: sweep.Data(*tables),
    ]
    tasks[1] = lambda: sweep.Function(lambda x: x.sum(1), 2, (1, 2), ((1, 2), (3, 4)))
    for make in tasks:
        first = json.dumps(make().describe())
        assert first == json.dumps(make().describe())
    other = sweep.Function(lambda x: x.sum(1) + 1e-3, 2, (1, 2), ((1, 2), (3, 4)))
    assert other.describe() != tasks[1]().describe()
    assert fingerprint(tables[0]) != fingerprint(tables[0] + 1)


@pytest.mark.parametrize(
    ("given", "one_form"),
    [
        ((1, 2), ((1.0, 2.0),)),
        ([1, 2], ((1.0, 2.0),)),
        (((-2, -1), (1, 2)), ((-2.0, -1.0), (1.0, 2.0))),
        (sweep.Normal(0, 1), (0.0, 1.0, -math.inf, math.inf)),
        (sweep.Exponential(2), (2.0,)),
    ],
)
def test_ranges(given: Any, one_form: Any) -> None:
    assert check_range("train", given) == one_form


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ((2, 1), ValueError, "low < high"),
        ((1, math.inf), ValueError, "finite"),
        (3, TypeError, "expected .low, high."),
        ("12", TypeError, "expected .low, high."),
        ((1, 2, 3), TypeError, "expected .low, high."),
        (("a", "b"), TypeError, "expected .low, high."),
        (((1, 2), 3), TypeError, "expected .low, high."),
        (sweep.Normal(0, 0), ValueError, "std > 0"),
        (sweep.Exponential(0), ValueError, "scale above 0"),
        (sweep.Exponential("a"), TypeError, "sweep.Exponential"),
        (sweep.Normal(0, 1, 100, 101), ValueError, "almost nothing"),
    ],
)
def test_what_is_no_range_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"train: .*{words}"):
        sweep.Arithmetic("+", train=given)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: sweep.Arithmetic("a ** b"), ValueError, "operation: expected one of a \\+ b"),
        (lambda: sweep.Arithmetic("a"), ValueError, r"sqrt\(a\), or \+, -, \*, /, got 'a'"),
        (lambda: sweep.Arithmetic(""), ValueError, "operation: expected one of"),
        (lambda: sweep.Arithmetic(3), TypeError, "operation: expected a str"),
        (lambda: sweep.Arithmetic("+", in_features=0), ValueError, "in_features"),
        (lambda: sweep.Arithmetic("+", in_features=2.0), TypeError, "in_features"),
        (lambda: sweep.Arithmetic("+", subset=2), ValueError, "subset"),
        (lambda: sweep.Arithmetic("+", subset=0.9), ValueError, "need 135 of them"),
        (lambda: sweep.Arithmetic("+", samples=0), ValueError, "samples"),
        (lambda: sweep.Function(3, 2, (1, 2), (1, 2)), TypeError, "f: expected a function"),
        (
            lambda: sweep.Function(lambda x: 1.0, 2, (1, 2), (1, 2)).answers(torch.rand(3, 2)),
            TypeError,
            "f: expected it to return a tensor",
        ),
        (
            lambda: sweep.Function(lambda x: x.sum(0), 2, (1, 2), (1, 2)).answers(torch.rand(3, 2)),
            ValueError,
            r"f: expected \(3, out_features\)",
        ),
        (
            lambda: sweep.Data([1], torch.rand(1), torch.rand(1, 2), torch.rand(1)),
            TypeError,
            "x: expected a tensor, got list",
        ),
        (
            lambda: sweep.Data(torch.rand(4, 2), torch.rand(3), torch.rand(1, 2), torch.rand(1)),
            ValueError,
            "as many rows",
        ),
        (
            lambda: sweep.Data(torch.rand(4, 2), torch.rand(4), torch.rand(1, 3), torch.rand(1)),
            ValueError,
            "as many columns",
        ),
    ],
)
def test_what_is_no_task_is_refused(
    make: Callable[[], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()
