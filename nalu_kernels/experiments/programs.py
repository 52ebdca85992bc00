"""Programs read a character at a time: "34+12-56" and its value, longer in the test.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.4, program evaluation. Three
languages: sums, sums and differences, and products of numbers from 10 to 99. Training is on
programs of up to 4 terms (3 factors), the test on up to 100 terms (10 factors).

An LSTM of 32 units reads the characters. "LSTM" alone answers by a linear layer. In the others a
linear layer turns each output of the LSTM into 4 features, and a NACCell or NALUCell with a state
of one number takes them in, a character at a time: its state is the answer. For products the
features are factors from 1/e to e, the state starts at 1 and the NACCell works in log space. The
bounds matter there: the last features alone cannot make up the answer, so the state is needed.

After a character that ends a term, what has been read is a program too: training asks for all of
these values, so a batch of programs of 4 terms teaches 1 to 4 terms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NACCell, NALUCell, reference

from .experiment import Comparison, Experiment, Outcome, Scale, Settings, Trial
from .plot import colour
from .report import columns, how_often, median, number
from .training import Group, Training, build, generator, hill, warm_up

CHARACTERS = "0123456789+-*"
PRODUCTS = "products"
OPERATORS = {"sums": "+", "sums and differences": "+-", PRODUCTS: "*"}
MODELS = ("LSTM", "LSTM + NAC", "LSTM + NALU")
LENGTHS = {
    task: (2, 3, 4, 6, 10) if task == PRODUCTS else (2, 4, 10, 30, 100) for task in OPERATORS
}
TRAINED = {task: 3 if task == PRODUCTS else 4 for task in OPERATORS}  # terms of a program
NEAR = 0.01  # a product is right if it is off by less than this share
_UNITS, _FEATURES = 32, 4
_BATCH, _TEST = 64, 200
_TINY = 1e-7  # keeps logarithms finite


def programs(source: torch.Generator, task: str, shape: tuple[int, ...], terms: int) -> Tensor:
    """Random programs, (*shape, 3 * terms - 1) places in CHARACTERS."""
    numbers = torch.randint(10, 100, (*shape, terms), generator=source)
    operators = torch.tensor([CHARACTERS.index(operator) for operator in OPERATORS[task]])
    chosen = operators[torch.randint(len(operators), (*shape, terms), generator=source)]
    return torch.stack((chosen, numbers // 10, numbers % 10), dim=-1).flatten(-2)[..., 1:]


def values(task: str, programs: Tensor) -> Tensor:
    """What each program is worth after each of its terms, (..., terms), in float64."""
    numbers = (10 * programs[..., 0::3] + programs[..., 1::3]).double()
    if task == PRODUCTS:
        return numbers.cumprod(dim=-1)
    signs = torch.ones_like(numbers)
    signs[..., 1:][programs[..., 2::3] == CHARACTERS.index("-")] = -1
    return (signs * numbers).cumsum(dim=-1)


class Interpreter(nn.Module):
    """From characters to a value after each term; for products to its logarithm.

    Args:
        mean, spread: of the values (logarithms) in training, to which the LSTM's own answers are
            scaled: without that it does not learn in so few steps. The cells need none.
    """

    def __init__(self, model: str, task: str, mean: float, spread: float) -> None:
        super().__init__()
        self.products = task == PRODUCTS
        self.mean, self.spread = mean, spread
        self.reader = nn.LSTM(len(CHARACTERS), _UNITS, batch_first=True)
        self.cell: NACCell | NALUCell | None = None
        if model == "LSTM + NAC":
            self.cell = NACCell(_FEATURES, 1, log_space=self.products, eps=_TINY)
        elif model == "LSTM + NALU":
            self.cell = NALUCell(_FEATURES, 1, eps=_TINY)
        self.features = nn.Linear(_UNITS, 1 if self.cell is None else _FEATURES)

    def forward(self, programs: Tensor) -> Tensor:
        """(batch, characters) to (batch, terms)."""
        one_hot = F.one_hot(programs, len(CHARACTERS)).to(self.features.weight.dtype)
        features: Tensor = self.features(self.reader(one_hot)[0])
        if self.cell is None:
            return self.mean + self.spread * features[:, 1::3, 0]
        if self.products:
            features = features.tanh().exp()
        first = features.new_full((len(programs), 1), float(self.products))
        states = self.cell.unroll(features.transpose(0, 1), first)
        answer = states[1::3, :, 0].T
        return (answer.abs() + _TINY).log() if self.products else answer

    def groups(self) -> list[Group]:
        """The parameters and their learning rates."""
        reader = [*self.reader.parameters(), *self.features.parameters()]
        if self.cell is None:
            return [Group(reader, 0.01, hill)]
        # Long strides carry the cell's weights all the way to 1, where tanh and sigmoid are flat:
        # only then a state is kept without loss. The reader follows slowly.
        return [
            Group(reader, 0.01, hill),
            Group(self.cell.parameters(), 1.0, warm_up),
        ]

    def keeps(self) -> float:
        """The weight of the state in the next state: 1 keeps it. 0 without a NACCell."""
        if not isinstance(self.cell, NACCell):
            return 0.0
        with torch.no_grad():
            return float(reference.weight(self.cell.nac.W_hat, self.cell.nac.M_hat)[0, -1])


def _answer(task: str, programs: Tensor) -> Tensor:
    """What an Interpreter is to answer."""
    worth = values(task, programs)
    return (worth.log() if task == PRODUCTS else worth).float()


class Programs(Experiment):
    name = "programs"
    title = "sums, differences and products read a character at a time, longer in the test"
    source = "Trask et al. 2018, section 4.4"
    differs = (
        "Arithmetic on two-digit numbers only, no programs with "
        "variables or control flow. The cells take in learned features of the LSTM "
        "at each character. Lengths, sizes and learning rates are this module's: those of the "
        "paper could not be sourced. Adam, the mean absolute error as loss (for products that of "
        "the logarithm, for all models)."
    )
    small = Scale(seeds=3, steps=3000)
    full = Scale(seeds=10, steps=30_000)
    models, tasks = MODELS, tuple(OPERATORS)

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        model, task, seed = trial
        terms = TRAINED[task]
        usual = _answer(task, programs(generator(self.name, task, "scale"), task, (5000,), terms))
        mean, spread = float(usual.mean()), float(usual.std())
        network = build(
            lambda: Interpreter(model, task, mean, spread),
            training.device,
            *(self.name, model, task, seed),
        )
        source = generator(self.name, task, "data", seed)

        def draw(count: int) -> Tensor:
            return programs(source, task, (count, _BATCH), terms)

        def loss(drawn: Tensor) -> Tensor:
            return F.l1_loss(network(drawn), _answer(task, drawn))

        training.fit(network, network.groups(), draw, loss, settings.steps, source=source)
        error: dict[str, float] = {}
        right: dict[str, float] = {}
        for length in LENGTHS[task]:
            tests = programs(
                generator(self.name, task, "test", seed, length), task, (_TEST,), length
            )
            tests = tests.to(training.device)
            with torch.no_grad():
                answers = network(tests)[:, -1].double()
            worth = values(task, tests)[:, -1]
            off = (answers.exp() / worth - 1 if task == PRODUCTS else answers - worth).abs()
            error[str(length)] = float(off.mean())
            right[str(length)] = float((off < (NEAR if task == PRODUCTS else 0.5)).double().mean())
        return {"error": error, "right": right, "keeps": network.keeps()}

    def _medians(self, outcome: Outcome, model: str, task: str, metric: str) -> list[float]:
        """Over the seeds, at each length."""
        found = outcome.values(metric, model=model, task=task)
        return [median([row[str(length)] for row in found]) for length in LENGTHS[task]]

    def table(self, outcome: Outcome) -> list[str]:
        widths = (-14, *[17] * 5)
        lines = ["median over the seeds of the mean absolute error, and how many answers are right"]
        for task in outcome.tasks:
            what = f"off by less than {NEAR:.0%}" if task == PRODUCTS else "right when rounded"
            error = "relative error" if task == PRODUCTS else "error"
            rows = [["model", *(f"{n} terms" for n in LENGTHS[task])]]
            for model in outcome.models:
                pairs = zip(
                    self._medians(outcome, model, task, "error"),
                    self._medians(outcome, model, task, "right"),
                    strict=True,
                )
                rows.append([model, *(f"{number(off)} ({share:.0%})" for off, share in pairs)])
            lines += ["", f"{task}, trained on up to {TRAINED[task]}: {error} ({what})"]
            lines += columns(rows, widths)
        return lines

    def claims(self, outcome: Outcome) -> list[str]:
        claims = []
        for task in outcome.tasks:
            longest = str(LENGTHS[task][-1])
            errors = {
                model: [row[longest] for row in outcome.values("error", model=model, task=task)]
                for model in outcome.models
            }
            for model in errors:
                if model == "LSTM" or "LSTM" not in errors:
                    continue
                better = [
                    ours < lstm / 2
                    for ours, lstm in zip(errors[model], errors["LSTM"], strict=True)
                ]
                claims.append(
                    f"{task}, {longest} terms: {model} errs less than half as much as the "
                    f"LSTM alone: {how_often(better)}; median error "
                    f"{number(median(errors[model]))} against {number(median(errors['LSTM']))}"
                )
            if "LSTM + NAC" in errors:
                kept = outcome.values("keeps", model="LSTM + NAC", task=task)
                claims.append(
                    f"{task}: weight of the NACCell's state (1 keeps it): "
                    + ", ".join(f"{weight:.5f}" for weight in kept)
                )
        return claims

    def compare(self, outcome: Outcome) -> list[Comparison]:
        return [
            Comparison(
                f"{task} of {length} terms, {model}, mean "
                + ("relative error" if task == PRODUCTS else "absolute error"),
                number(errors[LENGTHS[task].index(length)]),
                "",
                "",
            )
            for task in outcome.tasks
            for length in (TRAINED[task], LENGTHS[task][-1])
            for model in outcome.models
            for errors in [self._medians(outcome, model, task, "error")]
        ]

    def draw(self, figure: Any, outcome: Outcome) -> None:
        panels = figure.subplots(1, len(outcome.tasks), squeeze=False)[0]
        for axes, task in zip(panels, outcome.tasks, strict=True):
            lengths = LENGTHS[task]
            axes.axvspan(lengths[0] * 0.8, TRAINED[task], color="0.92", zorder=0)
            for model in outcome.models:
                for index, errors in enumerate(outcome.values("error", model=model, task=task)):
                    axes.plot(
                        lengths,
                        [min(max(errors[str(length)], 1e-4), 1e6) for length in lengths],
                        color=colour(model),
                        lw=1,
                        marker="o",
                        ms=3,
                        label=None if index else model,
                    )
            axes.set(
                title=task,
                xlabel="factors" if task == PRODUCTS else "terms",
                ylabel=f"mean {'relative' if task == PRODUCTS else 'absolute'} error",
                xscale="log",
                yscale="log",
                xlim=(lengths[0] * 0.8, lengths[-1] * 1.2),
            )
            axes.set_xticks(lengths, [str(length) for length in lengths])
            axes.minorticks_off()
        figure.axes[0].legend(fontsize=7, loc="upper left")


EXPERIMENT = Programs()
