"""What is measured: layers, shapes, passes, and the speed that is needed."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

FORWARD, BACKWARD = "forward", "forward+backward"

# (B, I, O) of the shapes this field trains, and how many times faster than eager PyTorch a
# forward with its backward has to be there.
NEEDED = {
    (64, 2, 1): 3.0,
    (128, 100, 2): 3.5,
    (128, 100, 100): 2.2,
    (256, 512, 512): 1.15,
    (1024, 1024, 1024): 1.0,
}
# Nowhere on the grid may the library be slower than this part of the faster of eager PyTorch and
# torch.compile.
NEEDED_ON_GRID = 0.95
GRID = [
    (batch, *features)
    for batch, features in product(
        (1, 64, 1024), ((1, 1), (2, 1), (10, 10), (100, 1), (100, 100), (512, 64), (1024, 1024))
    )
]


class Case(NamedTuple):
    layer: str  # nalu, nalu untied, nac or log nac
    shape: tuple[int, int, int]  # B, I, O
    what: str = BACKWARD
    inner: bool = False  # an inner layer: its input wants a gradient too

    def __str__(self) -> str:
        inner = ", inner layer" if self.inner else ""
        return f"{self.layer} {shape_name(self.shape)} {self.what}{inner}"

    @property
    def id(self) -> str:
        """In ASCII, for ``pytest -k``: nalu-64x2-1-forward+backward."""
        return str(self).replace("×", "x").replace("→", "-").replace(", ", "-").replace(" ", "-")

    @property
    def needed(self) -> float | None:
        """The factor over eager PyTorch that is needed here, if one is."""
        tied = self.layer == "nalu" and self.what == BACKWARD
        return NEEDED.get(self.shape) if tied else None


def shape_name(shape: tuple[int, int, int]) -> str:
    batch, in_features, out_features = shape
    return f"{batch}×{in_features}→{out_features}"


QUICK = [Case("nalu", shape) for shape in NEEDED]
ALL = [
    *QUICK,
    *(Case("nalu", shape, inner=True) for shape in NEEDED),
    *(Case("nalu", shape, FORWARD) for shape in NEEDED),
    *(
        Case(layer, shape)
        for layer in ("nalu untied", "nac", "log nac")
        for shape in ((64, 2, 1), (128, 100, 100))
    ),
    *(Case("nalu", shape) for shape in GRID if shape not in NEEDED),
]
