"""What is found without a search: sums with coefficients, products of powers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from laws import drawn
from torch import Generator, Tensor, nn

from nalu_kernels.fit.baseline import least_squares, power_law


def predictions(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        answers: Tensor = model(x)
    assert answers.shape == (len(x), 1)
    return answers[:, 0]


def test_a_linear_regression_is_that_of_the_normal_equations(rng: Generator) -> None:
    table = drawn(rng, lambda a, b: a * b)
    design = torch.cat([table.x, torch.ones(len(table), 1, dtype=torch.float64)], 1)
    weights = torch.linalg.solve(design.T @ design, design.T @ table.y)
    torch.testing.assert_close(
        predictions(least_squares(table.x, table.y), table.x), design @ weights
    )


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_fewer_rows_than_inputs(rows: int, rng: Generator) -> None:
    table = drawn(rng, lambda a, b: a * b, inputs=5, rows=rows)
    model = least_squares(table.x, table.y)
    torch.testing.assert_close(predictions(model, table.x), table.y)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_numbers_of_any_size(size: float, rng: Generator) -> None:
    table = drawn(rng, lambda a, b: 2 * a + b)
    for x, y in [(size * table.x, table.y), (table.x, size * table.y)]:
        for model in (least_squares(x, y), power_law(x, y)):
            if model is not None:
                assert all(p.isfinite().all() for p in model.parameters())


def test_constant_columns_and_targets(rng: Generator) -> None:
    x, y = torch.ones(20, 2, dtype=torch.float64), torch.full((20,), 3.0, dtype=torch.float64)
    for model in (least_squares(x, y), power_law(x, y)):
        assert model is not None
        torch.testing.assert_close(predictions(model, x), y)


@pytest.mark.parametrize(
    ("law", "exponents"),
    [
        (lambda a, b, c: a * b / c, [1, 1, -1]),
        (lambda a, b, c: 0.5 * a * b**2, [1, 2, 0]),
        (lambda a, b, c: 6.28 * (a / b) ** 0.5, [0.5, -0.5, 0]),
        (lambda a, b, c: -3 / a**3, [-3, 0, 0]),
    ],
)
def test_a_product_of_powers(
    law: Callable[..., Tensor], exponents: list[float], rng: Generator
) -> None:
    table = drawn(rng, law)
    model = power_law(table.x, table.y)
    assert model is not None and model[0].W_re.tolist() == [exponents]
    torch.testing.assert_close(predictions(model, table.x), table.y)


def test_signs_of_a_product(rng: Generator) -> None:
    table = drawn(rng, lambda a, b, c: a * b**2 / c, low=-2, high=2)
    table.x[3, 0] = 0  # says nothing, as its logarithm does not
    table.y[3] = 0
    model = power_law(table.x, table.y)
    assert model is not None
    torch.testing.assert_close(predictions(model, table.x)[4:], table.y[4:])


def test_a_factor_that_noise_hides_is_1(rng: Generator) -> None:
    table = drawn(rng, lambda a, b: a * b, rows=300)
    noise = 1 + 0.01 * torch.randn(300, generator=rng, dtype=torch.float64)
    for factor in (1.0, 1.08):
        model = power_law(table.x, factor * table.y * noise)
        assert model is not None and model[0].W_re.tolist() == [[1, 1, 0]]
        assert (model[1].weight.item() == 1) == (factor == 1)


def test_too_many_zeros() -> None:
    x = torch.zeros(9, 2, dtype=torch.float64)
    assert power_law(x, x[:, 0]) is None
