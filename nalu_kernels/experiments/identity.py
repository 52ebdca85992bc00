"""y = x by small networks: what is left of it outside the training range.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 1.1 and figure 1. A network of
3 hidden layers of 8 units learns the identity on [-5, 5] and is tested on [-20, 20], once for each
of the usual activations. Beside them stands a stack of NAC layers of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NAC

from .experiment import Comparison, Experiment, Outcome, Scale, Settings, Trial
from .report import columns, how_often, median, number
from .training import Group, Training, build, cool_down, generator, uniform

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "Hardtanh": nn.Hardtanh,
    "Sigmoid": nn.Sigmoid,
    "ReLU6": nn.ReLU6,
    "Tanh": nn.Tanh,
    "Tanhshrink": nn.Tanhshrink,
    "Hardshrink": nn.Hardshrink,
    "LeakyReLU": nn.LeakyReLU,
    "Softshrink": nn.Softshrink,
    "Softsign": nn.Softsign,
    "ReLU": nn.ReLU,
    "PReLU": nn.PReLU,
    "Softplus": nn.Softplus,
    "ELU": nn.ELU,
    "SELU": nn.SELU,
}
TASK = "y = x"
SIZES = (1, 8, 8, 8, 1)
INSIDE, OUTSIDE = 5.0, 20.0
EXACT = 0.01  # a mean error below this counts as exact
_BATCH = 64
_INPUTS = [float(x) for x in range(-int(OUTSIDE), int(OUTSIDE) + 1)]


def _network(model: str) -> nn.Sequential:
    if model == "NAC":
        return nn.Sequential(*(NAC(fan_in, fan_out) for fan_in, fan_out in pairwise(SIZES)))
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(SIZES):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[model]()]
    return nn.Sequential(*layers[:-1])


class Identity(Experiment):
    name = "identity"
    title = "y = x inside and outside the training range, for each activation and a NAC"
    source = "Trask et al. 2018, section 1.1, figure 1"
    differs = "Adam, and few steps; the paper shows curves without numbers."
    small = Scale(seeds=5, steps=800)
    full = Scale(seeds=100, steps=10_000)
    models = (*ACTIVATIONS, "NAC")
    tasks = (TASK,)

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        network = build(
            lambda: _network(trial.model), training.device, self.name, trial.model, trial.seed
        )
        source = generator(self.name, "data", trial.seed)

        def draw(count: int) -> Tensor:
            return uniform(source, (count, _BATCH, 1), -INSIDE, INSIDE)

        rate = 0.05 if trial.model == "NAC" else 0.01
        groups = [Group(network.parameters(), rate, cool_down)]

        def loss(x: Tensor) -> Tensor:
            return F.mse_loss(network(x), x)

        training.fit(network, groups, draw, loss, settings.steps, source=source)
        x = torch.tensor(_INPUTS, device=training.device)[:, None]
        with torch.no_grad():
            errors = (network(x) - x).abs().flatten().cpu()
        inside = torch.tensor(_INPUTS).abs() <= INSIDE
        return {
            "inside": float(errors[inside].mean()),
            "outside": float(errors[~inside].mean()),
            "curve": errors.tolist(),
        }

    def _errors(self, outcome: Outcome, model: str) -> tuple[float, float]:
        """Medians over the seeds, inside and outside."""
        inside, outside = (
            median(outcome.values(metric, model=model, task=TASK))
            for metric in ("inside", "outside")
        )
        return inside, outside

    def table(self, outcome: Outcome) -> list[str]:
        rows = [["network", "|x| <= 5", "5 < |x| <= 20", "ratio"]]
        errors = {model: self._errors(outcome, model) for model in outcome.models}
        for model, (inside, outside) in sorted(errors.items(), key=lambda item: item[1][1]):
            ratio = number(outside / inside) if inside else "-"
            rows.append([model, number(inside), number(outside), ratio])
        return [
            "y = x: 3 hidden layers of 8, trained on [-5, 5]; mean absolute error, median of seeds",
            "",
            *columns(rows, (-14, 12, 16, 12)),
        ]

    def claims(self, outcome: Outcome) -> list[str]:
        claims = []
        usual = {
            model: self._errors(outcome, model) for model in outcome.models if model in ACTIVATIONS
        }
        if usual:
            ratios = [outside / max(inside, 1e-12) for inside, outside in usual.values()]
            worse = sum(ratio > 2 for ratio in ratios)
            best = min(usual, key=lambda model: usual[model][1])
            claims.append(
                f"{worse} of {len(usual)} ordinary activations err more than twice as much outside "
                f"the training range as inside; the median factor is {number(median(ratios))}; "
                f"best outside: {best}, {number(usual[best][1])}"
            )
        if "NAC" in outcome.models:
            exact = [error < EXACT for error in outcome.values("outside", model="NAC", task=TASK)]
            claims.append(f"NAC stack exact outside (error below {EXACT:g}): {how_often(exact)}")
        return claims

    def compare(self, outcome: Outcome) -> list[Comparison]:
        return [
            Comparison(
                f"{model}, mean absolute error outside",
                number(self._errors(outcome, model)[1]),
                "",
                "",
            )
            for model in ("Tanh", "ReLU", "NAC")
            if model in outcome.models
        ]

    def draw(self, figure: Any, outcome: Outcome) -> None:
        from matplotlib import colormaps

        axes = figure.subplots()
        axes.axvspan(-INSIDE, INSIDE, color="0.9", zorder=0)
        place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
        axes.text(0, 0.98, "trained here", fontsize=7, color="0.35", **place)
        worst_first = sorted(outcome.models, key=lambda model: -self._errors(outcome, model)[1])
        palette = colormaps["tab20"]
        for index, model in enumerate(sorted(worst_first, key=lambda model: model == "NAC")):
            curves = outcome.values("curve", model=model, task=TASK)
            mean = [sum(errors) / len(errors) for errors in zip(*curves, strict=True)]
            style = {"lw": 2, "color": "black"} if model == "NAC" else {"color": palette(index)}
            axes.plot(_INPUTS, mean, label=model, **{"lw": 1, **style})
        axes.set(
            title="y = x by networks of 3 hidden layers of 8",
            xlabel="input",
            ylabel="mean absolute error",
            xlim=(-OUTSIDE, OUTSIDE),
            ylim=(0, None),
        )
        axes.legend(ncols=2, fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, 0.93))


EXPERIMENT = Identity()
