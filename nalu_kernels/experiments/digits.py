"""Counting and adding handwritten digits, far more of them than in training.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.2, MNIST counting and
arithmetic. A sequence of 10 images of digits is shown; known in training is only how often each
digit was in it ("count", a vector of 10) or only the sum of the digits ("sum"). The test is on
images that were never seen, in sequences of 10, 100 and 1,000.

A small convolutional network reads each image into ten numbers, and a recurrent network takes them
in, one image at a time: a NACCell or NALUCell, whose last state is the answer, or torch's LSTM or
RNN of 32 units with a linear readout. The readouts' answers are scaled to the mean and spread of
the answers in training: without that they do not learn in so few steps; the cells need none. The
features are bounded, by a softmax for counting and by sigmoids for sums: with free ones, the last
image alone can make up the mean answer, and then the state is never needed. The cells begin with
states that are mostly kept (weights of 0.85 on themselves, 0 on the others, an idea of Le, Jaitly
and Hinton 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units");
otherwise some digits are never counted. The NALUCell has an eps of 0.01 and weights of their own
for the product: with the paper's 1e-7, features near 0 make factors that overflow within a few
images.

The images are scikit-learn's 1,797 of 8 x 8 pixels, or MNIST's own files by ``--data``. Where a set
has no test part of its own, a fifth of it is, chosen anew for each seed.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NAC, NALU, NACCell, NALUCell, reference

from . import idx
from .experiment import Comparison, Experiment, Outcome, Scale, Settings, Trial
from .plot import colour
from .refusal import Refusal, folder_name, optional
from .report import best, columns, how_often, median, number
from .sequences import Baseline, last_state
from .training import FORGETS, Group, Training, build, generator, hill, saturate

COUNT, SUM = TASKS = ("count", "sum")
MODELS = ("NAC", "NALU", "LSTM", "RNN")
CONSTANT = "constant"  # what always answers the mean of the training set, times the length
TRAINED, LENGTHS = 10, (10, 100, 1000)
_CLASSES, _FEATURES, _UNITS, _CHANNELS = 10, 10, 32, 8
_BATCH, _TEST = 32, 200
_EPS = 0.01  # of the NALUCell
_CELL_RATES = {COUNT: 1.0, SUM: 10.0}
_KEPT = 2.0  # W_hat and M_hat of a state's own weight at first: tanh(2) sigmoid(2) = 0.85


class Images(NamedTuple):
    """images (count, 1, side, side) in [0, 1], labels (count,), which are for what, and whose."""

    images: Tensor
    labels: Tensor
    training: Tensor
    unseen: Tensor
    name: str


def load_images(folder: str | None, seed: int) -> Images:
    """scikit-learn's digits, or MNIST's in ``folder``."""
    if folder is None:
        bundled = optional("sklearn.datasets").load_digits()
        images = torch.tensor(bundled.images, dtype=torch.float32) / 16
        labels = torch.tensor(bundled.target, dtype=torch.int64)
        sizes = [len(labels)]
        name = "scikit-learn's"
    else:
        parts = idx.load(Path(folder))
        images = torch.cat([part.images for part in parts.values()]).float() / 255
        labels = torch.cat([part.labels for part in parts.values()]).long()
        sizes = [len(part.labels) for part in parts.values()]
        name = f"files of MNIST's form, {' and '.join(parts)} part"
    order = torch.arange(len(labels))
    if len(sizes) == 1:
        order = torch.randperm(len(labels), generator=generator("digits", "split", seed))
        sizes = [4 * len(labels) // 5, len(labels) - 4 * len(labels) // 5]
    training, unseen = order.split(sizes)
    if len(training) < 2 or not len(unseen):
        raise Refusal(f"--data {folder}: too few images: {len(labels)}")
    if images.shape[1] != images.shape[2]:
        raise Refusal(f"--data {folder}: expected square images, got {tuple(images.shape[1:])}")
    return Images(images[:, None], labels, training, unseen, name)


class Reader(nn.Sequential):
    """(images, 1, side, side) to (images, features)."""

    def __init__(self, task: str, side: int) -> None:
        wide, left = 2 * _CHANNELS, (side + 3) // 4
        super().__init__(
            nn.Conv2d(1, _CHANNELS, 3, stride=2, padding=1),
            nn.BatchNorm2d(_CHANNELS),
            nn.ReLU(),
            nn.Conv2d(_CHANNELS, wide, 3, stride=2, padding=1),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(wide * left * left, _FEATURES),
            nn.Softmax(dim=1) if task == COUNT else nn.Sigmoid(),
        )


class Counter(nn.Module):
    """A cell of this library over the features; its last state is the answer."""

    def __init__(self, model: str, answers: int) -> None:
        super().__init__()
        self.cell: NACCell | NALUCell
        if model == "NAC":
            self.cell = NACCell(_FEATURES, answers)
        else:
            self.cell = NALUCell(_FEATURES, answers, eps=_EPS, tied=False)
        self._begin_by_keeping()

    @property
    def layer(self) -> NAC | NALU:
        return self.cell.nac if isinstance(self.cell, NACCell) else self.cell.nalu

    @torch.no_grad()
    def _begin_by_keeping(self) -> None:
        """Every state's weight on itself starts near 1, on the others at 0."""
        for name, parameter in self.layer.named_parameters():
            if name != "G":
                states = parameter[:, _FEATURES:]
                states.zero_().diagonal().fill_(_KEPT)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, length, features) to (batch, answers)."""
        return last_state(self.cell, features)

    def keeps(self) -> list[float]:
        """For each answer, the weight of its state in its next state: 1 keeps it."""
        with torch.no_grad():
            W = reference.weight(self.layer.W_hat, self.layer.M_hat)
        return W[:, _FEATURES:].diagonal().tolist()


class Network(nn.Module):
    """Reads each image, and lets an accumulator take them in one after another."""

    def __init__(self, reader: Reader, accumulator: Counter | Baseline) -> None:
        super().__init__()
        self.reader, self.accumulator = reader, accumulator

    def forward(self, images: Tensor) -> Tensor:
        """(batch, length, 1, side, side) to (batch, answers)."""
        features = self.reader(images.flatten(0, 1))
        answer: Tensor = self.accumulator(features.view(*images.shape[:2], _FEATURES))
        return answer

    def groups(self, task: str) -> list[Group]:
        """The parameters and their learning rates."""
        if isinstance(self.accumulator, Baseline):
            return [Group(self.parameters(), 0.01, hill)]
        # In the end, long strides carry the cell's weights all the way to 0 or 1, where tanh and
        # sigmoid are flat and a state is kept without loss.
        return [
            Group(self.reader.parameters(), 0.01, hill),
            Group(self.accumulator.parameters(), _CELL_RATES[task], saturate, FORGETS),
        ]


class DigitsExperiment(Experiment):
    name = "digits"
    title = "counting and adding handwritten digits, tested on sequences of up to 1,000"
    source = "Trask et al. 2018, section 4.2"
    differs = (
        "The paper's figures could not be sourced. By default the images are scikit-learn's; of "
        "MNIST's files whatever part is there: if only one, a fifth of it, chosen anew for each "
        "seed, is for the test. The convolutional network is small and its features are bounded, "
        "the cells begin by keeping their states, and their weights have a learning rate of their "
        "own that ends large, without which they do not come to 1. The loss is the mean absolute "
        "error."
    )
    small = Scale(seeds=3, steps=1500)
    full = Scale(seeds=10, steps=20_000)
    requires = ("sklearn",)
    models, tasks, yardstick = MODELS, TASKS, CONSTANT

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--data",
            type=folder_name,
            metavar="DIR",
            help="folder with MNIST's files, such as t10k-images-idx3-ubyte.gz, or with the "
            "MNIST/raw that torchvision makes (default: scikit-learn's digits)",
        )

    def check(self, settings: Settings) -> None:
        load_images(settings.options["data"], 0)

    def describe(self, settings: Settings) -> dict[str, Any]:
        data = load_images(settings.options["data"], 0)
        side = data.images.shape[-1]
        digest = hashlib.sha256(data.images.numpy().tobytes() + data.labels.numpy().tobytes())
        return {
            "images": f"{data.name}, {side} x {side}, {len(data.training):,} to train and "
            f"{len(data.unseen):,} to test",
            "digest": digest.hexdigest()[:12],
        }

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        model, task, seed = trial
        data = load_images(settings.options["data"], seed)
        target = data.labels.float()[:, None]
        if task == COUNT:
            target = F.one_hot(data.labels, _CLASSES).float()
        device = training.device
        images, target = data.images.to(device), target.to(device)
        mean = TRAINED * target[data.training].mean(dim=0)
        spread = TRAINED**0.5 * target[data.training].std(dim=0)

        def make() -> Network:
            accumulator = (
                Baseline(getattr(nn, model)(_FEATURES, _UNITS, batch_first=True), mean, spread)
                if model in ("LSTM", "RNN")
                else Counter(model, target.shape[1])
            )
            return Network(Reader(task, images.shape[-1]), accumulator)

        network = None
        if model != CONSTANT:
            network = build(make, device, self.name, model, task, seed)
            source = generator(self.name, "sequences", seed)

            def draw(count: int) -> Tensor:
                return _sequences(source, data.training, (count, _BATCH), TRAINED)

            def loss(drawn: Tensor) -> Tensor:
                return F.l1_loss(network(images[drawn]), target[drawn].sum(dim=1))

            training.fit(network, network.groups(task), draw, loss, settings.steps, source=source)
        return self._test(network, data, images, target, mean, seed)

    def _test(
        self,
        network: Network | None,
        data: Images,
        images: Tensor,
        target: Tensor,
        mean: Tensor,
        seed: int,
    ) -> dict[str, Any]:
        """The mean absolute error for each length, and what weight the cell gives its state."""
        errors: dict[str, float] = {}
        with torch.no_grad():
            if network is not None:
                network.eval()
                # Each image is read once, however often it comes.
                features = torch.cat([network.reader(part) for part in images.split(1000)])
            for length in LENGTHS:
                source = generator(self.name, "test", seed, length)
                drawn = _sequences(source, data.unseen, (_TEST,), length).to(images.device)
                answer = (
                    network.accumulator(features[drawn])
                    if network is not None
                    else mean * (length / TRAINED)
                )
                errors[str(length)] = float((answer - target[drawn].sum(dim=1)).abs().mean())
        counter = network.accumulator if network is not None else None
        return {"error": errors, "keeps": counter.keeps() if isinstance(counter, Counter) else []}

    def _errors(self, outcome: Outcome, model: str, task: str, length: int) -> list[float]:
        return [row[str(length)] for row in outcome.values("error", model=model, task=task)]

    def table(self, outcome: Outcome) -> list[str]:
        lengths = [f"{length:,} digits" for length in LENGTHS]
        rows = [["", "", *(cell for name in lengths for cell in (name, ""))]]
        rows.append(["task", "model", *("median", "best") * len(LENGTHS)])
        models, tasks = self.ran(outcome)
        for task in tasks:
            for place, model in enumerate((*models, CONSTANT)):
                row = ["" if place else task, model]
                for length in LENGTHS:
                    errors = self._errors(outcome, model, task, length)
                    row += [number(median(errors)), number(best(errors))]
                rows.append(row)
        return [
            f"handwritten digits, trained on sequences of {TRAINED}; unseen images; mean absolute "
            "error of a count",
            "(of one digit) or of the sum; constant: the training set's mean, times the length",
            "",
            *columns(rows, (-7, -10, 13, 10, 14, 10, 14, 10)),
        ]

    def claims(self, outcome: Outcome) -> list[str]:
        claims = []
        models, tasks = self.ran(outcome)
        for task in tasks:
            for length in LENGTHS:
                fixed = self._errors(outcome, CONSTANT, task, length)
                found = []
                for model in models:
                    errors = self._errors(outcome, model, task, length)
                    better = [ours < other for ours, other in zip(errors, fixed, strict=True)]
                    found.append(f"{model} {how_often(better)}")
                claims.append(f"{task} of {length:,}, better than the constant: {'; '.join(found)}")
            for model in models:
                if model not in ("NAC", "NALU"):
                    continue
                kept = [
                    max(weights, key=lambda weight: abs(1 - weight))
                    for weights in outcome.values("keeps", model=model, task=task)
                ]
                claims.append(
                    f"{task}: weight of {model}'s state in its next state (1 keeps it; of each "
                    "seed the one furthest from it): "
                    + ", ".join(f"{weight:.5f}" for weight in kept)
                )
        return claims

    def compare(self, outcome: Outcome) -> list[Comparison]:
        models, tasks = self.ran(outcome)
        return [
            Comparison(
                f"{task} of {length:,}, {model}: mean absolute error",
                number(median(self._errors(outcome, model, task, length))),
                "",
                "",
            )
            for task in tasks
            for length in LENGTHS
            for model in models
        ]

    def draw(self, figure: Any, outcome: Outcome) -> None:
        models, tasks = self.ran(outcome)
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            for model in (*models, CONSTANT):
                style = {"color": colour(model), "ls": ":" if model == CONSTANT else "-"}
                curves = outcome.values("error", model=model, task=task)
                for curve in curves:
                    errors = [min(curve[str(length)], 1e6) for length in LENGTHS]
                    axes.plot(LENGTHS, errors, lw=0.7, alpha=0.5, marker="o", ms=2, **style)
                middle = [min(median([c[str(n)] for c in curves]), 1e6) for n in LENGTHS]
                axes.plot(LENGTHS, middle, lw=1.6, label=model, **style)
            axes.set(
                title=f"{task} of handwritten digits",
                xlabel=f"digits in a sequence ({TRAINED} in training)",
                ylabel="mean absolute error",
                xscale="log",
                yscale="log",
            )
            axes.set_xticks(LENGTHS, [f"{length:,}" for length in LENGTHS])
            axes.minorticks_off()
        figure.axes[0].legend(fontsize=7)


def _sequences(
    source: torch.Generator, images: Tensor, count: tuple[int, ...], length: int
) -> Tensor:
    """Indices (*count, length) drawn from ``images`` (indices too), with replacement."""
    return images[torch.randint(len(images), (*count, length), generator=source)]


EXPERIMENT = DigitsExperiment()
