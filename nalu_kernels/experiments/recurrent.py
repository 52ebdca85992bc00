"""Arithmetic on sums over time: sequences of 10 in training, of 1,000 in the test.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.1, the recurrent task; see
arithmetic.py. Each step of a sequence shows 10 numbers; an operand is the sum over all steps of 3
of them, none in common. Each of the 10 is uniform on [0, bound) with a bound of its own in each
sequence, uniform on [0.1, 1): with one bound for all, sums over 1,000 steps would hardly differ
between sequences, and a constant would be a good answer.

A NACCell or NALUCell with a state of 2 reads the sequence and a layer of the same kind answers
after its end. The baselines are an LSTM and a recurrent network of ReLUs, with 32 units and a
linear readout.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nalu_kernels import NAC, NALU, NACCell, NALUCell

from .arithmetic import Arithmetic
from .experiment import Scale
from .sequences import Baseline, last_state
from .training import FORGETS, cool_down, hill, uniform

SHORT, LONG = 10, 1000
FEATURES, SUBSET, STATE, UNITS = 10, 3, 2, 32
_EPS = 0.01  # of the NALUCell
_BATCH, _TEST = 32, 200


class Transition(nn.Module):
    """A cell over a sequence, and a layer on its last state."""

    def __init__(self, cell: NACCell | NALUCell, layer: nn.Module) -> None:
        super().__init__()
        self.cell, self.layer = cell, layer

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, features) to (batch, 1)."""
        answer: Tensor = self.layer(last_state(self.cell, x))
        return answer


def _numbers(source: torch.Generator, *shape: int) -> Tensor:
    """Sequences (*shape, FEATURES), the last of ``shape`` their length."""
    bounds = uniform(source, (*shape[:-1], 1, FEATURES), 0.1, 1.0)
    return bounds * torch.rand(*shape, FEATURES, generator=source)


class Recurrent(Arithmetic):
    name = "recurrent"
    title = "arithmetic on sums over sequences of 10, tested on 1,000"
    source = "Trask et al. 2018, section 4.1, the recurrent task"
    differs = (
        "The paper's figures could not be sourced, and how much a sequence shows is ours. The "
        "NALUCell has weights of their own for sums and products and an eps of 0.01: with the "
        "paper's 1e-7, its first step, from a state of zeros, multiplies by powers of 1e-7, and "
        "fewer seeds learn anything."
    )
    small = Scale(seeds=4, steps=3000)
    full = Scale(seeds=10, steps=100_000)
    baselines = ("LSTM", "RNN")
    models = ("NAC", "NALU", *baselines)
    inside_is = f"sequences of {SHORT} steps, as in training"
    outside_is = f"of {LONG} steps"
    rates: ClassVar = {
        # Long strides carry the weights all the way to 1, where tanh and sigmoid are flat.
        "NAC": (3.0, hill, FORGETS),
        "NALU": (0.2, hill, FORGETS),
        "LSTM": (0.01, cool_down),
        "RNN": (0.003, cool_down),
    }

    def network(self, model: str) -> nn.Module:
        if model == "NAC":
            return Transition(NACCell(FEATURES, STATE), NAC(STATE, 1))
        if model == "NALU":
            return Transition(
                NALUCell(FEATURES, STATE, eps=_EPS, tied=False), NALU(STATE, 1, tied=False)
            )
        network: nn.RNNBase
        if model == "LSTM":
            network = nn.LSTM(FEATURES, UNITS, batch_first=True)
        else:
            network = nn.RNN(FEATURES, UNITS, nonlinearity="relu", batch_first=True)
        return Baseline(network, mean=torch.zeros(1), spread=torch.ones(1))

    def batches(self, source: torch.Generator, count: int) -> Tensor:
        return _numbers(source, count, _BATCH, SHORT)

    def test(self, source: torch.Generator, *, outside: bool) -> Tensor:
        return _numbers(source, _TEST, LONG if outside else SHORT)

    def operands(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        a, b = self.subsets(FEATURES, SUBSET, seed)
        total = x.sum(dim=1)
        return total[:, a].sum(dim=1, keepdim=True), total[:, b].sum(dim=1, keepdim=True)


EXPERIMENT = Recurrent()
