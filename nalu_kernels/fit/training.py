"""Trains a candidate on a table by :func:`nalu_kernels.sweep.run`, for many seeds in one call."""

from __future__ import annotations

import contextlib
import io
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import sweep
from ..sweep.stack import Stack
from .candidates import Candidate

F64 = torch.float64
_FAR = 8.0  # times the median: targets above it would be all that a mean of squares sees


class Trained(NamedTuple):
    """Runs of a candidate, as they ended.

    ``weights`` has each layer's, (runs, outputs, inputs) in float64: a RealNPU's times its gate.
    """

    weights: list[Tensor]
    errors: Tensor  # (runs,) mean squared, of the table as it was trained on
    steps: int  # of all runs
    stopped: str | None


class Table:
    """The rows that a candidate is trained on, in float32.

    Rows with targets far beyond the others are left out: a law holds on the others too. Numbers
    that a NAU adds are all divided by one power of two, those that are multiplied each column by
    its own, and the target by its standard deviation. The factor at a stack's end takes that up.
    """

    def __init__(self, candidate: Candidate, x: Tensor, y: Tensor) -> None:
        near = y.abs() <= _FAR * y.abs().median()
        x, y = x[near], y[near]
        if candidate.layers[0] == "NAU":
            self.columns = _power_of_two(x.std(0, unbiased=False).amax()).expand(x.shape[1])
        else:
            self.columns = _power_of_two(x.abs().clamp_min(1e-30).log().mean(0).exp())
        size = float(y.std(unbiased=False)) or 1.0
        self.target = size if math.isfinite(size) else 1.0
        self.x, self.y = (x / self.columns).float(), (y / self.target).float()


def _power_of_two(size: Tensor) -> Tensor:
    return torch.exp2(size.clamp_min(2.0**-60).log2().round())


def train(
    candidate: Candidate,
    table: Table,
    seeds: range,
    steps: int,
    *,
    seconds: float,
    threads: int | None,
) -> Trained:
    """So many steps of a run for each seed."""
    stack = candidate.trained(table.x.shape[1])
    options = dict(lr=candidate.lr, clip_norm=candidate.clip_norm)
    with contextlib.redirect_stderr(io.StringIO()):  # a line for each of many short calls
        result = sweep.run(
            stack,
            sweep.Data(table.x, table.y, table.x, table.y),
            {"seed": seeds, **{name: [value] * len(seeds) for name, value in options.items()}},
            steps=steps,
            test_every=steps,
            batch_size=candidate.batch,
            optimizer=candidate.optimizer,
            loss=candidate.loss,
            initial=_initial(stack, seeds),
            threads=threads,
            seconds=seconds,
        )
    state = {name: value.to(F64) for name, value in result.modules("last")[0].items()}
    done = result.columns()
    return Trained(
        [_weights(f"{k}.", state) for k in range(len(stack))],
        torch.tensor(done["error_inside"], dtype=F64),
        sum(done["steps"]),
        result.stopped,
    )


def _initial(stack: nn.Sequential, seeds: range) -> dict[str, Tensor]:
    """As the layers draw them, but with gates of 1 and a factor of 1."""
    drawn = Stack(stack)
    initial = drawn.state(drawn.draw(torch.tensor(list(seeds)), torch.float32))
    for name, value in initial.items():
        if name.endswith(".g") or value.shape[1:] == (1, 1) and name.endswith(".weight"):
            value.fill_(1.0)
    return initial


def _weights(layer: str, state: dict[str, Tensor]) -> Tensor:
    if f"{layer}g" in state:
        return state[f"{layer}W_re"] * state[f"{layer}g"].clamp(0, 1).unsqueeze(1)
    return state[f"{layer}W" if f"{layer}W" in state else f"{layer}weight"]
