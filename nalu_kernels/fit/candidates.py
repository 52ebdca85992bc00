"""The stacks that a search trains, and how.

The settings were chosen on the laws that ``python -m benchmarks.fit`` draws from seeds below 1000.
"""

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

    Raises:
        ValueError: no layer, one of another name, or no hidden output.
    """

    layers: tuple[str, ...]
    hidden: int = 1
    lr: float = 0.02
    optimizer: str = "adam"
    loss: str = "l1"
    batch: int = 16
    clip_norm: float = 1.0
    seeds: int = 64
    steps: int = 1000

    def __post_init__(self) -> None:
        if not self.layers or not set(self.layers) <= set(LAYERS):
            raise ValueError(f"layers: expected some of {list(LAYERS)}, got {self.layers}")
        if self.hidden < 1:
            raise ValueError(f"hidden: expected at least 1, got {self.hidden}")

    @property
    def name(self) -> str:
        """Such as "NAU, NMU of 3"."""
        names = ", ".join(self.layers)
        return f"{names} of {self.hidden}" if len(self.layers) > 1 else names

    @property
    def complexity(self) -> int:
        """Outputs of all layers, and two for each layer. So of stacks with an equal error that
        with fewer layers comes first, and of these that with fewer hidden numbers."""
        return 2 * len(self.layers) + self.hidden * (len(self.layers) - 1) + 1

    @property
    def multiplies_last(self) -> bool:
        """Whether the last layer's weights are exponents of hidden numbers. Else they are
        coefficients, of hidden numbers or, of one layer, of its output."""
        return len(self.layers) > 1 and self.layers[-1] != "NAU"

    def shapes(self, inputs: int) -> list[tuple[str, int, int]]:
        """(layer, inputs, outputs) of each layer."""
        sizes = [inputs, *[self.hidden] * (len(self.layers) - 1), 1]
        return list(zip(self.layers, sizes[:-1], sizes[1:], strict=True))

    def stack(self, inputs: int) -> nn.Sequential:
        """The stack in float64. What it models is a factor times its output."""
        return nn.Sequential(
            *(LAYERS[name](i, o, dtype=torch.float64) for name, i, o in self.shapes(inputs))
        )

    def trained(self, inputs: int) -> nn.Sequential:
        """What is trained in its place, in float32: the stack and the factor, on columns and
        targets near 1 in size.

        The weights of a NAU behind products take up what their columns were divided by. So a
        Linear without bias stands for a NAU that is not the first, and one of a single number for
        the factor.
        """
        layers: list[nn.Module] = []
        for name, i, o in self.shapes(inputs):
            linear = layers and name == "NAU"
            layers.append(nn.Linear(i, o, bias=False) if linear else LAYERS[name](i, o))
        if not isinstance(layers[-1], nn.Linear):
            layers.append(nn.Linear(1, 1, bias=False))
        return nn.Sequential(*layers)


# Sums, products and quotients; products and quotients of sums; sums of products and quotients; one
# more level of both. From the simplest on, as a search trains them.
CANDIDATES: tuple[Candidate, ...] = (
    Candidate(("NAU",)),
    Candidate(("RealNPU",)),
    Candidate(("NAU", "RealNPU"), 2),
    Candidate(("RealNPU", "NAU"), 2),
    Candidate(("NAU", "NMU"), 4),
    Candidate(("NAU", "RealNPU"), 4),
    Candidate(("RealNPU", "NAU"), 4),
    Candidate(("NAU", "RealNPU"), 6),
    Candidate(("RealNPU", "NAU"), 6),
    Candidate(("NAU", "RealNPU", "NAU"), 5),
    Candidate(("RealNPU", "NAU", "RealNPU"), 5),
)
