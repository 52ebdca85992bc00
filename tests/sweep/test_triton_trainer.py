"""The Triton trainer under Triton's interpreter, or on a GPU: against the reference, and itself."""

from __future__ import annotations

from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

import triton
import triton.language as tl
from small import F64, OPTIONS, assert_same, table
from test_kernel import same_numbers
from torch import Tensor, nn

import nalu_kernels
from nalu_kernels import GNALU, NAC, NACNMU, NALU, NMU, NACSigma, sweep
from nalu_kernels.sweep import kernel, stack, stream
from nalu_kernels.triton import train, train_random
from selection import long, pairs

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
pytestmark = [
    pytest.mark.skipif(
        not all(nalu_kernels.backends()[name].usable for name in ("cpu", "triton")),
        reason="no Triton here, or no compiled kernels",
    ),
    *([pytest.mark.gpu] if ON_GPU else []),
]


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps of the back end "cpu" go to the Triton trainer."""

    def moved(*arguments: Any) -> None:
        there = [a.to(DEVICE) if isinstance(a, Tensor) else a for a in arguments]
        train.train(*there)
        for mine, theirs in zip(arguments, there, strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(theirs)

    monkeypatch.setattr(torch.ops.nalu_kernels, "train", moved)


# Numbers, bit for bit.


def test_the_stream_draws_the_same_numbers() -> None:
    seeds = torch.tensor([0, 7, 2**63 - 1])
    for number, step, rows, columns in ((0, 0, 1, 1), (3, 2**40 + 3, 130, 5)):
        found = train.draw(seeds.to(DEVICE), number, step, rows, columns)
        assert found.cpu().equal(stream.draw(seeds, number, step, rows, columns))


@triton.jit
def inputs_kernel(seed, constants, to, NORMAL: tl.constexpr, TWO_PARTS: tl.constexpr):
    row = tl.arange(0, 64)
    s0, s1, s2, s3 = train_random.generator(tl.load(seed), 0, tl.load(seed + 1), row.to(tl.uint32))
    drawn = train_random.load_constants(constants)
    for column in range(4):
        bits, s0, s1, s2, s3 = train_random.following(s0, s1, s2, s3)
        x = train_random.number(bits, drawn, NORMAL, TWO_PARTS, to.dtype.element_ty)
        tl.store(to + row * 4 + column, x)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(
    "range", [(-0.3, 1.7), ((-2, -1), (0.1, 3)), sweep.Normal(1, 2), sweep.Normal(0, 1, -0.5, 9)]
)
def test_inputs_are_those_of_the_reference(range: Any, dtype: torch.dtype) -> None:
    task = sweep.Arithmetic("a + b", 4, train=range)
    seed, step = 11, 2**33 + 5
    constants = kernel._constants(task.train)
    found = torch.empty(64, 4, dtype=dtype, device=DEVICE)
    normal = isinstance(task.train, sweep.Normal)
    two_parts = not normal and len(task.train) == 2
    given = torch.tensor([seed, step], device=DEVICE)
    inputs_kernel[(1,)](given, constants.to(DEVICE), found, normal, two_parts, num_warps=1)
    expected = task.batches(task.train, seed, torch.tensor([step]), 64, dtype)[0]
    if normal:
        ulp = torch.finfo(dtype).eps * expected.abs()
        assert bool(((found.cpu() - expected).abs() <= 2 * ulp).all())
    else:
        assert found.cpu().equal(expected)


@triton.jit
def shuffle_kernel(seed, samples, to, size, half):
    at = tl.arange(0, 64)
    rows = train_random.shuffled(tl.load(seed), tl.load(samples + at), size, half)
    tl.store(to + at, rows)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_table_is_shuffled_as_the_reference_does(size: int) -> None:
    samples = torch.arange(64) + 5 * size + 2
    found = torch.empty(64, dtype=torch.int64, device=DEVICE)
    half = max(1, -(-(size - 1).bit_length() // 2))
    seed = torch.tensor([9], device=DEVICE)
    shuffle_kernel[(1,)](seed, samples.to(DEVICE), found, size, half, num_warps=1)
    assert found.cpu().equal(stream.shuffled(9, samples, size))


# Trainings, against the reference.

ARITHMETIC = sweep.Arithmetic("a * b", in_features=4, samples=20)
STACKS: dict[str, nn.Module] = {
    "NALU": NALU(4, 1),
    "NAC": nn.Sequential(NAC(4, 2), nn.ReLU(), NAC(2, 1)),
    "NAC log": nn.Sequential(NAC(4, 2, log_space=True), NAC(2, 1)),
    "untied, gate per sample": nn.Sequential(
        NALU(4, 5, tied=False, gate="sample", gate_bias=True), nn.Linear(5, 1, bias=False)
    ),
    "Linear": nn.Sequential(nn.ReLU(), nn.Linear(4, 5), nn.ReLU6(), NALU(5, 1, gate_bias=True)),
}


def trained(stack: nn.Module, task: Any, runs: Any, **options: Any) -> sweep.Result:
    small = {"steps": 4, "test_every": 4, "batch_size": 16}
    return sweep.run(stack, task, runs, **{**small, **options})


def agree(stack: nn.Module, task: Any, runs: Any, **options: Any) -> None:
    expected = trained(stack, task, runs, backend="reference", **options)
    same_numbers(trained(stack, task, runs, backend="cpu", **options), expected)


def a_run(optimizer: str) -> dict[str, list[Any]]:
    more = {"clip_norm": [0.5]} if optimizer == "adam" else {"clip_value": [0.1]}
    if optimizer == "rmsprop":
        more = {"weight_decay": [0.1]}
    return {"seed": [1], "lr": [1e-2], **OPTIONS[optimizer], **more}


@pairs
@pytest.mark.parametrize("layers", list(STACKS))
@pytest.mark.parametrize("optimizer", list(OPTIONS))
@pytest.mark.parametrize("loss", ["mse", "l1"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_every_layer_equals_the_reference(
    layers: str, optimizer: str, loss: str, dtype: torch.dtype, on_triton: None
) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "loss": loss, "dtype": dtype}
    agree(STACKS[layers], ARITHMETIC, a_run(optimizer), **options)


def test_betas_of_0(on_triton: None) -> None:
    runs = sweep.grid(seed=[1], betas=[(0.0, 0.9), (0.9, 0.0)])
    agree(NAC(4, 1), ARITHMETIC, runs, steps=2, dtype=F64)


@long
@pytest.mark.parametrize(  # a minute each
    ("layers", "optimizer", "loss"),
    list(zip(STACKS, cycle(OPTIONS), cycle(("mse", "l1")), strict=False)),
)
def test_200_steps_equal_the_reference(
    layers: str, optimizer: str, loss: str, on_triton: None
) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "loss": loss, "dtype": F64}
    agree(STACKS[layers], ARITHMETIC, a_run(optimizer), steps=200, test_every=100, **options)


@pytest.mark.parametrize("operation", ["a + b", "a - b", "a / b", "a^2", "sqrt(a)"])
def test_every_operation(operation: str, on_triton: None) -> None:
    task = sweep.Arithmetic(operation, 2, train=(1, 2), samples=20)
    options = {"optimizer": "sgd", "steps": 2, "test_every": 2, "dtype": F64}
    agree(nn.Linear(2, 1), task, {"seed": [1], "lr": [1e-2]}, **options)


def test_more_inputs_than_are_kept(on_triton: None) -> None:
    """They are drawn again for the backward, in two blocks of rows."""
    task = sweep.Arithmetic("a - b", 17, train=((-2, -1), (1, 2)), samples=20)
    stack = nn.Sequential(NALU(17, 2), NALU(2, 1))
    agree(stack, task, {"seed": [1]}, batch_size=70, steps=2, test_every=2, dtype=F64)


def halves(x: Tensor) -> Tensor:
    return x[:, :2] / 2


@pytest.mark.parametrize("task", ["function", "data"])
def test_given_batches_and_tables(task: str, on_triton: None) -> None:
    function = sweep.Function(halves, 18, (1, 2), (2, 3), samples=20)
    if task == "function":
        agree(NAC(18, 2), function, {"seed": [1, 2]}, steps=3, dtype=F64)
    else:
        agree(nn.Linear(2, 1), table(), {"seed": [1, 2]}, steps=5, test_every=2, dtype=F64)


# A run, whatever is around it.


def test_a_runs_bits_are_its_rows_alone(on_triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stack, runs = NALU(4, 1), sweep.grid(seed=range(3), lr=[1e-2])
    options: dict[str, Any] = {"backend": "cpu", "steps": 3, "test_every": 2}
    expected = trained(stack, ARITHMETIC, runs, **options)
    alone = trained(stack, ARITHMETIC, runs[1:2], **options)
    assert alone._state.parameters[0].equal(expected._state.parameters[1])
    with monkeypatch.context() as patch:
        patch.setitem(kernel._RUNS, "cpu", 2)
        patch.setattr(train, "_A_LAUNCH", 1e-9)  # a step each
        assert_same(trained(stack, ARITHMETIC, runs, **options), expected)


def test_a_nan_stays_in_its_run(on_triton: None) -> None:
    def two(runs: dict[str, list[Any]]) -> sweep.Result:
        options: dict[str, Any] = {"optimizer": "sgd", "backend": "cpu", "steps": 6}
        return trained(nn.Linear(4, 1), ARITHMETIC, runs, **options)

    result, alone = two({"seed": [0, 1], "lr": [1e30, 1e-3]}), two({"seed": [1], "lr": [1e-3]})
    assert result.columns()["status"] == ["diverged", "out_of_steps"]
    assert alone._state.parameters[0].equal(result._state.parameters[1])


def test_stop_when_solved(on_triton: None) -> None:
    options: dict[str, Any] = {"success": 1e6, "stop": "solved", "steps": 8, "backend": "cpu"}
    result = trained(nn.Linear(4, 1), ARITHMETIC, {"seed": [0, 1]}, **options)
    assert result.columns()["status"] == ["solved"] * 2
    assert result.columns()["steps"] == result.columns()["solved_at"] == [4, 4]


def test_what_it_lacks_is_named(on_triton: None) -> None:
    task = sweep.Arithmetic("a * b", in_features=2, samples=20)
    runs = {"seed": [0]}
    for layer, columns, words in (
        (NMU(2, 1), runs, "has no NMU"),
        (GNALU(2, 1), runs, "has no GNALU"),
        (NACSigma(2, 1), runs, "has no NACSigma"),
        (NACNMU(2, 1), runs, "has no NACNMU"),
        (NAC(2, 1), {**runs, "l1": [1e-3]}, "has no l1"),
        (NALU(2, 1), {**runs, "weight_steps": [8], "gate_steps": [2]}, "has no weight_steps"),
        (NAC(2, 1), {**runs, "restart_above": [1.0]}, "has no restart_above"),
        (NAC(2, 1), {**runs, "train": [sweep.Exponential()]}, "draws no exponential numbers"),
    ):
        with pytest.raises(ValueError, match=f"Triton's trainer {words}"):
            sweep.run(layer, task, columns, steps=1, backend="triton", device="cpu")


def test_a_stack_that_is_too_wide_is_named() -> None:
    specification: Any = SimpleNamespace(stack=stack.Stack(NALU(600, 1)), batch_size=1, steps=1)
    assert "600 inputs" in str(kernel.lacks("triton", specification))
