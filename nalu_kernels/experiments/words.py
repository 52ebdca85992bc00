"""Numbers in words: "three hundred and thirty-four" and 334.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.3, language to number
translation. Of the numbers below 1,000, 169 are for training (0 to 19 among them, and every word
that there is), 200 for validation and 631 for the test. An embedding of the words feeds an LSTM,
and a layer answers from its state after the last word: a linear one, a NAC or a NALU. The linear
layer's answers are scaled to the mean and the spread of the training set ("LSTM"), or are not
("LSTM, unscaled"): then its weights have a long way to go from -0.2 to 0.2 to hundreds. A NALU's
answers are not, or are ("LSTM + NALU, scaled"): of states between -1 and 1 only its product can
make hundreds, and that fits the examples without their rule.

What the field reports below 1 has no LSTM: a layer over two neighbouring words, and the sum of its
answers to all pairs ("pairs + NALU"; a start before the first word makes a pair with it). The sum
has the rule built in: "three" before another word is worth 297 and as the last one 3. So a linear
layer ("pairs + Linear") is the one to compare it with.

The weights of the step with the smallest mean absolute error on the validation set are the ones
that are tested. The NAC cannot answer more than the number of the LSTM's units: these are between
-1 and 1, and so are its weights.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NAC, NALU

from .experiment import Comparison, Experiment, Outcome, Scale, Settings, Trial
from .plot import colour
from .refusal import optional
from .report import best, columns, how_often, median, number
from .training import Group, Training, build, fall, generator

UNSCALED = "LSTM, unscaled"
SCALED = "LSTM + NALU, scaled"
PAIRS = ("pairs + Linear", "pairs + NALU")
MODELS = ("LSTM", UNSCALED, "LSTM + NAC", "LSTM + NALU", SCALED, *PAIRS)
TASK = "words to numbers"
NUMBERS = 1000
PARTS = {"train": 169, "validation": 200, "test": 631}
ALWAYS = 20  # the numbers below are all in the training set
_EMBEDDED, _UNITS = 32, 32
_SMALL = 0.1  # the spread of the initial embedding
_EVERY = 25  # steps between two looks at the validation set


def split_words(text: str) -> list[str]:
    return re.split("[ -]", text)


class Vocabulary(NamedTuple):
    """Every number in words."""

    words: list[str]
    tokens: Tensor  # (numbers, most words): places in ``words``, 0 after the last
    lengths: Tensor  # (numbers,): how many words


def vocabulary() -> Vocabulary:
    spell = optional("num2words").num2words
    texts = [split_words(spell(value, lang="en")) for value in range(NUMBERS)]
    words = sorted({word for text in texts for word in text})
    tokens = [torch.tensor([words.index(word) for word in text]) for text in texts]
    lengths = torch.tensor([len(text) for text in texts])
    return Vocabulary(words, nn.utils.rnn.pad_sequence(tokens, batch_first=True), lengths)


def split(source: torch.Generator, numbers: Vocabulary) -> dict[str, Tensor]:
    """The numbers of each part, drawn again until every word is in the training set."""
    while True:
        rest = torch.randperm(NUMBERS - ALWAYS, generator=source) + ALWAYS
        order = torch.cat((torch.arange(ALWAYS), rest))
        parts = dict(zip(PARTS, order.split([*PARTS.values()]), strict=True))
        chosen = parts["train"].tolist()
        seen = {
            int(token)
            for value in chosen
            for token in numbers.tokens[value, : int(numbers.lengths[value])]
        }
        if len(seen) == len(numbers.words):
            return parts


class Translator(nn.Module):
    """From words to a number.

    Args:
        mean, spread: of the numbers in the training set, to which the models "LSTM" and SCALED are
            scaled.
    """

    def __init__(self, model: str, words: int, mean: float, spread: float) -> None:
        super().__init__()
        self.mean, self.spread = (mean, spread) if model in ("LSTM", SCALED) else (0.0, 1.0)
        self.embedding = nn.Embedding(words, _EMBEDDED)
        nn.init.normal_(self.embedding.weight, std=_SMALL)
        self.lstm = nn.LSTM(_EMBEDDED, _UNITS, batch_first=True)
        self.layer: nn.Module = nn.Linear(_UNITS, 1)
        if model == "LSTM + NAC":
            self.layer = NAC(_UNITS, 1)
        elif model in ("LSTM + NALU", SCALED):
            self.layer = NALU(_UNITS, 1)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """(numbers, words) to (numbers,)."""
        states = self.lstm(self.embedding(tokens))[0]
        last = states[torch.arange(len(tokens), device=tokens.device), lengths - 1]
        answer: Tensor = self.layer(last)[:, 0]
        return self.mean + self.spread * answer


class Pairs(nn.Module):
    """From words to a number: the sum of a layer's answers to all pairs of neighbours."""

    def __init__(self, model: str, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words + 1, _EMBEDDED)  # the last is the start
        nn.init.normal_(self.embedding.weight, std=_SMALL)
        self.layer: nn.Module = nn.Linear(2 * _EMBEDDED, 1)
        if model == "pairs + NALU":
            self.layer = NALU(2 * _EMBEDDED, 1, tied=False)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """(numbers, words) to (numbers,)."""
        words = self.embedding(F.pad(tokens, (1, 0), value=self.embedding.num_embeddings - 1))
        answers = self.layer(torch.cat((words[:, :-1], words[:, 1:]), dim=2))[:, :, 0]
        there = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return (answers * there).sum(dim=1)


