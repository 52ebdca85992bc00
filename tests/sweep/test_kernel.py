"""The trainers of the back ends against the reference, and against themselves however called."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest
import torch
from skips_here import needs_trainer
from small import F64, OPTIONS, TASKS, assert_same, diverging, run
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import emulated_cuda
from conftest import Backend
from nalu_kernels import (
    GNALU,
    INALU,
    NAC,
    NACNMU,
    NALU,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    SNMU,
    NACSigma,
    RealNPU,
    sweep,
)
from nalu_kernels.sweep import kernel, watch
from nalu_kernels.sweep.state import BEGUN
from selection import only, pairs

pytestmark = only(lambda backend: backend.name in ("cpu", "cuda"))


def on(backend: Backend) -> dict[str, Any]:
    return {"backend": backend.name, "device": backend.device}


def same_numbers(found: sweep.Result, expected: sweep.Result) -> None:
    """In float64 to 1e-9 of each number, in float32 to 1e-2 of the tensor's largest."""
    assert found.columns()["status"] == expected.columns()["status"]
    for name in ("parameters", "best", "moments", "curves", "progress"):
        value = getattr(expected._state, name)
        wide = expected._state.parameters.dtype == F64
        tolerances = {"rtol": 1e-9, "atol": 1e-11}
        if not wide:
            tolerances = {
                "rtol": 0.0,
                "atol": 1e-2 * float(value.double().nan_to_num(0).abs().max()),
            }
        torch.testing.assert_close(getattr(found._state, name), value, equal_nan=True, **tolerances)


@pairs
@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("optimizer", list(OPTIONS))
@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_200_steps_equal_the_reference(
    task: str, optimizer: str, loss: str, backend: Backend
) -> None:
    runs = sweep.grid(seed=range(2), lr=[1e-3], clip_norm=[1.0], **OPTIONS[optimizer])
    options: dict[str, Any] = {"optimizer": optimizer, "loss": loss, "steps": 200, "dtype": F64}
    expected = run(task, runs, **options)
    same_numbers(run(task, runs, **on(backend), **options), expected)


STACKS = {
    "NAC": NAC(4, 1),
    "NAC log": NAC(4, 1, log_space=True),
    "NAC sigma": nn.Sequential(NACSigma(4, 3), NACSigma(3, 1)),
    "NAC NMU": nn.Sequential(NACNMU(4, 3), NACNMU(3, 1)),
    "NALU": NALU(4, 1),
    "NALU untied, gate per sample": NALU(4, 1, tied=False, gate="sample", gate_bias=True),
    "ReLU": nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)),
    # More than 16 wide: a GPU has another number of threads for it.
    "many inputs": nn.Sequential(NALU(70, 3), NAC(3, 1)),
    "many outputs": nn.Sequential(NALU(4, 20), nn.Linear(20, 1)),
    "NAU, NMU": nn.Sequential(NAU(4, 3), NMU(3, 1)),
    "SNMU": nn.Sequential(SNMU(4, 3, noise="batch"), SNMU(3, 1)),
    "iNALU": nn.Sequential(INALU(4, 3), NAU(3, 1)),
    "iNALU tied, a gate of the input": INALU(4, 1, gate="matrix", tied=True),
    "iNALU, a gate per sample": nn.Sequential(INALU(4, 3, gate="vector", omega=1.0), NAU(3, 1)),
    "G-NALU": GNALU(4, 1),
    "NPU": nn.Sequential(NPU(4, 3), NPU(3, 1, gate_gradient="clamped", eps=1e-5)),
    "RealNPU": nn.Sequential(RealNPU(4, 3), NAU(3, 1)),
    "RealNPU modified": RealNPU(4, 1, modified=True),
    "NRU": nn.Sequential(NRU(4, 3), nn.Linear(3, 1)),
    "NMRU": nn.Sequential(NMU(4, 2), NMRU(2, 1)),
    "six layers": nn.Sequential(
        *[NAC(4, 4, log_space=True) for _ in range(4)], NALU(4, 3), nn.Linear(3, 1)
    ),
}


@pairs
@pytest.mark.parametrize("stack", list(STACKS))
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_every_layer_equals_the_reference(stack: str, dtype: torch.dtype, backend: Backend) -> None:
    inputs = 70 if stack == "many inputs" else 4
    task = sweep.Arithmetic("a + b", in_features=inputs, samples=40)
    options: dict[str, Any] = {"steps": 100, "test_every": 30, "batch_size": 16, "dtype": dtype}
    results = [
        sweep.run(STACKS[stack], task, {"seed": [1, 2]}, **options, **where)
        for where in (on(backend), {"backend": "reference"})
    ]
    same_numbers(results[0], results[1])


