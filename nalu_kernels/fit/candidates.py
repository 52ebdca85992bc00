"""The stacks that a search trains, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..layers import NAU, NMU, RealNPU

LAYERS: dict[str, Any] = {"NAU": NAU, "NMU": NMU, "RealNPU": RealNPU}


@dataclass(frozen=True)
class Candidate:
    """A stack of one output, and the settings of its training.

    Args:
        layers: names from the input on, of :data:`LAYERS`.
        hidden: outputs of each layer but the last.
        lr, optimizer, loss, batch, clip_norm: as of :func:`nalu_kernels.sweep.run` and its runs.
        seeds, steps: of the first round.

    Attributes:
        name: such as "NAU, NMU of 3".
        complexity: outputs of all layers and twice the number of layers, so that of two stacks as
            good the one with fewer layers comes first, then that with fewer hidden numbers.
    """

    layers: tuple[str, ...]
    hidden: int = 1
    lr: float = 0.02
    optimizer: str = "adam"
    loss: str = "mse"
    batch: int = 64
    clip_norm: float = 1.0
    seeds: int = 64
    steps: int = 1000

    @property
    def name(self) -> str:
        names = ", ".join(self.layers)
        return f"{names} of {self.hidden}" if len(self.layers) > 1 else names

    @property
    def complexity(self) -> int:
        return 2 * len(self.layers) + self.hidden * (len(self.layers) - 1) + 1

    @property
    def adds_last(self) -> bool:
        """Whether the last layer's weights are coefficients, not exponents."""
        return self.layers[-1] == "NAU"

    def sizes(self, inputs: int) -> list[int]:
        """Of the input, and of each layer's output."""
        return [inputs, *[self.hidden] * (len(self.layers) - 1), 1]

    def stack(self, inputs: int) -> nn.Sequential:
        """The stack in float64. What it models is ``scale`` times its output."""
        sizes = self.sizes(inputs)
        pairs = zip(self.layers, sizes[:-1], sizes[1:], strict=True)
        return nn.Sequential(*(LAYERS[name](i, o, dtype=torch.float64) for name, i, o in pairs))

    def trained(self, inputs: int) -> nn.Sequential:
        """What is trained in its place, in float32: the same and a factor at the end. A NAU behind
        another layer is a Linear without bias, which is a NAU and a factor for each of its inputs.
        """
        sizes = self.sizes(inputs)
        layers = [
            LAYERS[name](i, o)
            for name, i, o in zip(self.layers, sizes[:-1], sizes[1:], strict=True)
        ]
        if len(layers) > 1 and self.adds_last:
            layers[-1] = nn.Linear(self.hidden, 1, bias=False)
        else:
            layers.append(nn.Linear(1, 1, bias=False))
        return nn.Sequential(*layers)


CANDIDATES: tuple[Candidate, ...] = (
    Candidate(("NAU",)),
    Candidate(("RealNPU",)),
    Candidate(("NAU", "RealNPU"), 2),
    Candidate(("RealNPU", "NAU"), 2),
    Candidate(("NAU", "RealNPU"), 3),
    Candidate(("RealNPU", "NAU"), 3),
    Candidate(("NAU", "NMU"), 3),
    Candidate(("NMU", "NAU"), 3),
    Candidate(("NAU", "RealNPU"), 4),
    Candidate(("RealNPU", "NAU"), 4),
)
