"""sweep.run: what is checked before anything runs, how it is stopped, and what it says."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from skips_here import needs_trainer
from small import F64, assert_same, run
from torch import nn

import nalu_kernels
from nalu_kernels import NAC, NALU, NRU, SNMU, sweep, use_backend
from nalu_kernels.sweep import executors
from nalu_kernels.sweep.specification import Specification

ADD = sweep.Arithmetic("a + b", in_features=2, samples=40)


def test_the_first_example(capsys: pytest.CaptureFixture[str]) -> None:
    stack = nn.Sequential(NALU(100, 2), NALU(2, 1))
    task = sweep.Arithmetic("a * b", in_features=100, subset=0.25, overlap=0.5, samples=50)
    runs = sweep.grid(seed=range(2), lr=[1e-3])
    result = sweep.run(stack, task, runs, steps=5, test_every=2, backend="reference")
    assert len(result) == 2 and type(result.module(1)) is nn.Sequential
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("sweep: 0 of 2 runs, 0 solved; 0 of 10 steps")
    assert lines[-1].startswith("sweep: 2 of 2 runs")


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"stack": nn.Tanh()}, TypeError, "stack: the Tanh is not supported"),
    ({"stack": NAC(3, 1)}, ValueError, "task: has 2 inputs, and the stack takes 3"),
    ({"stack": NAC(2, 2)}, ValueError, "task: has 1 targets, and the stack 2 outputs"),
    ({"task": "a + b"}, TypeError, "task: expected sweep.Arithmetic, .* got str"),
    ({"runs": {"seed": ["a"]}}, TypeError, r"runs\['seed'\], row 0"),
    (
        {"stack": NALU(2, 1, eps=1e-50, dtype=torch.float64), "dtype": torch.float32},
        ValueError,
        "stack: eps of the NALU: expected at least 1.4e-45",
    ),
    ({"steps": 0}, ValueError, "steps: expected at least 1, got 0"),
    ({"steps": -1}, ValueError, "steps: expected at least 1, got -1"),
    ({"steps": 1.5}, TypeError, "steps: expected an int"),
    ({"batch_size": 0}, ValueError, "batch_size"),
    ({"test_every": -1}, ValueError, "test_every"),
    ({"optimizer": "adamw"}, ValueError, "optimizer: expected one of sgd, rmsprop, adam"),
    ({"optimizer": torch.optim.Adam}, TypeError, "optimizer: expected a str"),
    ({"loss": "huber"}, ValueError, "loss: expected one of mse, l1"),
    ({"success": "weights"}, ValueError, "success: expected one of"),
    ({"stop": "early"}, ValueError, "stop: expected one of solved"),
    ({"initial": {}}, ValueError, "initial: expected the names"),
    ({"backend": "gpu"}, ValueError, "backend: expected one of"),
    ({"backend": 3}, TypeError, "backend: expected the name"),
    ({"device": "cpux"}, ValueError, "device: .cpux. cannot be used here"),
    ({"threads": 0}, ValueError, "threads: expected at least 1"),
    ({"threads": -1}, ValueError, "threads: expected at least 1"),
    ({"threads": "2"}, TypeError, "threads: expected an int"),
    ({"executor": 3}, TypeError, "executor: expected a concurrent.futures.Executor"),
    ({"callback": 3}, TypeError, "callback: expected a function"),
    ({"seconds": 0}, ValueError, "seconds: expected a number above 0"),
    ({"seconds": "1"}, TypeError, "seconds: expected a number"),
    ({"dtype": torch.float16}, TypeError, "dtype: expected torch.float32 or torch.float64"),
]


@pytest.mark.parametrize(("given", "error", "words"), WRONG, ids=lambda part: str(part)[:40])
def test_what_is_wrong_is_said_before_anything_runs(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    arguments: dict[str, Any] = {
        "stack": NAC(2, 1),
        "task": ADD,
        "runs": {"seed": [0]},
        "steps": 3,
        "backend": "reference",
        "callback": lambda event: pytest.fail("it has begun"),
        **given,
    }
    with pytest.raises(error, match=words):
        sweep.run(**arguments)


@needs_trainer
def test_the_kernels_are_the_default() -> None:
    result = sweep.run(NAC(2, 1), ADD, {"seed": [0]}, steps=3)
    assert result.columns()["backend"] == ["cpu"]
    with use_backend("reference"):
        result = sweep.run(NAC(2, 1), ADD, {"seed": [0]}, steps=3)
    assert result.columns()["backend"] == ["reference"]


@needs_trainer
def test_beyond_the_kernels_limits_the_reference_runs_and_says_why() -> None:
    wide = nn.Sequential(NAC(2, 65), NAC(65, 1))
    with pytest.raises(ValueError, match="'cpu' cannot train this sweep: a layer has 65 outputs"):
        sweep.run(wide, ADD, {"seed": [0]}, steps=1, backend="cpu")
    with pytest.warns(RuntimeWarning, match="slow plain PyTorch reference: a layer has 65") as told:
        result = sweep.run(wide, ADD, {"seed": [0]}, steps=1)
    assert told[0].filename == __file__
    assert result.columns()["backend"] == ["reference"]


def test_a_back_end_for_other_devices_is_refused() -> None:
    specification = Specification(NAC(2, 1), ADD, {"seed": [0]}, steps=1)
    for name in nalu_kernels.backends():
        lack = executors._lack(name, specification, torch.device("xpu"))
        assert lack is None if name == "reference" else "does not serve xpu" in str(lack)


def test_a_device_without_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="device: 'meta' has no numbers to train with"):
        sweep.run(NAC(2, 1), ADD, {"seed": [0]}, steps=1, device="meta")


def test_initial_weights_may_be_given() -> None:
    modules = [NAC(2, 1, dtype=F64) for _ in range(3)]
    initial, _ = torch.func.stack_module_state(modules)  # type: ignore[arg-type]
    result = sweep.run(
        NAC(2, 1), ADD, {"seed": range(3), "lr": [0.0] * 3}, steps=2, initial=initial,
        backend="reference", dtype=F64,
    )  # fmt: skip
    for name, value in result.modules()[0].items():
        assert value.equal(initial[name])


def test_a_seed_begins_alike_in_every_sweep() -> None:
    several = run(runs=sweep.grid(seed=[3, 4], lr=[0.0]))
    alone = run(runs={"seed": [4], "lr": [0.0]})
    assert alone._state.parameters[0].equal(several._state.parameters[1])


def test_seconds_hold() -> None:
    started = time.perf_counter()
    result = run(steps=10**7, test_every=10**7, seconds=0.5)
    assert time.perf_counter() - started < 5
    assert result.stopped == "seconds" and result.columns()["status"][0] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_returns(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    timer.start()
    result = run(steps=10**7, test_every=10**7)
    timer.join()
    assert result.stopped == number.name
    assert result.columns()["status"] == ["interrupted"] + ["not_run"] * 5
    assert signal.getsignal(number) is before


def test_ctrl_c_as_the_last_run_ends_is_told_too() -> None:
    """A loop over sweeps would go on otherwise."""

    def press(event: sweep.Event) -> None:
        if event.finished == event.runs:
            signal.raise_signal(signal.SIGINT)

    result = run(callback=press)
    assert result.stopped == "SIGINT"
    assert "interrupted" not in result.columns()["status"]


def test_a_second_ctrl_c_ends_at_once() -> None:
    def impatient(event: sweep.Event) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(callback=impatient)


def test_it_runs_in_a_thread_too() -> None:
    results: list[sweep.Result] = []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    thread.join()
    assert_same(results[0], run())


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_trainer)])
def test_two_threads_sweep_at_once(backend: str) -> None:
    results: dict[str, sweep.Result] = {}
    together = threading.Barrier(2)

    def train(task: str) -> None:
        together.wait(timeout=60)
        results[task] = run(task, backend=backend, threads=2)

    threads = [threading.Thread(target=train, args=[task]) for task in ("arithmetic", "function")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for task, result in results.items():
        assert_same(result, run(task, backend=backend))
    assert len(results) == 2


def test_a_callback_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nalu_kernels.sweep.watch.SEGMENT", 1e-3)
    events: list[sweep.Event] = []
    run(runs=sweep.grid(seed=range(4), lr=[1e-2])[::2], callback=events.append)
    assert events[-1][:5] == (2, 2, 0, 46, 46)
    assert [event.steps for event in events] == sorted(event.steps for event in events)
    assert {label for event in events for label in event.changed} == {0, 2}


def test_a_callback_may_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nalu_kernels.sweep.watch.SEGMENT", 1e-3)
    result = run(steps=100_000, callback=lambda event: event.steps < 50)
    assert result.stopped == "callback" and "interrupted" in result.columns()["status"]
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"sweep: stopped by callback; \d of 6 runs have steps left to do", said)


@pytest.mark.parametrize("out", ["", 3])
def test_a_folder_has_a_name(out: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="out: expected"):
        run(out=out)


@pytest.mark.parametrize("device", ["cuda:99", "cpu:x", "nowhere"])
def test_a_device_that_cannot_be_used_is_named(device: str, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=f"device: '{device}' cannot be used here"):
        sweep.run(NAC(2, 1), ADD, {"seed": [0]}, steps=1, device=device, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(TypeError, match=r"device: expected a torch\.device or its name, got int"):
        sweep.run(NAC(2, 1), ADD, {"seed": [0]}, steps=1, device=0)


@needs_trainer
def test_a_batch_beyond_counting_is_named() -> None:
    with pytest.raises(ValueError, match=r"'cpu' cannot train this sweep: .* than it can count"):
        sweep.run(NAC(2, 1), ADD, {"seed": [0]}, steps=1, batch_size=2**32, backend="cpu")


def test_a_forced_back_end_holds_in_an_executors_tasks() -> None:
    with use_backend("reference"), ThreadPoolExecutor(1) as executor:
        result = sweep.run(NAC(2, 1), ADD, {"seed": [0]}, steps=1, executor=executor)
    assert result.columns()["backend"] == ["reference"]


def test_an_error_of_a_callback_saves_and_comes_through(tmp_path: Any) -> None:
    pytest.importorskip("pyarrow")

    def broken(event: sweep.Event) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(callback=broken, out=tmp_path)
    assert sum(sweep.load(tmp_path).columns()["steps"]) > 0


def test_runs_that_stop_early_count_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    run(runs={"seed": [0, 1]}, success=1e6, stop="solved")
    assert re.search(r"2 of 2 runs, 2 solved; 46 of 46 steps", capsys.readouterr().err)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_template_is_trained_in_its_own_dtype(dtype: torch.dtype) -> None:
    def trained(of: torch.dtype, **given: torch.dtype) -> sweep.Result:
        stack = NAC(2, 1, dtype=of)
        return sweep.run(stack, ADD, {"seed": [0]}, steps=3, backend="reference", **given)

    found = trained(dtype)
    assert {value.dtype for value in found.modules()[0].values()} == {dtype}
    for other in (torch.float16, torch.float32, torch.float64):
        assert_same(trained(other, dtype=dtype), found)


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (NAC(2, 1, dtype=torch.bfloat16), "got torch.bfloat16$"),
        (nn.Sequential(NAC(2, 1), NAC(1, 1).double()), "got torch.float32, torch.float64$"),
    ],
    ids=["bfloat16", "mixed"],
)
def test_a_template_of_another_dtype_is_refused(stack: nn.Module, words: str) -> None:
    with pytest.raises(TypeError, match=f"stack: expected parameters of .* dtype= .*{words}"):
        sweep.run(stack, ADD, {"seed": [0]}, steps=3)


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "SGD"])
def test_an_optimizer_may_be_called_as_torch_calls_it(name: str) -> None:
    assert_same(run(optimizer=name), run(optimizer=name.lower()))


def test_a_template_in_eval_is_trained_as_one_in_training() -> None:
    for stack in (SNMU(2, 1), NRU(2, 1)):
        options: dict[str, Any] = {"steps": 3, "backend": "reference"}
        expected = sweep.run(stack, ADD, {"seed": [0]}, **options)
        assert_same(sweep.run(stack.eval(), ADD, {"seed": [0]}, **options), expected)


def test_a_function_that_answers_nan_is_refused() -> None:
    task = sweep.Function(lambda x: x.sum(1).sqrt(), 2, train=(-2, -1), test=(1, 2))
    with pytest.raises(ValueError, match=r"task: f\(\[-1\..*\]\) is NaN"):
        sweep.run(NAC(2, 1), task, {"seed": [0]}, steps=3)


def test_a_table_too_large_for_the_machine_is_refused() -> None:
    with pytest.raises(MemoryError, match=r"take .* GiB, the machine has"):
        sweep.run(NAC(2, 1), ADD, {"seed": [0]}, steps=10**12, test_every=1, backend="reference")