@pytest.mark.parametrize(
    "stack", ["NAU, NMU", "NAC NMU", "iNALU", "RealNPU modified", "NRU", "NMRU"]
)
def test_what_the_publications_add_to_the_loss(stack: str, backend: Backend) -> None:
    task = sweep.Arithmetic("a * b", in_features=4, samples=40)
    runs = sweep.grid(
        seed=[1],
        lr=[1e-2],
        regularizer=[10.0],
        ramp_start=[20],
        ramp_stop=[20, 70],
        regularizer_below=[1e9, 0.0],
        l1=[1e-3],
        l1_last=[5e-3],
        l1_every=[40],
    )
    options: dict[str, Any] = {"steps": 100, "test_every": 30, "batch_size": 16, "dtype": F64}
    results = [
        sweep.run(STACKS[stack], task, runs, **options, **where)
        for where in (on(backend), {"backend": "reference"})
    ]
    same_numbers(results[0], results[1])
    first, second = results[0]._state.parameters[:2]
    assert not first.equal(second)  # the term counts


@pytest.mark.parametrize("optimizer", list(OPTIONS))
@pytest.mark.parametrize(
    "template",
    [
        INALU(4, 1, tied=True, gate="matrix"),
        INALU(4, 1, gate="vector"),
        nn.Sequential(NAC(4, 3), nn.ReLU(), NALU(3, 2, tied=False, gate_bias=True), GNALU(2, 1)),
        nn.Sequential(NALU(4, 3, gate="sample", gate_bias=True), NAC(3, 1, log_space=True)),
    ],
    ids=["iNALU tied", "iNALU", "NAC NALU GNALU", "NALU NAC"],
)
def test_steps_on_saturation_alone(template: nn.Module, optimizer: str, backend: Backend) -> None:
    task = sweep.Arithmetic("a + b", in_features=4, samples=40)
    runs = sweep.grid(
        seed=[1], lr=[1e-3], saturation=[0.05], saturation_start=[10], weight_steps=[3],
        gate_steps=[2], saturation_below=[None, 1e-3, 0.5], clip_value=[0.1], **OPTIONS[optimizer],
    )  # fmt: skip
    for loss in ("mse", "l1"):
        options: dict[str, Any] = {"steps": 60, "test_every": 30, "batch_size": 16, "dtype": F64}
        options |= {"optimizer": optimizer, "loss": loss}
        found = sweep.run(template, task, runs, **options, **on(backend))
        same_numbers(found, sweep.run(template, task, runs, **options, backend="reference"))
    always, never = found._state.parameters[:2]
    assert not always.equal(never)


def test_saturation_is_for_parameters_that_saturate() -> None:
    task = sweep.Arithmetic("a + b", in_features=4)
    stack = nn.Sequential(NAC(4, 2), nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"runs\['saturation'\], row 1: .* here Linear, got 0.1"):
        sweep.run(stack, task, {"seed": [0, 1], "saturation": [0, 0.1]}, steps=1)
    with pytest.raises(ValueError, match="expected a column 'saturation' beside"):
        sweep.run(NAC(4, 1), task, {"saturation_below": [1.0]}, steps=1)


@pytest.mark.parametrize("optimizer", list(OPTIONS))
@pytest.mark.parametrize(
    "stack", ["iNALU", "iNALU tied, a gate of the input", "gates of three kinds"]
)
def test_weights_and_gates_in_turn(stack: str, optimizer: str, backend: Backend) -> None:
    gates = nn.Sequential(INALU(4, 3), NALU(3, 2, tied=False, gate_bias=True), NPU(2, 1))
    template = STACKS.get(stack, gates)
    task = sweep.Arithmetic("a + b", in_features=4, samples=40)
    runs = sweep.grid(
        seed=[1], lr=[1e-3], weight_steps=[3], gate_steps=[0, 2], clip_norm=[1.0],
        **OPTIONS[optimizer],
    )  # fmt: skip
    options: dict[str, Any] = {"steps": 98, "test_every": 30, "batch_size": 16, "dtype": F64}
    options["optimizer"] = optimizer
    found = sweep.run(template, task, runs, **options, **on(backend))
    same_numbers(found, sweep.run(template, task, runs, **options, backend="reference"))
    at_first = sweep.run(template, task, runs, **{**options, "steps": 1}, **on(backend))
    for name, value in found.module(0, "last").named_parameters():
        is_gate = name.rpartition(".")[2] in ("g", "G", "gate_bias")
        before = at_first.module(0, "last").get_parameter(name)
        assert value.equal(before) == is_gate, name  # a gate that has no steps stays as it is


