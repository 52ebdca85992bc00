"""Adding up handwritten digits from the sum alone, and ten times as many as in training.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.2, the digit addition task,
in small: scikit-learn's 1,797 bundled images of 8 x 8 pixels stand for MNIST. A convolutional
network reads each image of a sequence into ten numbers between 0 and 1, an accumulator takes them
one image at a time, and only the sum of the 10 digits is known in training. The test is on images
that were never seen, in sequences of 10 and of 100.

NAC: the state h becomes NAC([h, features]), and h after the last image is the answer; h is kept
without loss where its own weight is exactly 1, which nothing but training can bring about. Bounded
features matter: with free ones, the last image alone can answer the mean sum, and then the state
is never needed.
LSTM: 32 units and a linear readout, with its output scaled to the training sums' mean and spread
(without that it does not learn in so few steps; NAC needs none).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NAC

from .report import best, columns, how_often, median, number
from .toolkit import (
    Group,
    Progress,
    Result,
    Settings,
    batches,
    build,
    generator,
    hill,
    optional,
    train,
    warm_up,
)

LENGTH, LONG = 10, 100
MODELS = ("NAC", "LSTM")
_FEATURES, _UNITS, _CHANNELS = 10, 32, 8
_TRAINING_IMAGES = 1437  # four fifths; the other 360 are for the tests
_BATCH, _TEST = 32, 200
_KEY = 3  # of this experiment's generators


class _Reader(nn.Sequential):
    """(images, 1, 8, 8) to (images, features)."""

    def __init__(self) -> None:
        wide = 2 * _CHANNELS
        super().__init__(
            nn.Conv2d(1, _CHANNELS, 3, stride=2, padding=1),
            nn.BatchNorm2d(_CHANNELS),
            nn.ReLU(),
            nn.Conv2d(_CHANNELS, wide, 3, stride=2, padding=1),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * wide, _FEATURES),
            nn.Sigmoid(),
        )


class _NACSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.nac = NAC(1 + _FEATURES, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, length, features) to (batch,)."""
        state = features.new_zeros(len(features), 1)
        for feature in features.unbind(dim=1):
            state = self.nac(torch.cat((state, feature), dim=1))
        return state[:, 0]

    def keeps(self) -> float:
        """The weight of the state in the next state: 1 keeps the sum."""
        with torch.no_grad():
            return float(self.nac(torch.eye(1 + _FEATURES, device=self.nac.W_hat.device))[0, 0])


class _LSTMSum(nn.Module):
    def __init__(self, mean: float, spread: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_FEATURES, _UNITS, batch_first=True)
        self.readout = nn.Linear(_UNITS, 1)
        self.mean, self.spread = mean, spread

    def forward(self, features: Tensor) -> Tensor:
        """(batch, length, features) to (batch,)."""
        last: Tensor = self.lstm(features)[0][:, -1]
        return self.mean + self.spread * self.readout(last)[:, 0]


class _Adder(nn.Module):
    """Reads each image and lets an accumulator add up."""

    def __init__(self, accumulator: _NACSum | _LSTMSum) -> None:
        super().__init__()
        self.reader = _Reader()
        self.accumulator = accumulator

    def forward(self, images: Tensor) -> Tensor:
        """(batch, length, 8, 8) to (batch,)."""
        batch, length = images.shape[:2]
        features = self.reader(images.flatten(0, 1)[:, None])
        total: Tensor = self.accumulator(features.view(batch, length, _FEATURES))
        return total


@dataclass
class Digits(Result):
    """Mean absolute errors of the sum of a sequence, ``errors[model][length]`` for each seed;
    "constant" always answers length times the mean digit of the training images. ``keeps``: the
    weight that the trained NAC gives its state, for each seed."""

    errors: dict[str, dict[str, list[float]]]
    keeps: list[float]

    def table(self) -> list[str]:
        lengths = (str(LENGTH), str(LONG))
        rows = [["model", *(f"{n} digits: {what}" for n in lengths for what in ("median", "best"))]]
        for model, errors in self.errors.items():
            cells = [number(take(errors[n])) for n in lengths for take in (median, best)]
            rows.append([model, *cells])
        return [
            f"sum of handwritten digits, trained on sums of {LENGTH}; unseen images; mean absolute "
            "error of a sum",
            "",
            *columns(rows, (-10, 20, 18, 20, 18)),
        ]

    def claims(self) -> list[str]:
        short, long = str(LENGTH), str(LONG)
        nac, lstm, fixed = (self.errors[name] for name in (*MODELS, "constant"))
        ratio = median(lstm[long]) / median(nac[long])

        def below(model: dict[str, list[float]], other: dict[str, list[float]], n: str) -> str:
            return how_often([a < b for a, b in zip(model[n], other[n], strict=True)])

        return [
            f"digit sums, better than a constant answer at length {LENGTH}: "
            f"NAC {below(nac, fixed, short)}; LSTM {below(lstm, fixed, short)}",
            f"digit sums, better than a constant answer at length {LONG}: "
            f"NAC {below(nac, fixed, long)}; LSTM {below(lstm, fixed, long)}",
            f"digit sums at length {LONG}, median error: NAC {number(median(nac[long]))}, "
            f"LSTM {number(median(lstm[long]))}, {number(ratio)} times NAC's",
            "weight of NAC's state after training (1 keeps the sum): "
            + ", ".join(f"{weight:.4f}" for weight in self.keeps),
        ]


