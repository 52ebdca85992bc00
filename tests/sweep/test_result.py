"""What a result shows, and gives back."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from small import SMALL, TASKS, run
from torch import nn

from nalu_kernels import NMRU, SNMU, sparsity_error, sweep

MADE = [
    "status", "steps", "solved_at", "error_inside", "error_outside", "best_step", "sparsity",
    "seconds", "backend",
]  # fmt: skip


@pytest.fixture(scope="module")
def result() -> sweep.Result:
    runs = sweep.grid(seed=range(3), lr=[1e-3, 3e-2], model="both", train=[[1, 2]])
    return run("function", runs, success=lambda task, row: 1e9 if row["lr"] > 1e-2 else 1e-30)


def test_the_table(result: sweep.Result) -> None:
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert list(frame) == ["seed", "lr", "model", "train", *MADE]
    assert frame.index.tolist() == list(range(6)) and frame.index.name == "run"
    solved = frame["lr"] > 1e-2
    assert (frame["status"] == solved.map({True: "solved", False: "out_of_steps"})).all()
    assert (frame["steps"] == 23).all() and (frame["backend"] == "reference").all()
    assert frame["solved_at"][~solved].isna().all() and (frame["solved_at"][solved] == 5).all()
    assert (frame["seconds"] > 0).all() and (frame["sparsity"] <= 0.5).all()
    assert frame["train"][0] == (1, 2)


def test_runs_without_a_value_are_one_group() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"seed": [0, 1] * 2, "clip_norm": [1.0] * 2 + [None] * 2})
    assert run(runs=frame, steps=1).success_rate(by="clip_norm")["runs"].tolist() == [2, 2]


def test_success_rates(result: sweep.Result) -> None:
    pytest.importorskip("pandas")
    rates = result.success_rate(by="lr")
    assert rates["lr"].tolist() == [1e-3, 3e-2]
    assert rates["runs"].tolist() == [3, 3] and rates["solved"].tolist() == [0, 3]
    assert rates["rate"].tolist() == [0, 1]
    assert rates["high"][0] == pytest.approx(0.5615, abs=1e-4) == 1 - rates["low"][1]
    assert result.success_rate()[["runs", "solved"]].to_numpy().tolist() == [[6, 3]]
    assert len(result.success_rate(by=["seed", "train"])) == 3
    with pytest.raises(ValueError, match=r"by: expected some of .*got 'rate'"):
        result.success_rate(by="rate")


def test_curves(result: sweep.Result) -> None:
    pytest.importorskip("pandas")
    curves = result.curves()
    assert list(curves) == ["run", "step", "error_inside", "error_outside"]
    assert curves["step"].tolist() == [5, 10, 15, 20, 23] * 6
    assert not curves.isna().any().any()
    best = curves.loc[curves.groupby("run")["error_inside"].idxmin()]
    assert best["error_outside"].tolist() == result.columns()["error_outside"]


def test_a_run_comes_back_as_an_ordinary_module(result: sweep.Result) -> None:
    module = result.module(4)
    assert type(module) is type(TASKS["function"][1])
    columns = result.columns()
    assert sparsity_error(module) == pytest.approx(columns["sparsity"][4])
    task = TASKS["function"][0]
    x = task.test_inputs(True, ((2.0, 3.0),), columns["seed"][4], 40, torch.float32)
    with torch.no_grad():
        error = (module(x) - task.answers(x)).double().square().mean()
    assert float(error) == pytest.approx(columns["error_outside"][4], rel=1e-4)
    last = result.module(4, which="last")
    assert isinstance(last, nn.Module)
    parameters, buffers = result.modules(which="last")
    stacked, _ = torch.func.stack_module_state(
        [result.module(number, which="last") for number in range(6)]
    )
    assert buffers == {} and parameters.keys() == stacked.keys()
    assert all(value.equal(stacked[name]) for name, value in parameters.items())


@pytest.mark.parametrize("layer", [SNMU(2, 1), NMRU(2, 1)], ids=lambda layer: type(layer).__name__)
def test_a_run_comes_back_as_it_was_tested(layer: nn.Module) -> None:
    task = sweep.Arithmetic("a * b", in_features=2, samples=40)
    result = sweep.run(layer, task, {"seed": [0]}, backend="reference", **SMALL)
    module, x = result.module(0), torch.ones(4, 2)
    assert not any(part.training for part in module.modules())
    assert torch.equal(module(x), module(x))


def test_the_best_run(result: sweep.Result) -> None:
    errors = result.columns()["error_outside"]
    assert result.best() == errors.index(min(errors))
    assert result.best("sparsity") in range(6)
    with pytest.raises(ValueError, match="metric: expected one of solved_at"):
        result.best("loss")


def test_runs_are_called_by_their_labels() -> None:
    runs = sweep.grid(seed=range(4), lr=[1e-3])[1::2]
    result = run(runs=runs)
    assert result.best() in (1, 3)
    result.module(3)
    with pytest.raises(ValueError, match="run: expected one of the 2 runs' labels, got 0"):
        result.module(0)
    with pytest.raises(ValueError, match="which: expected 'best' or 'last', got 'first'"):
        result.module(1, which="first")


def test_what_was_not_computed_is_not_a_number() -> None:
    options: dict[str, Any] = {**SMALL, "steps": 10**6}
    result = sweep.run(
        TASKS["arithmetic"][1], TASKS["arithmetic"][0], {"seed": range(3)},
        backend="reference", seconds=0.5, **options,
    )  # fmt: skip
    assert result.stopped == "seconds"
    columns = result.columns()
    assert columns["status"] == ["interrupted", "not_run", "not_run"]
    assert columns["backend"] == ["reference", None, None]
    for name in ("solved_at", "error_inside", "error_outside", "best_step", "sparsity", "seconds"):
        assert all(math.isnan(value) for value in columns[name][1:]), name
    with pytest.raises(
        ValueError, match="1 has no test to be best at; which='last' has its weights"
    ):
        result.module(1)
    assert result.best("error_outside") == 0
    pytest.importorskip("pandas")
    assert result.success_rate()["runs"].tolist() == [0]
    assert result.success_rate()["rate"].isna().all()


def test_without_pandas_the_extra_is_named(
    result: sweep.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_pandas needs pandas: pip install .*\[sweep\]"):
        result.to_pandas()
    assert len(result.columns()["status"]) == 6
    assert "6 runs: 3 out_of_steps, 3 solved" in repr(result)