def translator(model: str, words: int, mean: float, spread: float) -> Translator | Pairs:
    if model in PAIRS:
        return Pairs(model, words)
    return Translator(model, words, mean, spread)


class Best:
    """The answers to all numbers at the step with the smallest error on the validation set."""

    def __init__(self) -> None:
        self.error = math.inf
        self.step = -1
        self.answers = torch.full((NUMBERS,), math.nan)

    def see(self, step: int, error: float, answers: Tensor) -> None:
        if error < self.error:
            self.step, self.error, self.answers = step, error, answers

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Words(Experiment):
    name = "words"
    title = "numbers in words to numbers, from 169 examples"
    source = "Trask et al. 2018, section 4.3"
    differs = (
        "The numbers are 0 to 999, which is what the three parts add up to; the paper says 0 to "
        "1000. The words are num2words'. An embedding and an LSTM of 32 units, where the paper's "
        "authors remember 256 and 10 (in letters in the repository of Madsen and Johansen's 2020 "
        "paper); the embedding starts small, with a tenth of torch's spread, which all models are "
        "better with. A NAC cannot answer more than the number of units, 32: they and its weights "
        "are within -1 and 1. The sum over pairs of words is a public replica's, untied as there, "
        "with a start before the first word where theirs has an end after the last. Adam with "
        "learning rates that fall from 0.01, on the whole training set; the loss is the mean "
        "absolute error."
    )
    small = Scale(seeds=3, steps=7000)
    full = Scale(seeds=10, steps=30_000)
    requires = ("num2words",)
    models, tasks = MODELS, (TASK,)

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        numbers = vocabulary()
        parts = split(generator(self.name, "split", trial.seed), numbers)
        tokens, lengths = numbers.tokens.to(training.device), numbers.lengths.to(training.device)
        truth = torch.arange(NUMBERS, dtype=torch.float32, device=training.device)
        chosen, validation = (parts[part].to(training.device) for part in ("train", "validation"))
        mean, spread = float(truth[chosen].mean()), float(truth[chosen].std())
        network = build(
            lambda: translator(trial.model, len(numbers.words), mean, spread),
            training.device,
            *(self.name, trial.model, trial.seed),
        )
        kept = Best()

        def draw(count: int) -> Tensor:
            return chosen.expand(count, -1)  # all of them at every step

        def loss(batch: Tensor) -> Tensor:
            return F.l1_loss(network(tokens[batch], lengths[batch]), truth[batch])

        def after(step: int) -> None:
            if (step + 1) % _EVERY == 0 or step + 1 == settings.steps:
                with torch.no_grad():
                    answers = network(tokens, lengths)
                off = (answers - truth)[validation].abs().mean()
                kept.see(step + 1, float(off), answers.cpu())

        groups = [Group(network.parameters(), 0.01, fall)]
        training.fit(network, groups, draw, loss, settings.steps, after=after, kept=kept)
        off = (kept.answers - truth.cpu()).abs()
        return {
            **{part: float(off[members].mean()) for part, members in parts.items()},
            "right": float((off[parts["test"]] < 0.5).double().mean()),
            "step": kept.step,
            "answers": [[value, float(kept.answers[value])] for value in parts["test"].tolist()],
        }

    def table(self, outcome: Outcome) -> list[str]:
        rows = [["model", *PARTS, "best seed's test", "right", "step kept"]]
        for model in outcome.models:
            found = {
                metric: outcome.values(metric, model=model, task=TASK)
                for metric in (*PARTS, "right", "step")
            }
            rows.append(
                [
                    model,
                    *(number(median(found[part])) for part in PARTS),
                    number(best(found["test"])),
                    f"{median(found['right']):.0%}",
                    f"{median(found['step']):.0f}",
                ]
            )
        return [
            "numbers in words: mean absolute error, median of seeds; right: test answers that "
            "round to the number",
            "",
            *columns(rows, (-20, 11, 13, 11, 18, 9, 12)),
        ]

    def claims(self, outcome: Outcome) -> list[str]:
        tests = {model: outcome.values("test", model=model, task=TASK) for model in outcome.models}
        claims = []
        pairs = [("LSTM + NAC", "LSTM"), ("LSTM + NAC", UNSCALED), ("LSTM + NALU", "LSTM")]
        pairs += [("LSTM + NALU", UNSCALED), (SCALED, "LSTM"), PAIRS[::-1]]
        for model, linear in pairs:
            if not {model, linear} <= tests.keys():
                continue
            better = [
                ours < theirs for ours, theirs in zip(tests[model], tests[linear], strict=True)
            ]
            claims.append(
                f"test error of {model} below that of {linear}: {how_often(better)}; medians "
                f"{number(median(tests[model]))} and {number(median(tests[linear]))}"
            )
        for model in ("LSTM + NALU", SCALED, *PAIRS):
            if model in tests:
                within = [error < 1 for error in tests[model]]
                claims.append(f"{model} off by less than 1 on the test: {how_often(within)}")
        return claims

    def compare(self, outcome: Outcome) -> list[Comparison]:
        replica = "README of nkarasovd/Neural_Arithmetic_Logic_Units; one run, of {}"
        published = {
            UNSCALED: ("140.4769", replica.format("an LSTM of 32 units, squared error")),
            "pairs + NALU": (
                "0.7218",
                replica.format(
                    "a NALU summed over pairs of neighbouring words, squared error, the epoch "
                    "chosen by the test"
                ),
            ),
        }
        return [
            Comparison(
                f"{model}, mean absolute error on the test",
                number(median(outcome.values("test", model=model, task=TASK))),
                *published.get(model, ("", "")),
            )
            for model in outcome.models
        ]

    def draw(self, figure: Any, outcome: Outcome) -> None:
        models = outcome.models
        across = min(len(models), 4)
        shape = -(-len(models) // across), across
        grid = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        panels, spare = grid.ravel()[: len(models)], grid.ravel()[len(models) :]
        for axes in spare:
            axes.remove()
        for axes, model in zip(panels, models, strict=True):
            axes.plot([0, NUMBERS], [0, NUMBERS], color="0.6", lw=0.8)
            for answers in outcome.values("answers", model=model, task=TASK):
                truth, found = zip(*answers, strict=True)
                axes.scatter(truth, found, s=3, lw=0, alpha=0.4, color=colour(model))
            error = median(outcome.values("test", model=model, task=TASK))
            axes.set(
                title=f"{model}:\noff by {number(error)}",
                xlim=(0, NUMBERS),
                ylim=(-100, 1100),
            )
        figure.supxlabel("number, of the test set", fontsize=8)
        figure.supylabel("answer, all seeds", fontsize=8)


EXPERIMENT = Words()
