"""Rows are held back: by magnitude, evenly over the columns, and by the seed."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from nalu_kernels.fit import Split, split


def parts(found: Split) -> list[Tensor]:
    return [found.training, found.choosing, found.checking, found.outside]


def limits(x: Tensor, found: Split) -> Tensor:
    """Of the box that holds the rows inside."""
    inside = torch.cat(parts(found)[:3])
    return x[inside].abs().amax(0)


@pytest.mark.parametrize("rows", [3, 4, 5, 10, 30, 31, 300, 1001])
@pytest.mark.parametrize("inputs", [1, 2, 10])
def test_each_row_is_in_one_part(rows: int, inputs: int, rng: Generator) -> None:
    x = torch.randn(rows, inputs, generator=rng, dtype=torch.float64)
    found = split(x)
    assert torch.equal(torch.cat(parts(found)).sort().values, torch.arange(rows))
    assert all(len(part) for part in parts(found)[:3])
    assert len(found.outside) <= max(rows // 5, inputs)  # of which each may have a row of its own
    if rows >= 30:
        assert len(found.outside) > 0.1 * rows
        sizes = torch.tensor([len(part) for part in parts(found)[:3]]) / (rows - len(found.outside))
        torch.testing.assert_close(sizes, torch.tensor([0.6, 0.2, 0.2]), atol=0.05, rtol=0)


def test_rows_outside_leave_the_box_of_those_inside(rng: Generator) -> None:
    x = torch.randn(300, 4, generator=rng, dtype=torch.float64)
    found = split(x)
    assert (x[found.outside].abs() > limits(x, found)).any(1).all()


def test_no_column_has_most_of_the_rows_outside(rng: Generator) -> None:
    """Neither one of large numbers nor one with a heavy tail."""
    x = 1 + torch.rand(1000, 3, generator=rng, dtype=torch.float64)
    x[:, 1] *= 1e6
    x[:, 2] = (3 * torch.randn(1000, generator=rng, dtype=torch.float64)).exp()
    found = split(x)
    leaving = (x[found.outside].abs() > limits(x, found)).sum(0)
    assert (leaving > 50).all()


def test_scales_and_signs_change_nothing(rng: Generator) -> None:
    x = torch.randn(100, 3, generator=rng, dtype=torch.float64)
    scaled = x * torch.tensor([1e-9, -1.0, 4e7], dtype=torch.float64)
    for one, other in zip(parts(split(x)), parts(split(scaled)), strict=True):
        assert torch.equal(one, other)


def test_equal_magnitudes_stay_on_one_side(rng: Generator) -> None:
    x = torch.arange(10.0, dtype=torch.float64).repeat(30)[:, None]
    assert x[split(x).outside].unique().tolist() == [8, 9]
    third = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64).repeat(20)[:, None]
    assert third[split(third).outside].unique().tolist() == [-3]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nothing_is_outside_where_no_row_is_larger(value: float) -> None:
    signs = torch.tensor([value, -value], dtype=torch.float64).repeat(20)[:, None]
    assert not len(split(signs).outside)


def test_most_rows_are_never_outside() -> None:
    flags = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64).repeat(20)[:, None]
    assert not len(split(flags).outside)


def test_the_seed_moves_the_rows_inside_only(rng: Generator) -> None:
    x = torch.rand(200, 2, generator=rng, dtype=torch.float64)
    first, again, other = split(x), split(x), split(x, seed=1)
    for one, same in zip(parts(first), parts(again), strict=True):
        assert torch.equal(one, same)
    assert torch.equal(first.outside, other.outside)
    assert not torch.equal(first.training, other.training)


def test_another_share(rng: Generator) -> None:
    x = torch.rand(200, 2, generator=rng, dtype=torch.float64)
    assert not len(split(x, outside=0).outside)
    assert len(split(x, outside=0.5).outside) > 80
    for share in (-0.1, 0.6, float("nan")):
        with pytest.raises(ValueError, match=r"outside: expected a share from 0 to 0.5"):
            split(x, outside=share)
    with pytest.raises(ValueError, match="at least 3 rows, got 2"):
        split(x[:2])
