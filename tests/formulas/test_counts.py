"""``result.formulas()`` of a sweep."""

from __future__ import annotations

import pytest
import torch

from nalu_kernels import NALU, NAU, sweep
from nalu_kernels.sweep.success import wilson


@pytest.fixture(scope="module")
def result() -> sweep.Result:
    task = sweep.Arithmetic("a + b", in_features=2, train=(1, 5), test=(5, 10))
    runs = sweep.grid(seed=range(6), lr=[0.1, 1e-6])
    return sweep.run(NAU(2, 1), task, runs, steps=400, test_every=100)


def test_counts(result: sweep.Result) -> None:
    found = result.formulas(["a", "b"], tolerance=0.01)
    (only,) = found.counts
    assert only.formula.text == "y = a + b" and only.formula.verdict == "exact"
    lr = result.to_pandas()["lr"]
    assert set(lr[only.runs]) == {0.1} and set(lr[found.none]) == {1e-6}
    assert (only.low, only.high) == wilson(len(only.runs), 12)
    assert str(found).splitlines()[0].startswith(f"y = a + b: {len(only.runs)}/12 (")
    assert str(found).splitlines()[1].startswith(f"no formula: {len(found.none)}/12 (")
    assert found.columns()["runs"] == [len(only.runs)]


def test_rows_of_ones_own(result: sweep.Result) -> None:
    x = torch.rand(20, 2)
    found = result.formulas(inside=(x, x[:, 0] - x[:, 1]))
    assert not found.counts and len(found.none) == 12


def test_fresh_rows_are_of_no_test() -> None:
    task = sweep.Arithmetic("a + b", in_features=2, train=(1, 5), test=(5, 10))
    of_test = task.test_inputs(False, ((1.0, 5.0),), 0, 100, torch.float64)
    fresh = task.test_inputs(False, ((1.0, 5.0),), 0, 100, torch.float64, fresh=True)
    assert float(fresh.min()) >= 1 and float(fresh.max()) < 5
    assert not torch.isin(fresh, of_test).any()


def test_runs_without_a_network() -> None:
    """Their loss is infinite from the first step on."""
    task = sweep.Arithmetic("a * b", in_features=2, train=(1e30, 2e30), test=(5, 10))
    result = sweep.run(NALU(2, 1), task, {"seed": [0, 1]}, steps=3, test_every=1)
    found = result.formulas()
    assert not found.counts and not found.none
    assert str(found).startswith("no network: 2/2")


def test_a_table_needs_rows_that_no_one_saw() -> None:
    x = torch.rand(50, 2)
    task = sweep.Data(x, x.sum(1), x, x.sum(1))
    result = sweep.run(NAU(2, 1), task, {"seed": [0]}, steps=10)
    with pytest.raises(ValueError, match="inside: expected rows that the sweep has not seen"):
        result.formulas()
    with pytest.raises(ValueError, match="outside: expected inside"):
        result.formulas(outside=(x, x))


def test_a_loaded_result_needs_rows(tmp_path: object) -> None:
    task = sweep.Arithmetic("a + b", in_features=2, train=(1, 5), test=(5, 10))
    sweep.run(NAU(2, 1), task, {"seed": [0]}, steps=10, out=str(tmp_path))
    with pytest.raises(ValueError, match="loaded"):
        sweep.load(str(tmp_path)).formulas()
