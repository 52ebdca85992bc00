"""Trains a candidate on a table by :func:`nalu_kernels.sweep.run`, many seeds in one call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import sweep
from ..sweep.stack import Stack
from .candidates import Candidate
from .rounding import typical

F64 = torch.float64
_FAR = 8.0  # typical sizes; targets beyond would be all that a loss sees


class Table:
    """The rows that a candidate is trained on, in float32.

    Rows with targets far beyond the others are left out: a law holds on the others too. Columns
    that a NAU adds are divided by one power of two, those that are multiplied each by its own, and
    the targets by their typical size.

    Attributes:
        x, y: (rows, inputs) and (rows,).
        units: float64 (inputs,), what the columns were divided by.
    """

    def __init__(self, candidate: Candidate, x: Tensor, y: Tensor) -> None:
        near = y.abs() <= _FAR * typical(y)
        x, y = x[near], y[near]
        sizes = x.abs().median(0).values
        if candidate.layers[0] == "NAU":
            sizes = x.std(0, correction=0).amax().expand(x.shape[1])
        self.units = torch.where(sizes > 0, sizes, 1.0).log2().round().exp2()
        self.x, self.y = (x / self.units).float(), (y / typical(y)).float()


class Trained(NamedTuple):
    """Runs of a candidate as they ended.

    Attributes:
        weights: of each layer, float64 (runs, outputs, inputs); a RealNPU's times its gates.
        steps: that all runs have done together.
        stopped: "seconds" or a signal's name, where that has ended the call.
    """

    weights: list[Tensor]
    steps: int
    stopped: str | None


def train(
    candidate: Candidate,
    table: Table,
    seeds: range,
    steps: int,
    *,
    seconds: float,
    threads: int | None,
) -> Trained:
    """A run of so many steps for each seed."""
    stack = candidate.trained(len(table.units))
    settings = {"lr": candidate.lr, "clip_norm": candidate.clip_norm}
    result = sweep.run(
        stack,
        sweep.Data(table.x, table.y, table.x, table.y),
        [{"seed": seed, **settings} for seed in seeds],
        steps=steps,
        test_every=steps,
        batch_size=candidate.batch,
        optimizer=candidate.optimizer,
        loss=candidate.loss,
        initial=_initial(stack, seeds),
        threads=threads,
        seconds=seconds,
        quiet=True,
    )
    state = {name: value.to(F64) for name, value in result.modules("last")[0].items()}
    weights = [_weights(f"{place}.", state) for place in range(len(candidate.layers))]
    return Trained(weights, sum(result.columns()["steps"]), result.stopped)


def _initial(stack: nn.Sequential, seeds: range) -> dict[str, Tensor]:
    """As the layers draw their own, but for gates and a factor of 1."""
    drawn = Stack(stack)
    initial = drawn.state(drawn.draw(torch.tensor(seeds), torch.float32))
    for name, value in initial.items():
        if name.endswith(".g") or (name.endswith(".weight") and value.shape[1:] == (1, 1)):
            value.fill_(1.0)
    return initial


def _weights(layer: str, state: dict[str, Tensor]) -> Tensor:
    if f"{layer}g" in state:
        return state[f"{layer}W_re"] * state[f"{layer}g"].clamp(0, 1).unsqueeze(1)
    return state[f"{layer}W" if f"{layer}W" in state else f"{layer}weight"]
