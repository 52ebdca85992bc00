"""Arithmetic on hidden subset sums of 100 numbers that are shown at once.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.1, the static task; see
arithmetic.py. Every model has two layers and a hidden width of 2. The numbers are uniform on [1, 2]
in training and on [2, 6] outside, each operand is the sum of 25 of them, none in common: the ranges
and the ratio of Madsen and Johansen 2020, as the paper gives neither.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nalu_kernels import NAC, NALU

from .arithmetic import Arithmetic
from .experiment import Scale
from .training import cool_down, uniform

LENGTH, SUBSET, HIDDEN = 100, 25, 2
INSIDE, OUTSIDE = (1.0, 2.0), (2.0, 6.0)
_BATCH, _TEST = 64, 1000


class Static(Arithmetic):
    name = "static"
    title = "arithmetic on hidden sums of 100 numbers"
    source = "Trask et al. 2018, section 4.1, the static task"
    differs = (
        "The paper's own figures could not be sourced, and it says little of its setting: ranges "
        "and subset ratio are Madsen and Johansen's, the optimizer is Adam on the absolute error, "
        "with few steps. The public replica beside ours has other ranges, RMSE for the error and a "
        "single run."
    )
    small = Scale(seeds=5, steps=4000)
    full = Scale(seeds=10, steps=100_000)
    baselines = ("ReLU6", "Linear")
    models = ("NAC", "NALU", *baselines)
    inside_is = f"{LENGTH} numbers in [{INSIDE[0]:g}, {INSIDE[1]:g}], as in training"
    outside_is = f"in [{OUTSIDE[0]:g}, {OUTSIDE[1]:g}]"
    rates: ClassVar = {
        "NAC": (0.05, cool_down),
        "NALU": (0.02, cool_down),
        "ReLU6": (0.01, cool_down),
        "Linear": (0.01, cool_down),
    }
    published: ClassVar = {
        ("a + b", "NAC"): (".000", ".008"),
        ("a + b", "NALU"): (".002", ".000"),
        ("a + b", "Linear"): (".000", ".013"),
        ("a - b", "NAC"): (".000", ".046"),
        ("a - b", "NALU"): (".000", ".000"),
        ("a - b", "Linear"): (".054", ".001"),
        ("a * b", "NAC"): ("8.163", "80.187"),
        ("a * b", "NALU"): (".210", "53.327"),
        ("a * b", "Linear"): ("1.630", "64.749"),
        ("a / b", "NAC"): ("1.515", "16.827"),
        ("a / b", "NALU"): (".008", "2.702"),
        ("a / b", "Linear"): (".372", "3.470"),
        ("a^2", "NAC"): ("7.943", "80.774"),
        ("a^2", "NALU"): (".215", "54.451"),
        ("a^2", "Linear"): ("4.094", "67.518"),
        ("sqrt(a)", "NAC"): ("2.628", "53.275"),
        ("sqrt(a)", "NALU"): (".068", ".403"),
        ("sqrt(a)", "Linear"): (".407", "16.103"),
    }
    published_by = "github.com/nkarasovd/Neural_Arithmetic_Logic_Units, README"

    def network(self, model: str) -> nn.Module:
        if model in ("NAC", "NALU"):
            layer = {"NAC": NAC, "NALU": NALU}[model]
            return nn.Sequential(layer(LENGTH, HIDDEN), layer(HIDDEN, 1))
        activation = {"ReLU6": nn.ReLU6, "Linear": nn.Identity}[model]()
        return nn.Sequential(nn.Linear(LENGTH, HIDDEN), activation, nn.Linear(HIDDEN, 1))

    def batches(self, source: torch.Generator, count: int) -> Tensor:
        return uniform(source, (count, _BATCH, LENGTH), *INSIDE)

    def test(self, source: torch.Generator, *, outside: bool) -> Tensor:
        return uniform(source, (_TEST, LENGTH), *(OUTSIDE if outside else INSIDE))

    def operands(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        a, b = self.subsets(LENGTH, SUBSET, seed)
        return x[:, a].sum(dim=1, keepdim=True), x[:, b].sum(dim=1, keepdim=True)


EXPERIMENT = Static()
