"""A table's formula: what is held back stays unseen, what is exact holds, and the choice is that
of docs/fit.md."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from laws import drawn
from torch import Generator, Tensor, nn

from nalu_kernels import NAU, RealNPU
from nalu_kernels.fit import Row, Table, contenders, fit, fitting, search


def sum_and_product(
    weights: list[list[float]], powers: list[float], scale: float = 1.0
) -> SimpleNamespace:
    """What a search may find: a product of powers of sums."""
    first = NAU(len(weights[0]), len(weights), dtype=torch.float64)
    second = RealNPU(len(powers), 1, dtype=torch.float64)
    with torch.no_grad():
        first.W.copy_(torch.tensor(weights))
        second.W_re.copy_(torch.tensor([powers]))
        second.g.fill_(1)
    candidate = SimpleNamespace(name="NAU, RealNPU", complexity=5)
    model = nn.Sequential(first, second).eval()
    return SimpleNamespace(candidate=candidate, model=model, scale=scale, columns=None)


class Search:
    """In place of the search: finds ``found``, and keeps what it was given."""

    def __init__(self, *found: Any) -> None:
        self.found, self.given = list(found), {}

    def __call__(self, x: Tensor, y: Tensor, **options: Any) -> list[Any]:
        self.given = {"x": x, "y": y, **options}
        return self.found


@pytest.fixture
def table(rng: Generator) -> Table:
    return drawn(rng, lambda a, b, c: (a + b) * c)


LAW = sum_and_product([[1, 1, 0], [0, 0, 1]], [1, 1])
NEARLY = sum_and_product([[1, 0.97, 0], [0, 0, 1]], [1, 1])
FACTOR = sum_and_product([[1, 1, 0], [0, 0, 1]], [1, 1], 2.0)


def test_a_law_is_found_and_exact(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "search", Search(NEARLY, LAW))
    found = fit(table)
    assert found.found and found.best.verdict == "exact"
    assert str(found.formula.sympy()) == "c*(a + b)"
    assert found.best.candidate == "NAU, RealNPU" and found.best.error < 1e-12
    fresh = 10 * table.x
    torch.testing.assert_close(found.predict(fresh), (fresh[:, 0] + fresh[:, 1]) * fresh[:, 2])
    assert [row.complexity for row in found.rows] == sorted(row.complexity for row in found.rows)
    assert {row.candidate for row in found.rows} >= {"linear regression", "power law"}


def test_what_a_constant_is_as_good_as_is_no_model(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = sum_and_product([[0, 0, 0], [0, 0, 0]], [1, 1], 1.0)
    monkeypatch.setattr(contenders, "search", Search(nothing, LAW))
    found = fit(table)
    assert all(row.formula.sympy().free_symbols for row in found.rows)


def test_a_factor_is_part_of_the_model(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "search", Search(FACTOR))
    found = fit(Table(table.names, "y", table.x, 2 * table.y))
    assert found.best.verdict == "exact"
    fresh = 10 * table.x
    torch.testing.assert_close(found.predict(fresh), 2 * (fresh[:, 0] + fresh[:, 1]) * fresh[:, 2])


def test_a_model_of_some_columns(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    part = sum_and_product([[1, 1], [1, 0]], [1, 1])
    part.columns = (2, 0)
    monkeypatch.setattr(contenders, "search", Search(part))
    c, a = table.x[:, 2], table.x[:, 0]
    found = fit(Table(table.names, "y", table.x, (c + a) * c))
    assert found.best.verdict == "exact" and found.best.columns == (2, 0)
    assert {str(symbol) for symbol in found.formula.sympy().free_symbols} == {"a", "c"}
    torch.testing.assert_close(found.predict(table.x), (c + a) * c)


def test_the_search_sees_training_and_choosing_rows_alone(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search()
    monkeypatch.setattr(contenders, "search", search)
    found = fit(table, seconds=20, seed=7, threads=3)
    for name, rows in [("x", found.split.training), ("choosing_x", found.split.choosing)]:
        assert torch.equal(search.given[name], table.x[rows])
    for name, rows in [("y", found.split.training), ("choosing_y", found.split.choosing)]:
        assert torch.equal(search.given[name], table.y[rows])
    assert search.given["seed"] == 7 and search.given["threads"] == 3
    assert search.given["seconds"] == pytest.approx(17)


def test_without_time_the_best_and_the_regression_are_read(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(LAW)
    monkeypatch.setattr(contenders, "search", search)
    found = fit(table, seconds=1e-9)
    assert search.given and found.best.verdict == "exact"
    assert [row.candidate for row in found.rows] == ["NAU, RealNPU", "linear regression"]


def test_a_large_table_is_searched_in_part(rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search()
    monkeypatch.setattr(contenders, "search", search)
    found = fit(drawn(rng, lambda a, b, c: (a + b) * c, rows=20_000))
    assert 1000 < len(search.given["x"]) == len(search.given["y"]) <= 2000
    assert 1000 < len(search.given["choosing_x"]) == len(search.given["choosing_y"]) <= 2000
    assert len(found.split.training) > 9000


def test_rows_held_back_change_no_choice(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for "exact", which nothing is here."""
    monkeypatch.setattr(contenders, "search", Search(NEARLY))
    found = fit(table)
    y = table.y.clone()
    y[torch.cat([found.split.checking, found.split.outside])] = 0.5
    other = fit(Table(table.names, "y", table.x, y))
    assert other.best.candidate == found.best.candidate == "NAU, RealNPU"
    assert other.best.error == found.best.error and other.best.verdict == "not a formula"


