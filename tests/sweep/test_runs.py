"""The table of runs: what it may be, and what is said of what it may not."""

from __future__ import annotations

import datetime
import inspect
from typing import Any

import pytest
import torch
from torch import nn

from nalu_kernels import INALU, NALU, NMU, SNMU, RealNPU, sweep
from nalu_kernels.sweep.runs import HYPER, Columns, as_runs

TASK = sweep.Arithmetic("a * b", in_features=2)


def test_a_grid_has_every_combination_in_order() -> None:
    runs = sweep.grid(seed=range(2), lr=[0.1, 0.2, 0.3], model="NAC")
    assert len(runs) == 6
    assert runs["seed"] == [0, 0, 0, 1, 1, 1] and runs["lr"] == [0.1, 0.2, 0.3] * 2
    assert runs["model"] == ["NAC"] * 6
    part = runs[1::2]
    assert part.index == [1, 3, 5] and part["lr"] == [0.2, 0.1, 0.3]
    assert len(sweep.grid(betas=[(0.9, 0.999), (0.5, 0.9)], train=[(1, 2)])) == 2


def test_all_forms_of_a_table_are_the_same() -> None:
    pandas = pytest.importorskip("pandas")
    columns = {"seed": [3, 4], "lr": [0.1, 0.2], "train": [(1, 2), ((-2, -1), (1, 2))]}
    forms = [
        columns,
        {**columns, "seed": torch.tensor([3, 4])},
        [{name: column[row] for name, column in columns.items()} for row in range(2)],
        pandas.DataFrame(columns),
        sweep.Runs(columns),
    ]
    for form in forms:
        assert as_runs(form).columns == columns
    assert as_runs(pandas.DataFrame(columns)[1:]).index == [1]


def test_a_frame_with_two_columns_of_one_name_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="columns of different names, got 'lr' twice"):
        as_runs(pandas.DataFrame([[1, 0.1, 0.2]], columns=["seed", "lr", "lr"]))


@pytest.mark.parametrize("index", [[True, False], [0, 2**63], [-1, 0], ["a", "b"], [0.5, 1]])
def test_an_index_of_anything_but_whole_numbers_gives_way_to_the_rows(index: list[Any]) -> None:
    pandas = pytest.importorskip("pandas")
    assert as_runs(pandas.DataFrame({"seed": [3, 4]}, index)).index == [0, 1]
    assert as_runs(sweep.Runs({"seed": [3, 4]}, index)).index == [0, 1]


def test_hyperparameters_have_the_defaults_of_torch() -> None:
    for name, kind in (
        ("adam", torch.optim.Adam),
        ("rmsprop", torch.optim.RMSprop),
        ("sgd", torch.optim.SGD),
    ):
        hyper = dict(zip(HYPER, Columns({"seed": [0]}, TASK, name).hyper[0].tolist(), strict=True))
        own: dict[str, Any] = kind([torch.zeros(1, requires_grad=True)]).defaults
        assert hyper["lr"] == own["lr"] and hyper["weight_decay"] == own["weight_decay"]
        if name == "adam":
            assert (hyper["beta1"], hyper["beta2"]) == own["betas"]
        if name == "rmsprop":
            assert hyper["beta2"] == own["alpha"]
        if name != "sgd":
            assert hyper["eps"] == own["eps"]


def test_columns_are_read() -> None:
    pandas = pytest.importorskip("pandas")
    runs = pandas.DataFrame(
        {
            "seed": [1, 2],
            "betas": [(0.5, 0.9), [0.6, 0.8]],
            "clip_norm": [1.0, None],
            "test": [(2, 6), sweep.Normal(3, 1)],
            "model": ["a", "b"],
        }
    )
    columns = Columns(runs, TASK, "adam")
    assert columns.seeds.tolist() == [1, 2]
    assert columns.hyper[:, 1].tolist() == [0.5, 0.6] and columns.hyper[:, 2].tolist() == [0.9, 0.8]
    assert columns.hyper[:, 7].tolist() == [1.0, float("inf")]
    assert columns.ranges is not None
    assert columns.ranges[0] == (((1.0, 2.0),), ((2.0, 6.0),))
    assert columns.ranges[1][1] == sweep.Normal(3, 1)
    assert columns.table["model"] == ["a", "b"]
    assert Columns({"lr": [0.1]}, TASK, "adam").table["seed"] == [0]


