"""A search finds the laws of small tables, and the same ones each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nalu_kernels.fit import rounding
from nalu_kernels.fit.candidates import CANDIDATES, Candidate
from nalu_kernels.fit.found import Found, found
from nalu_kernels.fit.search import search

F64 = torch.float64
PLAIN = Candidate(("NAU",), seeds=4, steps=200)


def numbers(rows: int, low: float, high: float, columns: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(rows, columns, generator=generator, dtype=F64)
    return low + (high - low) * drawn


def searched(law: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> list[Found]:
    y = law(x)
    half = len(x) // 2
    tables = {"choosing_x": x[half:], "choosing_y": y[half:]}
    return search(x[:half], y[:half], **tables, **{"seconds": 60, "threads": 1, **options})


def answers(model: Found, x: Tensor) -> Tensor:
    used = x if model.columns is None else x[:, model.columns]
    return model.scale * model.model(used).squeeze(1)


@pytest.mark.parametrize(
    ("law", "low", "high", "columns"),
    [
        (lambda x: x[:, 0] - x[:, 2] + x[:, 3], 10, 100, (0, 2, 3)),
        (lambda x: -x[:, 1] * x[:, 2], -2, 2, (1, 2)),
        (lambda x: x[:, 0] * x[:, 1] / x[:, 3], 0.01, 1, (0, 1, 3)),
        (lambda x: (x[:, 0] + x[:, 1]) * (x[:, 2] - x[:, 3]), -2, 2, None),
        (lambda x: (x[:, 0] + x[:, 1]) / (x[:, 2] + x[:, 3]), 1, 5, None),
        (lambda x: x[:, 0] / x[:, 1] + x[:, 2], 1, 5, (0, 1, 2)),
    ],
    ids=["a-b+c", "-a*b", "a*b/c", "(a+b)*(c-d)", "(a+b)/(c+d)", "a/b+c"],
)
def test_a_law_is_found(law: Any, low: float, high: float, columns: Any) -> None:
    best = searched(law, numbers(120, low, high))[0]
    assert best.columns == columns
    assert abs(best.scale) == 1
    assert all(parameter.dtype == F64 for parameter in best.model.parameters())
    for parameter in best.model.parameters():
        assert torch.equal(parameter, parameter.round().clamp(-1, 1))
    fresh = numbers(50, high, 2 * high, seed=1)
    torch.testing.assert_close(answers(best, fresh), law(fresh), rtol=1e-9, atol=1e-9)


def test_a_factor_is_found() -> None:
    best = searched(lambda x: 2.5 * x[:, 0] * x[:, 1], numbers(120, 1, 5))[0]
    assert best.candidate.name == "RealNPU"
    assert best.scale == pytest.approx(2.5, rel=1e-9)


def test_the_same_call_finds_the_same() -> None:
    """Also where there is no law, as far as the trainings go."""
    candidates = [Candidate(("RealNPU", "NAU"), 2, seeds=4, steps=100)]
    x = numbers(60, 1, 5)

    def only_one_round(seed: int) -> list[tuple[float, float]]:
        models = searched(
            lambda x: x.sin().sum(1), x, candidates=candidates, tolerance=9.0, seed=seed
        )
        return [(model.error, model.scale) for model in models]

    assert only_one_round(3) == only_one_round(3)


def test_models_are_sorted_and_tell_what_they_took() -> None:
    models = searched(lambda x: x[:, 0] + x[:, 1], numbers(60, 1, 5), candidates=[PLAIN])
    assert [model.error for model in models] == sorted(model.error for model in models)
    assert (models[0].seeds, models[0].steps) == (4, 800)
    assert models[0].error < 1e-9


def test_no_time_finds_nothing() -> None:
    assert searched(lambda x: x[:, 0], numbers(60, 1, 5), seconds=1e-9) == []


def test_a_wrong_table_is_refused() -> None:
    x, y = numbers(10, 1, 5), torch.ones(10, dtype=F64)

    def call(x: Any = x, y: Any = y, of_x: Any = x, of_y: Any = y, **options: Any) -> None:
        search(x, y, choosing_x=of_x, choosing_y=of_y, **{"seconds": 1.0, **options})

    with pytest.raises(TypeError, match=r"x: expected a float64 tensor, got torch\.float32"):
        call(x.float())
    with pytest.raises(TypeError, match="choosing_y: expected a float64 tensor, got list"):
        call(of_y=[1.0])
    with pytest.raises(ValueError, match="y: expected finite numbers"):
        call(y=y * torch.nan)
    with pytest.raises(ValueError, match=r"x, y: expected \(rows, inputs\) and \(rows,\)"):
        call(y=y[:3])
    with pytest.raises(ValueError, match="choosing_x: expected 4 columns as x has, got 3"):
        call(of_x=x[:, :3])
    with pytest.raises(ValueError, match="candidates"):
        call(candidates=[PLAIN, PLAIN])
    with pytest.raises(ValueError, match="seed"):
        call(seed=-1)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda one: one.name)
def test_hidden_numbers_are_those_of_the_model(candidate: Candidate) -> None:
    """What a skeleton is judged by is what the layers compute."""
    x = numbers(20, -2, 2, columns=3)
    generator = torch.Generator().manual_seed(0)
    size = sum(i * o for _, i, o in rounding.parts(candidate, 3))
    lowest = 0 if "NMU" in candidate.layers[:1] else -1
    skeletons = torch.randint(lowest, 2, (5, size), generator=generator).to(F64)
    weights = rounding.split(candidate, 3, skeletons)
    got = rounding.hidden(candidate, skeletons, x)
    for k in range(5):
        model = candidate.stack(3)
        output = x
        with torch.no_grad():
            for layer, part in zip(model, weights, strict=False):
                if hasattr(layer, "g"):
                    layer.W_re.copy_(part[k])
                    layer.g.fill_(1.0)
                else:
                    layer.W.copy_(part[k])
                output = layer(output)
        torch.testing.assert_close(got[k].mT, output, rtol=1e-9, atol=1e-9)


def test_flips_change_one_weight_to_each_other_value() -> None:
    candidate = Candidate(("NAU", "NMU"), 2)
    skeletons = torch.tensor([[1.0, 0.0, -1.0, 1.0]])
    changed = rounding.flips(candidate, 2, skeletons)
    assert len(rounding.distinct(changed)) == len(changed) == 8
    assert ((changed != skeletons).sum(1) == 1).all()
    assert changed.abs().max() == 1


def test_terms_that_others_make_up_for_are_left_out() -> None:
    """Of two equal products one stays."""
    candidate = Candidate(("RealNPU", "NAU"), 3)
    x = numbers(40, 1, 5, columns=3)
    skeleton = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0], dtype=F64)
    y = x[:, 0] * x[:, 1] - x[:, 2]
    model = found(candidate, skeleton, x, y, x, y, 1, 1)
    assert model.error < 1e-12
    assert model.model[1].W.abs().sum() == 2


def test_of_equal_factors_one_stays_but_for_a_square() -> None:
    candidate = Candidate(("NAU", "RealNPU"), 3)
    x = numbers(40, 1, 5, columns=2)
    skeleton = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 1.0], dtype=F64)
    total = x.sum(1)
    for y, exponents in ((total / x[:, 1], [0, 1, -1]), (total**2 * x[:, 1], [1, 1, 1])):
        model = found(candidate, skeleton, x, y, x, y, 1, 1)
        assert model.error < 1e-12
        assert model.model[1].W_re.tolist() == [exponents]