def test_what_fails_outside_is_no_formula(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "search", Search(LAW))
    y = table.y.clone()
    y[fit(table).split.outside] *= 3
    found = fit(Table(table.names, "y", table.x, y))
    assert not found.found and found.best.verdict == "not a formula"
    assert found.formula.inside.model.largest < 1e-12
    assert found.formula.outside is not None and found.formula.outside.model.spread > 0.5


@pytest.mark.parametrize("law", [lambda a, b: 2 * a - b + 0.5, lambda a, b: a**2 / b])
def test_nothing_is_searched_where_a_regression_is_the_law(
    law: Any, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search()
    monkeypatch.setattr(contenders, "search", search)
    assert fit(drawn(rng, law)).best.verdict == "exact"
    assert not search.given


@pytest.mark.parametrize("rows", [3, 5, 11])
def test_few_rows_are_not_searched(
    rows: int, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search()
    monkeypatch.setattr(contenders, "search", search)
    found = fit(drawn(rng, lambda a, b, c: torch.sin(a * b) + c, rows=rows))
    assert not search.given and found.best.verdict == "not a formula"
    assert found.predict(found.table.x).isfinite().all()


@pytest.mark.parametrize("calls", [0, 2])
def test_ctrl_c_leaves_what_was_found(
    calls: int, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, done = search.train, []

    def train(candidate: Any, *tables: Any, **options: Any) -> Any:
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(candidate.name)
        return whole(candidate, *tables, **options)

    monkeypatch.setattr(search, "train", train)
    found = fit(drawn(rng, lambda a, b, c: torch.sin(a * b) + c))
    assert len(done) == calls
    assert {row.candidate for row in found.rows} <= {"linear regression", "power law", *done}
    assert bool(done) == any(row.candidate in done for row in found.rows)


def row(complexity: int, error: float, verdict: str) -> Row:
    formula: Any = SimpleNamespace(complexity=complexity, verdict=verdict)
    return Row("", error, (), nn.Sequential(), formula)


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(9, 0.1, "exact"), (5, 0.2, "exact"), (3, 0.01, "approximate")], 1),
        ([(9, 0.100, "approximate"), (5, 0.124, "not a formula"), (3, 0.2, "approximate")], 1),
        ([(9, 0.1, "approximate"), (5, 0.13, "approximate")], 0),
        ([(5, 0.12, "approximate"), (5, 0.119, "approximate")], 1),
        ([(9, 0.0, "not a formula"), (5, 1e-10, "approximate")], 1),
    ],
)
def test_the_choice(rows: list[tuple[int, float, str]], best: int) -> None:
    made = [row(*values) for values in rows]
    assert fitting.choose(made) is made[best]


def test_what_is_refused(table: Table) -> None:
    with pytest.raises(ValueError, match="seconds: expected at least 0, got -1"):
        fit(table, seconds=-1)
    with pytest.raises(ValueError, match="outside: expected a share"):
        fit(table, outside=2)
    for size in (1e-90, 1e90):
        with pytest.raises(ValueError, match=r"'b': its largest magnitude is .*another unit"):
            fit(
                Table(
                    table.names,
                    "y",
                    table.x * torch.tensor([1, size, 1], dtype=torch.float64),
                    table.y,
                )
            )
        with pytest.raises(ValueError, match=r"'y': its largest magnitude is .*another unit"):
            fit(Table(table.names, "y", table.x, size * table.y))


@pytest.mark.parametrize("size", [1e-50, 1e-20, 1e20, 1e50])
def test_numbers_of_any_size_end_in_an_answer(size: float, table: Table) -> None:
    for x, y in [(size * table.x, table.y), (table.x, size * table.y)]:
        found = fit(Table(table.names, "y", x, y), seconds=1)
        assert found.rows and found.best in found.rows


def odd_column(rng: Generator, rows: int) -> Tensor:
    uniform = torch.rand(rows, generator=rng, dtype=torch.float64)
    normal = torch.randn(rows, generator=rng, dtype=torch.float64)
    columns = [
        normal,
        (3 * uniform).round(),
        (uniform > 0.5).double(),
        (5 * normal).exp(),
        1e-20 * normal,
        1e15 * uniform,
        torch.arange(rows, dtype=torch.float64),
        1e8 * (uniform > 0.98) + normal,
    ]
    return columns[int(torch.randint(len(columns), (1,), generator=rng))]


@pytest.mark.parametrize("rows", [3, 12, 13, 50, 200])
@pytest.mark.parametrize("inputs", [1, 2, 8])
def test_odd_columns_end_in_an_answer(rows: int, inputs: int, rng: Generator) -> None:
    x = torch.stack([odd_column(rng, rows) for _ in range(inputs)], 1)
    x[:, -1] = x[:, 0]  # the same column twice
    for y in (odd_column(rng, rows), x.prod(1).clamp(-1e50, 1e50), x.sum(1)):
        found = fit(Table(tuple("abcdefgh"[:inputs]), "y", x, y), seconds=0.2, threads=1)
        assert found.best in found.rows
        assert all(math.isfinite(row.error) for row in found.rows)


def test_the_whole_way(table: Table) -> None:
    found = fit(table, seconds=60)
    assert found.best.verdict == "exact" and found.seconds < 60
    assert str(found.formula.sympy()) == "c*(a + b)"