@pytest.mark.parametrize(
    ("runs", "error", "words"),
    [
        (3, TypeError, "expected a DataFrame"),
        ({"seed": 3}, TypeError, r"runs\['seed'\]: expected a column, got 3"),
        ({}, ValueError, "at least one row"),
        ([], ValueError, "at least one row, got an empty list"),
        ({"seed": []}, ValueError, "at least one row"),
        ({"seed": [1], "lr": [1, 2]}, ValueError, "columns of one length"),
        ({"seed": [1, 2.5]}, TypeError, r"runs\['seed'\], row 1: expected an int, got 2.5"),
        ({"seed": [-1]}, ValueError, r"row 0: expected a seed in \[0, 2\*\*63\)"),
        ({"seed": [2**63]}, ValueError, "row 0: expected a seed"),
        ({"seed": [1], "lr": ["big"]}, TypeError, r"runs\['lr'\], row 0: expected a number"),
        ({"seed": [1], "lr": [-1]}, ValueError, r"runs\['lr'\], row 0"),
        ({"seed": [1], "lr": [float("nan")]}, ValueError, r"runs\['lr'\], row 0"),
        ({"seed": [1], "beta1": [1.0]}, ValueError, r"row 0: expected a number in \[0, 1\)"),
        ({"betas": [0.9]}, TypeError, r"row 0: expected \(beta1, beta2\)"),
        ({"betas": [(0.9, 0.9)], "beta1": [0.9]}, ValueError, "got both"),
        ({"train": [(2, 1)]}, ValueError, r"runs\['train'\], row 0: expected finite low < high"),
        ({"seeds": [1]}, ValueError, "unknown column 'seeds', did you mean 'seed'"),
        ({"weight_decy": [1]}, ValueError, "did you mean 'weight_decay'"),
        ({"learning_rate": [1]}, ValueError, "did you mean 'lr'"),
        ({"batch_size": [1]}, ValueError, "'batch_size' is no column but batch_size= of sweep.run"),
        ({"batch": [1]}, ValueError, "'batch' is no column but batch_size= of sweep.run"),
        ({"layer": ["NMU"]}, ValueError, "'layer' is no column but stack= of sweep.run"),
        ({"operation": ["a + b"]}, ValueError, "'operation' is no column but task= of sweep.run"),
        ({"samples": [1]}, ValueError, "'samples' is no column but samples= of sweep.Arithmetic"),
        ({"momentum": [0.9]}, ValueError, "adam has no 'momentum'"),
        ({"alpha": [0.9]}, ValueError, "adam has no 'alpha'"),
        ({"status": ["a"]}, ValueError, "a column 'status' of its own"),
        ({"run": [1]}, ValueError, "a column 'run' of its own"),
        ({"size": ["a", {}]}, TypeError, r"runs\['size'\], row 1: expected None, .* got dict"),
        ({"size": [(1, {2})]}, TypeError, r"runs\['size'\], row 0: expected None, .* got set"),
        ({"size": [1j]}, TypeError, "row 0: expected None, .* got complex"),
        ({"size": [b"a"]}, TypeError, "row 0: expected None, .* got bytes"),
        ({"size": [torch.ones(2)]}, TypeError, "row 0: expected None, .* got Tensor"),
        ({"size": [datetime.date(2020, 1, 1)]}, TypeError, "row 0: expected None, .* got date"),
        ({"size": [object()]}, TypeError, "row 0: expected None, .* got object"),
        ({"size": [0, 2**63]}, ValueError, r"runs\['size'\], row 1: expected an int of 64 bits"),
        ({"size": ["\ud800"]}, ValueError, r"runs\['size'\], row 0: expected text that UTF-8"),
        ({"\ud800": [1]}, ValueError, r"the name '\\ud800': expected text that UTF-8"),
        ([{"seed": 1}, {"lr": 1}], ValueError, r"row 1: expected columns \['seed'\]"),
    ],
)
def test_what_is_wrong_is_named_with_column_and_row(
    runs: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Columns(runs, TASK, "adam")


@pytest.mark.parametrize("name", inspect.signature(sweep.run).parameters)
def test_an_argument_of_sweep_run_as_a_column_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no column but {name}= of sweep.run"):
        Columns({name: [1, 2]}, TASK, "adam")


def test_a_layers_option_as_a_column_is_refused() -> None:
    runs, words = sweep.grid(noise=[1, 2]), "'noise' is no column but noise= of the stack's SNMU"
    with pytest.raises(ValueError, match=words):
        sweep.run(SNMU(2, 1), TASK, runs, steps=1)
    sweep.run(NMU(2, 1), TASK, runs, steps=1)


def test_a_table_of_ones_own_has_no_ranges() -> None:
    task = sweep.Data(torch.rand(5, 2), torch.rand(5), torch.rand(4, 2), torch.rand(4))
    assert Columns({"seed": [1]}, task, "sgd").ranges is None
    with pytest.raises(ValueError, match="Data has no range 'train'"):
        Columns({"train": [(1, 2)]}, task, "sgd")


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ({"l1_every": [1.0, 2.5]}, r"l1_every.*row 1: expected a whole number .* 1, got 2\.5"),
        ({"l1_every": [0.5]}, r"l1_every.*row 0: expected a whole number .* 1, got 0\.5"),
        ({"l1_every": [0]}, r"l1_every.*row 0: expected a whole number .* 1, got 0"),
        ({"gate_steps": [1.5]}, r"gate_steps.*row 0: expected a whole number .* 0, got 1\.5"),
        (
            {"ramp_start": [0, 9], "ramp_stop": [0, 8]},
            r"ramp_stop.*row 1: expected at least ramp_start = 9\.0, got 8",
        ),
        ({"restart_after": [10]}, "expected a column 'restart_above' beside 'restart_after'"),
        ({"ramp_start": [10]}, "expected a column 'regularizer' beside 'ramp_start'"),
        ({"ramp_stop": [10]}, "expected a column 'regularizer' beside 'ramp_stop'"),
        ({"regularizer_below": [1.0]}, "expected a column 'regularizer' beside 'regularizer_below"),
        ({"l1_last": [1.0]}, "expected a column 'l1' beside 'l1_last', which does nothing without"),
        ({"l1_every": [10]}, "expected a column 'l1' beside 'l1_every'"),
        ({"weights": [1.0]}, "'weights' is no column: it is part of 'regularizer'"),
        ({"gate": [1.0]}, "'gate' is no column: it is part of 'regularizer'"),
        ({"inputs": [1.0]}, "'inputs' is no column: a sweep has no term of a layer's inputs"),
    ],
)
def test_a_schedule_that_would_do_something_else_is_refused(
    runs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Columns(runs, TASK, "adam")


def test_a_ramp_without_a_stop_is_a_step() -> None:
    alone, both = (
        Columns({"regularizer": [1.0], "ramp_start": [20], **stop}, TASK, "adam").hyper
        for stop in ({}, {"ramp_stop": [20]})
    )
    assert alone.equal(both)


def test_a_run_begins_anew_after_10_000_steps_unless_it_says_otherwise() -> None:
    alone, both = (
        Columns({"restart_above": [1.0], **after}, TASK, "adam").hyper
        for after in ({}, {"restart_after": [10_000]})
    )
    assert alone.equal(both)


def test_rows_of_a_grid_may_go_without_a_new_beginning() -> None:
    Columns(sweep.grid(restart_above=[None, 1.0], restart_after=[10]), TASK, "adam")


@pytest.mark.parametrize(
    "stack", [NALU(2, 1), RealNPU(2, 1), nn.Linear(2, 1)], ids=lambda stack: type(stack).__name__
)
def test_a_regularizer_of_a_stack_that_has_none_is_refused(stack: nn.Module) -> None:
    runs, words = {"regularizer": [0.0, 2.0]}, r"'regularizer'\], row 1: expected 0 for .*, got 2"
    with pytest.raises(ValueError, match=words):
        sweep.run(stack, TASK, runs, steps=1)
    for other in (RealNPU(2, 1, modified=True), nn.Sequential(stack, NMU(1, 1))):
        sweep.run(other, TASK, runs, steps=1)


@pytest.mark.parametrize("name", ["weight_steps", "gate_steps"])
def test_turns_of_a_stack_without_gates_are_refused(name: str) -> None:
    runs, words = {name: [0, 2]}, rf"'{name}'\], row 1: expected 0 for a stack without gates, got 2"
    with pytest.raises(ValueError, match=words):
        sweep.run(NMU(2, 1), TASK, runs, steps=1)
    sweep.run(INALU(2, 1), TASK, runs, steps=1)


def test_noise_of_a_batch_of_one_number_is_refused() -> None:
    task = sweep.Function(lambda x: x, 1, train=(1, 2), test=(2, 4))
    with pytest.raises(ValueError, match=r"batch_size: expected at least 2 .*noise='batch'.*got 1"):
        sweep.run(SNMU(1, 1, noise="batch"), task, {"seed": [0]}, steps=1, batch_size=1)
    sweep.run(SNMU(1, 1), task, {"seed": [0]}, steps=1, batch_size=1)


def test_an_l1_that_would_end_below_its_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match=r"l1_last.*row 1: expected at least l1 = 0.1, got 0.01"):
        Columns({"l1": [0.0, 0.1], "l1_last": [0.0, 0.01]}, TASK, "adam")
