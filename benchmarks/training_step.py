"""A whole training step beside the layer alone: eager formulas against this library.

    python -m benchmarks.training_step    measures, prints the table, writes
                                          results/training_step.json

A step is forward, mean squared error, backward and Adam. Beside the kernels it has the loss's and
the optimizer's own time, which no layer can save. One thread, and its processor time: other work on
the machine disturbs that least.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nalu_kernels import NALU

from . import command, machine, markdown
from .compiled import Plain
from .contenders import EAGER, LIBRARY
from .timing import Call, Samples, interleave, processor_seconds, ratio

RESULTS = Path(__file__).parent / "results" / "training_step.json"
MODELS: dict[str, tuple[int, tuple[int, ...]]] = {  # name: batch and features
    "NALU(2, 1), batch of 64": (64, (2, 1)),
    "NALU(100, 2), batch of 128": (128, (100, 2)),
    "NALU(100, 2), NALU(2, 1), batch of 128": (128, (100, 2, 1)),
}
LAYERS, ADAM, FUSED = "forward and backward", "step with Adam", "step with Adam(fused=True)"
PARTS = (LAYERS, ADAM, FUSED)
Results = dict[str, Any]


def layers_alone(model: nn.Module, x: torch.Tensor, grad_output: torch.Tensor) -> Call:
    parameters = list(model.parameters())

    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        model(x).backward(grad_output)

    return run


def step(model: nn.Module, x: torch.Tensor, target: torch.Tensor, *, fused: bool) -> Call:
    # A rate of 0 is the same work, and keeps every step alike however long they are timed.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=fused)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), target).backward()
        optimizer.step()

    return run


def calls(batch: int, features: Sequence[int]) -> dict[str, Call]:
    """Each part by each contender, named as ``key`` names them; all from the same weights."""
    torch.manual_seed(0)
    layers = [NALU(*pair) for pair in itertools.pairwise(features)]
    x, target = torch.rand(batch, features[0]) + 0.5, torch.rand(batch, features[-1])
    wraps: dict[str, Callable[[NALU], nn.Module]] = {LIBRARY: lambda layer: layer, EAGER: Plain}
    found = {}
    for contender, wrap in wraps.items():
        model = nn.Sequential(*map(wrap, layers))
        found[key(LAYERS, contender)] = layers_alone(model, x, target)
        found[key(ADAM, contender)] = step(model, x, target, fused=False)
        found[key(FUSED, contender)] = step(model, x, target, fused=True)
    return found


def key(part: str, contender: str) -> str:
    return f"{contender}: {part}"


def record(name: str, samples: Samples) -> dict[str, Any]:
    """A model's row in the results file: medians in microseconds, and the ratio of each part."""
    return {
        "model": name,
        "median_us": {
            name: round(1e6 * statistics.median(times), 2) for name, times in samples.items()
        },
        "times_faster": {
            part: round(ratio(samples, key(part, EAGER), key(part, LIBRARY)), 3) for part in PARTS
        },
    }


def _rows(results: Results) -> list[list[str]]:
    rows = [["model"]]
    for part in PARTS:
        rows[0] += [f"{part}, µs: {EAGER}", LIBRARY, "times faster"]
    for row in results["models"]:
        cells = [row["model"]]
        for part in PARTS:
            cells += [f"{row['median_us'][key(part, who)]:.0f}" for who in (EAGER, LIBRARY)]
            cells.append(f"{row['times_faster'][part]:.1f}")
        rows.append(cells)
    return rows


def _ran_on(results: Results) -> str:
    used = results["machine"]
    return machine.ran_on(used) + machine.busy(used)


def text(results: Results) -> str:
    return f"{markdown.align(_rows(results), left=1)}\nOn {_ran_on(results)}."


def section(results: Results) -> str:
    """For docs/speed.md."""
    return "\n\n".join(
        [
            "Median processor times. All contenders take turns in one run, on "
            f"{_ran_on(results)}. The ratios are medians of each round's own ratio.",
            markdown.table(_rows(results), left=1),
        ]
    )


def summary(results: Results) -> str:
    """For the README: the ratios alone, least and most."""
    said = []
    for part in PARTS:
        ratios = [row["times_faster"][part] for row in results["models"]]
        said.append(f"{part} {min(ratios):.1f} to {max(ratios):.1f}")
    return (
        f"Times faster than eager PyTorch, for small NALUs: {', '.join(said)} ({_ran_on(results)})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step")
    parser.add_argument("--results", type=Path, default=RESULTS)
    path = parser.parse_args().results
    results: Results = {**command.begin(1), "models": []}
    for name, (batch, features) in MODELS.items():
        samples = interleave(calls(batch, features), budget_s=8.0, seconds=processor_seconds)
        results["models"].append(record(name, samples))
    command.finish(results, text, path)


if __name__ == "__main__":
    main()
