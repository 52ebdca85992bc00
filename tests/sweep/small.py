"""Small sweeps that the tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nalu_kernels import NAC, NALU, sweep
from nalu_kernels.sweep.state import SECONDS, State

F64 = torch.float64


def product(x: torch.Tensor) -> torch.Tensor:
    return x.prod(1)


def table() -> sweep.Data:
    x = torch.linspace(-1, 1, 60).view(30, 2)
    return sweep.Data(x, x.sum(1), x + 2, x.sum(1) + 4)


# A task of each kind, and a stack for it. No logarithm is taken of a hidden number near 0, where
# rounding errors would grow without bounds.
TASKS: dict[str, tuple[Any, nn.Module]] = {
    "arithmetic": (
        sweep.Arithmetic("a * b", in_features=10, samples=40),
        nn.Sequential(
            NAC(10, 3, log_space=True), NALU(3, 1, gate="sample", gate_bias=True, tied=False)
        ),
    ),
    "normal": (
        sweep.Arithmetic("a - b", 2, train=sweep.Normal(1, 2, -1, 3), samples=40),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU6(), nn.Identity(), nn.Linear(3, 1, bias=False)),
    ),
    "function": (
        sweep.Function(product, 2, ((-2, -1), (1, 2)), (2, 3), samples=40, per_seed=True),
        NAC(2, 1, log_space=True),
    ),
    "data": (table(), nn.Sequential(NAC(2, 2), nn.ReLU(), nn.Linear(2, 1))),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "adam": {"betas": [(0.8, 0.99)], "eps": [1e-6]},
    "rmsprop": {"alpha": [0.9], "momentum": [0.5]},
    "sgd": {"momentum": [0.9]},
}
SMALL: dict[str, Any] = {"steps": 23, "test_every": 5, "batch_size": 16}


def run(task: str = "arithmetic", runs: Any = None, **options: Any) -> sweep.Result:
    """A small sweep; on the reference unless ``backend`` says otherwise."""
    chosen, stack = TASKS[task]
    runs = sweep.grid(seed=range(3), lr=[1e-2, 1e-3]) if runs is None else runs
    return sweep.run(stack, chosen, runs, **{"backend": "reference", **SMALL, **options})


def diverging(**where: Any) -> tuple[sweep.Result, sweep.Result]:
    """A run whose parameters become NaN beside one whose do not, and that one alone."""

    def trained(runs: dict[str, list[Any]]) -> sweep.Result:
        task = sweep.Arithmetic("a + b", in_features=2, samples=40)
        options = {**SMALL, "optimizer": "sgd", **where}
        return sweep.run(nn.Linear(2, 1), task, runs, **options)

    return trained({"seed": [0, 1], "lr": [1e3, 1e-3]}), trained({"seed": [1], "lr": [1e-3]})


def numbers(result: sweep.Result) -> dict[str, torch.Tensor]:
    """All that a training comes to, but for the time it took."""
    state: State = result._state
    found = {name: value.clone() for name, value in state.tensors().items() if name != "backends"}
    found["scores"][:, SECONDS] = 0
    return found


def assert_same(found: sweep.Result, expected: sweep.Result) -> None:
    """Bit for bit; NaN equals NaN."""
    assert found.columns()["status"] == expected.columns()["status"]
    for name, value in numbers(expected).items():
        assert bool((numbers(found)[name] == value).logical_or(value.isnan()).all()), name
        assert numbers(found)[name].isnan().equal(value.isnan()), name