def _sequences(
    source: torch.Generator, images: Tensor, count: tuple[int, ...], length: int
) -> Tensor:
    """Indices (*count, length) drawn from ``images`` (indices too), with replacement."""
    return images[torch.randint(len(images), (*count, length), generator=source)]


def _steps(settings: Settings) -> int:
    return max(1, settings.steps // 3)


def total_steps(settings: Settings) -> int:
    return _steps(settings) * len(MODELS) * settings.seeds


def _groups(adder: _Adder) -> list[Group]:
    reader = list(adder.reader.parameters())
    accumulator = list(adder.accumulator.parameters())
    if isinstance(adder.accumulator, _NACSum):
        # Long strides carry the NAC's weights all the way to 0 or 1, where tanh and sigmoid are
        # flat; the reader follows slowly, so that they settle first.
        return [Group(reader, 0.01, hill), Group(accumulator, 1.0, warm_up)]
    return [Group(reader + accumulator, 0.02, hill)]


def _train(
    model: str,
    seed: int,
    images: Tensor,
    labels: Tensor,
    chosen: Tensor,
    settings: Settings,
    progress: Progress,
) -> _Adder:
    sums = labels[_sequences(generator(_KEY, 1, seed), chosen, (1000,), LENGTH)].sum(dim=1)
    mean, spread = float(sums.mean()), float(sums.std())

    def make() -> _Adder:
        return _Adder(_NACSum() if model == "NAC" else _LSTMSum(mean, spread))

    adder = build(make, settings.device, _KEY, 2, seed)
    source = generator(_KEY, 3, seed)

    def loss(drawn: Tensor) -> Tensor:
        return F.mse_loss(adder(images[drawn]), labels[drawn].sum(dim=1))

    steps = _steps(settings)
    indices = batches(
        lambda count: _sequences(source, chosen, (count, _BATCH), LENGTH), steps, settings.device
    )
    train(_groups(adder), indices, loss, steps, progress)
    return adder.eval()


def run(settings: Settings, progress: Progress) -> Digits:
    """Trains and tests both models; each seed has its own split of the images."""
    bundled = optional("sklearn.datasets").load_digits()
    images = torch.tensor(bundled.images, dtype=torch.float32, device=settings.device) / 16
    labels = torch.tensor(bundled.target, dtype=torch.float32, device=settings.device)
    errors: dict[str, dict[str, list[float]]] = {
        name: {str(LENGTH): [], str(LONG): []} for name in (*MODELS, "constant")
    }
    keeps = []
    for seed in range(settings.seeds):
        order = torch.randperm(len(images), generator=generator(_KEY, 0, seed))
        chosen, unseen = order[:_TRAINING_IMAGES], order[_TRAINING_IMAGES:]
        tests = [
            _sequences(generator(_KEY, 4, seed, length), unseen, (_TEST,), length)
            for length in (LENGTH, LONG)
        ]
        for drawn in tests:
            truth = labels[drawn].sum(dim=1)
            fixed = labels[chosen].mean() * drawn.shape[1]
            errors["constant"][str(drawn.shape[1])].append(float((truth - fixed).abs().mean()))
        for model in MODELS:
            adder = _train(model, seed, images, labels, chosen, settings, progress)
            with torch.no_grad():
                for drawn in tests:
                    error = (adder(images[drawn]) - labels[drawn].sum(dim=1)).abs().mean()
                    errors[model][str(drawn.shape[1])].append(float(error))
            if isinstance(adder.accumulator, _NACSum):
                keeps.append(adder.accumulator.keeps())
    return Digits(errors, keeps)
