"""What is measured on a GPU, in which order, and the figures that are wanted there."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from ..cases import BACKWARD, FORWARD, Case, shape_name

# torch.set_float32_matmul_precision for float32, or the dtype.
HIGHEST, BFLOAT16 = "highest", "bfloat16"
PRECISIONS = (HIGHEST, BFLOAT16, "high", "medium")


class Wanted(NamedTuple):
    """Of forward+backward in float32 "highest": how many times faster by wall time, and at most how
    much error and memory as a part of eager's."""

    over_eager: float
    over_compile: float
    error: float = 1.0
    memory: float = 0.5


class Group(NamedTuple):
    """Shapes (B, I, O) that have to be as fast."""

    name: str
    shapes: tuple[tuple[int, int, int], ...]
    wanted: Wanted


GROUPS = (
    Group("tiny", ((64, 2, 1), (128, 100, 2), (128, 100, 100)), Wanted(5, 3)),
    Group("middle", ((1024, 512, 512), (4096, 1024, 1024)), Wanted(3, 2)),
    Group("large", ((8192, 4096, 4096), (65536, 1024, 1024)), Wanted(1.5, 1.3)),
)
# As many groups, of shapes that an interpreter gets through.
DRY_GROUPS = (
    Group("tiny", ((3, 4, 2),), Wanted(5, 3)),
    Group("middle", ((6, 5, 7),), Wanted(3, 2)),
    Group("large", ((40, 3, 5),), Wanted(1.5, 1.3)),
)


class GpuCase(NamedTuple):
    """A tied NALU whose input wants a gradient too."""

    group: Group
    shape: tuple[int, int, int]
    what: str
    precision: str

    @property
    def id(self) -> str:
        """In ASCII, for the command line: 64x2-1-forward+backward-highest."""
        batch, in_features, out_features = self.shape
        return f"{batch}x{in_features}-{out_features}-{self.what}-{self.precision}"

    @property
    def layer(self) -> Case:
        return Case("nalu", self.shape, self.what, inner=True)

    @property
    def backward(self) -> bool:
        return self.what == BACKWARD

    @property
    def flops(self) -> int:
        """Of three products; of nine with the backward."""
        batch, in_features, out_features = self.shape
        return (18 if self.backward else 6) * batch * in_features * out_features

    @property
    def wanted(self) -> Wanted | None:
        return self.group.wanted if self.backward and self.precision == HIGHEST else None

    def __str__(self) -> str:
        return f"{shape_name(self.shape)} {self.what} {self.precision}"


class Unit(NamedTuple):
    """A case as measured at one go: with max-autotune (which takes long to compile), or with all
    the others."""

    case: GpuCase
    autotune: bool

    @property
    def id(self) -> str:
        return self.case.id + ("-autotune" if self.autotune else "")


def units(groups: tuple[Group, ...]) -> list[Unit]:
    """The most telling first, which is what figures are wanted of; what the time does not suffice
    for is at the end."""
    cases = [
        GpuCase(group, shape, what, precision)
        for what, precision in product((BACKWARD, FORWARD), PRECISIONS)
        for group in groups
        for shape in group.shapes
    ]
    plain, autotuned = ([Unit(case, autotune) for case in cases] for autotune in (False, True))
    backward = sum(case.backward for case in cases)
    judged = sum(case.wanted is not None for case in cases)
    # Each autotuned unit compiles for as long as several plain ones take.
    return [*plain[:backward], *autotuned[:judged], *plain[backward:], *autotuned[judged:]]
