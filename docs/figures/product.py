"""The README's picture: a·b learnt from numbers between 1 and 5, asked for larger ones.

    python docs/figures/product.py    trains 20 NALUs and 20 ordinary networks, writes product.svg

The NALUs are trained as in the README's example. The lines of all seeds are drawn, those that fail
too. It prints how many NALUs find the product. Takes the extra ``experiments`` (matplotlib).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from nalu_kernels import NALU
from nalu_kernels.experiments.plot import own_defaults
from nalu_kernels.experiments.refusal import require

SEEDS = 20
LOW, HIGH, FAR = 1.0, 5.0, 100.0
FOUND = 0.01  # the relative error outside below which a seed has found the product
GREY = "#808080"  # readable on white and on black


def nalu() -> nn.Module:
    return NALU(2, 1)


def ordinary() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )


def train(model: nn.Module, rate: float, steps: int = 1000) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        x = LOW + (HIGH - LOW) * torch.rand(64, 2)
        loss = (model(x) - x.prod(1, keepdim=True)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def relative_errors(model: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Of a·a, for each a."""
    true = values**2
    found: torch.Tensor = model(values[:, None].expand(-1, 2))
    return (found[:, 0] - true).abs() / true


def draw(values: torch.Tensor, errors: dict[str, list[torch.Tensor]], path: Path) -> None:
    with own_defaults() as matplotlib:
        from matplotlib.figure import Figure

        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "product"})
        figure = Figure(figsize=(7.5, 3.6), layout="constrained")
        fill(figure.subplots(), values, errors)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def fill(axes: Any, values: torch.Tensor, errors: dict[str, list[torch.Tensor]]) -> None:
    for (label, lines), colour in zip(errors.items(), ("#2f81f7", "#e0730d"), strict=True):
        for place, line in enumerate(lines):
            axes.loglog(
                values,
                line.clamp_min(1e-6),
                color=colour,
                linewidth=1,
                label=None if place else label,
            )
    axes.axvspan(LOW, HIGH, color=GREY, alpha=0.25, linewidth=0)
    axes.text((LOW * HIGH) ** 0.5, 6e-6, "trained here", color=GREY, ha="center")
    axes.set_xlim(LOW, FAR)
    axes.set_ylim(3e-6, 3)
    axes.set_xlabel("a")
    axes.set_ylabel("relative error of a·a")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(which="both", colors=GREY)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.legend(loc="lower right", frameon=False, labelcolor=GREY)


def main() -> None:
    require("matplotlib")  # before the minutes of training
    values = torch.logspace(0, 2, 49)
    errors: dict[str, list[torch.Tensor]] = {}
    for label, make, rate in (
        (f"{SEEDS} NALUs", nalu, 0.1),
        (f"{SEEDS} ordinary networks (ReLU)", ordinary, 0.01),
    ):
        errors[label] = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            model = make()
            train(model, rate)
            errors[label].append(relative_errors(model, values))
        found = sum(bool(line[values > HIGH].max() < FOUND) for line in errors[label])
        print(f"{label}: {found} of {SEEDS} err outside by less than {FOUND:.0%}")
    draw(values, errors, Path(__file__).with_suffix(".svg"))


if __name__ == "__main__":
    main()