def test_a_run_that_is_stuck_begins_anew(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    task = sweep.Arithmetic("a * b", in_features=4, samples=40)
    runs = sweep.grid(seed=[1], lr=[0.0], restart_above=[1e-3, None, 1e9], restart_after=[35])
    options: dict[str, Any] = {"steps": 130, "test_every": 10, "batch_size": 16, "dtype": F64}

    def trained(**where: Any) -> sweep.Result:
        return sweep.run(STACKS["iNALU"], task, runs, **options, **where)

    found, expected = trained(**on(backend)), trained(backend="reference")
    same_numbers(found, expected)
    begun = found._state.scores[:, BEGUN]
    assert begun[0] == expected._state.scores[0, BEGUN] == 120  # after 40 and 80 too
    assert begun[1:].isnan().all()
    monkeypatch.setattr(watch, "SEGMENT", 1e-3)
    monkeypatch.setattr(kernel, "_STEPS", 4)
    assert_same(trained(**on(backend)), found)


@pytest.mark.parametrize("noise", [(1.0, 5.0), "batch"], ids=str)
def test_noise_on_many_inputs(noise: Any, backend: Backend) -> None:
    """Whose own product has no place in float32."""
    task = sweep.Arithmetic("a + b", 200, subset=0.005, train=(0.5, 1.4), samples=40)
    options: dict[str, Any] = {"steps": 20, "test_every": 10, "batch_size": 16}
    stack = SNMU(200, 1, noise=noise)
    expected = sweep.run(stack, task, {"seed": [1]}, **options, dtype=F64, backend="reference")
    assert expected._state.parameters.isfinite().all()
    for backend_, dtype in (
        (on(backend), F64),
        (on(backend), torch.float32),
        ({"backend": "reference"}, torch.float32),
    ):
        found = sweep.run(stack, task, {"seed": [1]}, **options, dtype=dtype, **backend_)
        tolerance = 1e-9 if dtype == F64 else 1e-3
        torch.testing.assert_close(
            found._state.parameters.double(), expected._state.parameters, rtol=0, atol=tolerance
        )


def test_noise_that_follows_from_more_than_a_kernel_sees() -> None:
    task = sweep.Arithmetic("a * b", in_features=2, samples=40)
    layer = SNMU(2, 1, noise="batch")
    options: dict[str, Any] = {"steps": 2, "batch_size": 129}
    with pytest.raises(ValueError, match="128 samples at most, and batch_size is 129"):
        sweep.run(layer, task, {"seed": [0]}, **options, backend="cpu")
    with pytest.warns(match="128 samples at most"):
        result = sweep.run(layer, task, {"seed": [0]}, **options)
    assert result.columns()["backend"] == ["reference"]


@pytest.mark.parametrize("task", list(TASKS))
def test_a_runs_bits_are_its_rows_alone(
    task: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = sweep.grid(seed=range(8), lr=[1e-2])
    expected = run(task, runs, **on(backend))
    assert_same(run(task, runs, **on(backend), threads=2), expected)
    alone = run(task, runs[5:6], **on(backend), test_every=23)
    assert alone._state.parameters[0].equal(expected._state.parameters[5])
    with monkeypatch.context() as patch:
        patch.setitem(kernel._RUNS, backend.device, 3)
        patch.setattr(kernel, "_STEPS", 4)
        patch.setattr(watch, "SEGMENT", 1e-3)
        assert_same(run(task, runs, **on(backend)), expected)


@needs_trainer
def test_runs_with_tests_of_their_own_are_trained_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = sweep.Arithmetic("a * b", in_features=2, samples=40, per_seed=True)
    runs = sweep.grid(seed=range(7), lr=[1e-2, 1e-3])

    def trained(**options: Any) -> sweep.Result:
        return sweep.run(NALU(2, 1), task, runs, steps=60, test_every=7, **options)

    alone = trained(backend="cpu", threads=1)
    both, settings, first = threading.Barrier(2), kernel._settings, iter(range(2))

    def meeting(*given: Any) -> torch.Tensor:
        if next(first, None) is not None:
            both.wait(timeout=60)
        return settings(*given)

    monkeypatch.setattr(kernel, "_settings", meeting)
    assert_same(trained(backend="cpu", threads=2), alone)
    monkeypatch.setattr(watch, "SEGMENT", 1e-4)
    assert_same(trained(backend="cpu", threads=3), alone)
    same_numbers(trained(backend="cpu", dtype=F64), trained(backend="reference", dtype=F64))


def test_ranges_of_their_own(backend: Backend) -> None:
    ranges = [(1, 2), ((-3, -2), (1, 2)), sweep.Normal(1, 1), sweep.Exponential(0.8)]
    runs = sweep.grid(seed=range(2), train=ranges)
    expected = run("normal", runs, dtype=F64)
    same_numbers(run("normal", runs, **on(backend), dtype=F64), expected)


def test_a_nan_stays_in_its_run(backend: Backend) -> None:
    result, alone = diverging(**on(backend))
    assert result.columns()["status"] == ["diverged", "out_of_steps"]
    assert alone._state.parameters[0].equal(result._state.parameters[1])


def test_betas_of_0(backend: Backend) -> None:
    runs = sweep.grid(seed=[1], betas=[(0.0, 0.9), (0.9, 0.0)])
    expected = run("normal", runs, dtype=F64)
    same_numbers(run("normal", runs, **on(backend), dtype=F64), expected)


@only(lambda backend: backend.emulated)
@pytest.mark.parametrize("task", list(TASKS))
def test_no_thread_waits_for_another_without_a_barrier(task: str, backend: Backend) -> None:
    expected = run(task, **on(backend))
    with emulated_cuda.last_thread_first():
        assert_same(run(task, **on(backend)), expected)


@only(lambda backend: backend.name == "cpu")
def test_a_range_so_narrow_that_its_steps_are_subnormal(backend: Backend) -> None:
    task = sweep.Arithmetic("a + b", 2, train=(0, 1e-31), samples=20)
    options: dict[str, Any] = {"steps": 1, "batch_size": 4, "optimizer": "sgd", "loss": "l1"}
    found, expected = (
        sweep.run(nn.Linear(2, 1, bias=False), task, {"lr": [1e30]}, **options, **where)
        for where in (on(backend), {"backend": "reference"})
    )
    same_numbers(found, expected)


def test_stop_when_solved(backend: Backend) -> None:
    result = run(runs={"seed": [0, 1]}, success=1e6, stop="solved", **on(backend))
    assert result.columns()["status"] == ["solved"] * 2
    assert result.columns()["steps"] == result.columns()["solved_at"] == [5, 5]


def arguments(task: str) -> list[Any]:
    """Those of a call of the operator."""

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.nalu_kernels.train.default:
                found.append([a.clone() if isinstance(a, torch.Tensor) else a for a in args])
            return func(*args, **(kwargs or {}))

    found: list[list[Any]] = []
    with Recorder():
        run(task, backend="cpu", threads=1)
    return found[0]


PROGRAM, LAYERS, SETTINGS, STARTS, PROGRESS, WIDTH = 0, 1, 2, 5, 16, 1
WRONG: dict[str, tuple[int, Any, Any]] = {  # which argument, which of its elements, its value
    "steps below 0": (PROGRESS, (0, 0), -(10**6)),
    "steps beyond the last": (PROGRESS, (0, 0), 2**62),
    "a status that is none": (PROGRESS, (0, 1), 9),
    "a start that overflows": (STARTS, (0, 0), 2**63 - 1),
    "a width that overflows": (PROGRAM, (0, WIDTH), 2**62),
    "an eps of 0": (LAYERS, (0, 0), 0.0),
    "a batch beyond all": (SETTINGS, (0,), 2**62),
    "steps beyond counting": (SETTINGS, (1,), 2**62),
    "an optimizer that is none": (SETTINGS, (3,), 9),
    "a loss that is none": (SETTINGS, (4,), 9),
    "an operation that is none": (SETTINGS, (7,), 9),
    "a distribution that is none": (SETTINGS, (8,), 9),
}


@needs_trainer
@pytest.mark.parametrize("wrong", WRONG)
def test_the_operator_refuses_what_would_be_read_or_written_beside(wrong: str) -> None:
    which, element, value = WRONG[wrong]
    given = arguments("arithmetic")
    torch.ops.nalu_kernels.train(*given)
    given[which][element] = value
    with pytest.raises(RuntimeError, match="expected"):
        torch.ops.nalu_kernels.train(*given)


def test_errors_are_squared_in_double_precision(backend: Backend) -> None:
    """In float32 these squares are 0 and infinite."""
    stack = nn.Sequential(nn.Linear(2, 1, bias=False))
    zeros = {"0.weight": torch.zeros(1, 1, 2)}
    for factor in (1e-26, 1e25):
        task = sweep.Function(
            functools.partial(scaled, factor=factor), 2, (1, 2), (2, 3), samples=50
        )
        ours, theirs = (
            sweep.run(stack, task, {"lr": [0.0]}, steps=1, initial=zeros, **where).columns()
            for where in (on(backend), {"backend": "reference"})
        )
        for name in ("error_inside", "error_outside"):
            assert 0 < ours[name][0] < torch.inf
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6)


def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x[:, 0] * factor
