"""The largest error against float64, of eager PyTorch and of this library.

    python -m benchmarks.accuracy        measures, prints the table, writes results/accuracy.json

Products: six factors from [1, 10], by NACs in log space whose weights are saturated, where exp
multiplies every error of the sum of logarithms. Sums: 4096 terms of either sign. Both as layers
of their own and inside a NALU; outputs and gradients. float64 gets the same, already rounded,
numbers, so that the error is the computation's alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import nalu_kernels
from nalu_kernels import reference

from . import machine, markdown

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
EAGER, LIBRARY = WHO = "eager", "nalu_kernels"
LEGEND = (
    "The largest error against float64. An error of a product is relative to that product; an "
    "error of a sum or a gradient is relative to the largest number of its tensor."
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Task(NamedTuple):
    name: str
    layer: Callable[..., Tensor]  # of a module, the input and the parameters
    tensors: tuple[Tensor, ...]  # float64: the input and the parameters


def tasks(batch: int = 1024, terms: int = 4096, outputs: int = 8) -> list[Task]:
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64).uniform_(low, high, generator=generator)

    def saturated(rows: int, columns: int) -> Tensor:
        return uniform(3, 5, rows, columns)

    factors = uniform(1, 10, batch, 6)
    weights = (saturated(outputs, 6), saturated(outputs, 6))
    wide = uniform(-1, 1, batch, terms)
    wide_weights = (uniform(-2, 2, outputs, terms), uniform(-2, 2, outputs, terms))
    gate = uniform(-0.05, 0.05, outputs, 6)
    wide_gate = uniform(-1, 1, outputs, terms) / terms**0.5
    return [
        Task(
            "product of 6", lambda m, x, W, M: m.nac(x, W, M, log_space=True), (factors, *weights)
        ),
        Task("product of 6 in a NALU", lambda m, *t: m.nalu(*t), (factors, *weights, gate)),
        Task(f"sum of {terms}", lambda m, x, W, M: m.nac(x, W, M), (wide, *wide_weights)),
        Task(
            f"sum of {terms} in a NALU",
            lambda m, *t: m.nalu(*t),
            # Small weights: the other path's product of as many factors has to stay finite.
            (wide, *(weight / 64 for weight in wide_weights), wide_gate),
        ),
    ]


def run(task: Task, module: Any, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The output and every gradient, for the output's mean as the loss."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    output = task.layer(module, *leaves)
    grad = torch.full_like(output, 1 / output.shape[0])
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]


def error(found: Tensor, true: Tensor) -> float:
    """The largest error, as a part of the tensor's largest number."""
    return ((found.double() - true).abs().max() / true.abs().max()).item()


def relative_error(found: Tensor, true: Tensor) -> float:
    """The largest error of an element, as a part of that element."""
    return ((found.double() - true).abs() / true.abs()).max().item()


def scores(task: Task, found: list[Tensor], true: list[Tensor]) -> dict[str, float]:
    """The errors of what ``run`` returned, measured as the task demands."""
    relative = relative_error if task.name.startswith("product") else error
    return {
        "output": relative(found[0], true[0]),
        "gradients": max(map(error, found[1:], true[1:])),
    }


def measure(task: Task) -> list[dict[str, Any]]:
    rows = []
    for dtype_name, dtype in DTYPES.items():
        rounded = tuple(tensor.to(dtype) for tensor in task.tensors)
        true = run(task, reference, tuple(tensor.double() for tensor in rounded))
        for contender, module in ((EAGER, reference), (LIBRARY, nalu_kernels)):
            row = {"task": task.name, "dtype": dtype_name, "contender": contender}
            rows.append(row | scores(task, run(task, module, rounded), true))
    return rows


def _rows(results: dict[str, Any]) -> list[list[str]]:
    """One row for each task and dtype: the errors of both contenders side by side."""
    cells: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in results["errors"]:
        cells.setdefault((row["task"], row["dtype"]), {})[row["contender"]] = row
    wholes = ("output", "gradients")
    rows = [["computation", "dtype", *(f"{whole}: {who}" for whole in wholes for who in WHO)]]
    for (task, dtype), both in cells.items():
        rows.append([task, dtype, *(f"{both[who][whole]:.1e}" for whole in wholes for who in WHO)])
    return rows


def text(results: dict[str, Any]) -> str:
    return f"{markdown.align(_rows(results), left=2)}\n{LEGEND}"


def section(results: dict[str, Any]) -> str:
    """For docs/accuracy.md."""
    return f"{LEGEND}\n\n{markdown.table(_rows(results), left=2)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy")
    parser.add_argument("--results", type=Path, default=RESULTS)
    path = parser.parse_args().results
    results = {
        "machine": machine.describe(),
        "errors": [row for task in tasks() for row in measure(task)],
    }
    print(text(results))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
