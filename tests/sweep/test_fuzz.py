"""Whatever a table of runs may be: hypothesis draws stacks, tasks, optimizers and sizes.

A valid specification trains in the operator to the parameters that the reference reaches, as far as
the reference itself says something: where a rounding error grows beyond reason, only that both have
numbers in the same places. A wrong one raises before anything runs. ``make fuzz`` draws 10,000;
NALU_KERNELS_FUZZ_EXAMPLES any number.
"""

from __future__ import annotations

import math
import os
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, strategies
from torch import Tensor, nn

from conftest import SEED
from nalu_kernels import NAC, NALU, sweep
from skips_here import needs_trainer

EXAMPLES = int(os.environ.get("NALU_KERNELS_FUZZ_EXAMPLES", 300)) // 10
widths = strategies.integers(1, 9)
rates = strategies.sampled_from([1e-4, 1e-3, 1e-2])


@strategies.composite
def stacks(draw: Any, in_features: int, out_features: int) -> nn.Sequential:
    depth = draw(strategies.integers(1, 4))
    sizes = [in_features, *(draw(widths) for _ in range(depth - 1)), out_features]
    layers: list[nn.Module] = []
    for ins, outs in zip(sizes, sizes[1:], strict=False):
        kind = draw(strategies.integers(0, 3))
        if kind == 0:
            layers.append(NAC(ins, outs, log_space=draw(strategies.booleans())))
        elif kind == 1:
            layers.append(nn.Linear(ins, outs, bias=draw(strategies.booleans())))
        else:
            options = {name: draw(strategies.booleans()) for name in ("tied", "gate_bias")}
            gate = draw(strategies.sampled_from(["output", "sample"]))
            eps = draw(strategies.sampled_from([1e-7, 1e-3, 1e-310]))
            layers.append(NALU(ins, outs, gate=gate, eps=eps, **options))
        rectifier = draw(strategies.sampled_from([None, nn.ReLU, nn.ReLU6, nn.Identity]))
        if rectifier is not None and len(layers) < depth:
            layers.append(rectifier())
    return nn.Sequential(*layers)


@strategies.composite
def ranges(draw: Any) -> Any:
    low = draw(strategies.sampled_from([-2.0, 0.1, 1.0]))
    kind = draw(strategies.integers(0, 3))
    if kind == 0:
        return sweep.Normal(low, 0.5)
    if kind == 1:
        return sweep.Normal(low, 1.0, low - 0.5, low + 2)
    return (low, low + 1) if kind == 2 else ((low, low + 1), (low + 3, low + 4))


def hypotenuse(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True).sqrt().expand(-1, 2)


@strategies.composite
def tasks(draw: Any) -> tuple[Any, int]:
    """A task, and how many outputs it has."""
    kind, samples = draw(strategies.integers(0, 2)), draw(strategies.integers(1, 200))
    if kind == 0:
        operation = draw(strategies.sampled_from(["+", "-", "*", "/", "a^2", "sqrt(a)"]))
        inputs = draw(strategies.sampled_from([2, 4, 9, 33]))
        train, test = draw(ranges()), draw(ranges())
        return sweep.Arithmetic(operation, inputs, train=train, test=test, samples=samples), 1
    if kind == 1:
        train, test = draw(ranges()), draw(ranges())
        return sweep.Function(hypotenuse, draw(widths), train, test, samples=samples), 2
    rows, inputs = draw(strategies.integers(1, 40)), draw(widths)
    source = torch.Generator().manual_seed(draw(strategies.integers(0, 1000)))
    x, y = (torch.rand(rows, inputs, generator=source) + 0.5 for _ in range(2))
    return sweep.Data(x, y[:, :1], x + 1, y[:, :1]), 1


@strategies.composite
def specifications(draw: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
    task, outputs = draw(tasks())
    stack = draw(stacks(task.in_features, outputs))
    optimizer = draw(strategies.sampled_from(["adam", "rmsprop", "sgd"]))
    columns: dict[str, Any] = {"seed": [draw(strategies.integers(0, 2**62))], "lr": [draw(rates)]}
    for name, values in {
        "weight_decay": [0.0, 0.1],
        "clip_value": [None, 1e-2],
        "clip_norm": [None, 0.1],
        **(
            {"momentum": [0.0, 0.9]} if optimizer != "adam" else {"betas": [(0.9, 0.999), (0, 0.5)]}
        ),
    }.items():
        value = draw(strategies.sampled_from(values))
        if value is not None:
            columns[name] = [value]
    options = {
        "steps": draw(strategies.integers(1, 12)),
        "test_every": draw(strategies.integers(1, 15)),
        "batch_size": draw(strategies.integers(1, 150)),
        "optimizer": optimizer,
        "loss": draw(strategies.sampled_from(["mse", "l1"])),
        "stop": draw(strategies.sampled_from([None, "solved"])),
        "success": draw(strategies.sampled_from([1e-5, 1e30])),
        "dtype": torch.float64,
    }
    return stack, task, columns, options


def last(result: sweep.Result) -> Tensor:
    return torch.cat([value.flatten() for value in result.modules("last")[0].values()])


def fuzz(examples: int) -> Any:
    settings = hypothesis.settings(
        max_examples=max(1, examples),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: hypothesis.seed(SEED)(settings(test))


@needs_trainer
@pytest.mark.filterwarnings("error")
@fuzz(EXAMPLES)
@hypothesis.given(specifications())
def test_valid_specifications_train_as_the_reference_does(specification: Any) -> None:
    stack, task, columns, options = specification
    found, wanted = (
        last(sweep.run(stack, task, columns, **options, backend=backend))
        for backend in ("cpu", "reference")
    )
    assert torch.equal(found.isnan(), wanted.isnan())
    finite = wanted.isfinite()
    scale = max(1.0, float(wanted[finite].abs().max())) if finite.any() else 1.0
    assert float((found - wanted)[finite].abs().max()) < 1e-6 * scale if finite.any() else True


WRONG: dict[str, list[Any]] = {
    "steps": [0, -1, 1.5, "10", None, True],
    "batch_size": [0, -3, 2.0],
    "test_every": [0, None],
    "optimizer": ["adamw", None, 3],
    "loss": ["mae", None],
    "success": ["weights", -1.0, math.nan, "1e-5"],
    "stop": [True, "diverged"],
    "backend": ["triton9", 3],
    "threads": [0, -1, 1.5],
    "seconds": [0, -1, "1"],
    "dtype": [torch.float16, "float32", None],
}
WRONG_COLUMNS: dict[str, list[Any]] = {
    "seed": [-1, 1.5, "a", None],
    "lr": [-1e-3, math.nan, "fast", None],
    "eps": [-1.0],
    "betas": [(1.0, 0.9), (0.9,), 0.9],
    "clip_norm": [-1.0, "x"],
    "lrr": [1e-3],
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs], ids=str
)
def test_wrong_options_raise_before_anything_runs(name: str, value: Any) -> None:
    options = {"steps": 5, name: value}
    with pytest.raises((TypeError, ValueError), match=name):
        sweep.run(NALU(2, 1), sweep.Arithmetic("+", 2, samples=3), {"seed": [0]}, **options)


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, vs in WRONG_COLUMNS.items() for v in vs], ids=str
)
def test_wrong_columns_raise_before_anything_runs(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        sweep.run(NALU(2, 1), sweep.Arithmetic("+", 2, samples=3), {name: [value]}, steps=5)
