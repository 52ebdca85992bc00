"""The tile table's rows, which are for compiled chips, by the interpreter: parity of each.

What a row can change here is the tile and the products; warps and stages are the compiler's. Rows
that differ in nothing else are run once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Generator

pytest.importorskip("triton", reason="triton is not installed")

import nalu_kernels
from layers import BY_NAME, Kind, draw, outcome
from nalu_kernels.triton import launch, operators, recipe, tiles
from nalu_kernels.triton.device import Chip
from nalu_kernels.triton.precision import products
from parity import Judge
from test_gpu import matmul_precision

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a GPU takes the rows of its own family alone"
)

PROCESSORS = 132


class Launched(NamedTuple):
    kernel: str
    tile: tuple[int, ...]
    products: tuple[str, str]


class Interpreted:
    """The interpreter in the place of a chip of some family; ``launched`` since it was cleared."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.kernels: list[str] = []
        self.launched: list[Launched] = []
        original = recipe.Step.launch

        def record(step: recipe.Step, tensors: list[torch.Tensor | None]) -> None:
            original(step, tensors)
            name = step.kernel.__name__.removesuffix("_kernel")
            self.kernels.append(name)
            if "FORM" in step.options:
                form = step.options["FORM"]
                used = (form.linear_product, form.log_product)
                if name == "backward":
                    self.launched.append(
                        Launched("grad_weights", step.options["WEIGHTS_TILE"], used)
                    )
                    name = "grad_input"
                self.launched.append(Launched(name, step.options["TILE"], used))

        patch.setattr(recipe.Step, "launch", record)

    def as_chip(self, family: str, processors: int = PROCESSORS) -> Chip:
        chip = Chip(family, processors)
        self._patch.setattr(operators, "chip", lambda device: chip)
        return chip

    def set(self, **thresholds: int) -> None:
        """Of ``tiles``, for the calls from now on."""
        for name, value in thresholds.items():
            self._patch.setattr(tiles, name, value)
        forget_recipes()

    def no_small_layers(self) -> None:
        self.set(SMALL_WORK=-1, NARROW=-1)

    def clear(self) -> None:
        self.kernels.clear()
        self.launched.clear()


def forget_recipes() -> None:
    """They go by the thresholds of the time when they were made."""
    launch.forward.cache_clear()
    launch.backward.cache_clear()


@pytest.fixture
def interpreted() -> Callable[[], None]:
    with pytest.MonkeyPatch.context() as patch, nalu_kernels.use_backend("triton"):
        patch.delenv("NALU_KERNELS_TILES", raising=False)
        tiles._index.cache_clear()
        forget_recipes()
        yield Interpreted(patch)
    tiles._index.cache_clear()
    forget_recipes()


class Way(NamedTuple):
    """How a layer gets to its rows. ``case``: of forward and grad_input."""

    case: str
    kind: Kind
    parts: bool

    @property
    def reads(self) -> bool:
        return self.case == "read"


WAYS = [
    Way("inside", BY_NAME["nalu_output_bias_tied"], parts=False),
    Way("read", BY_NAME["nalu_sample_bias_untied"], parts=True),
    Way("inside", BY_NAME["nalu_output_untied"], parts=True),
    Way("read", BY_NAME["nalu_sample_tied"], parts=False),
    Way("small", BY_NAME["nalu_output_bias_untied"], parts=False),
    Way("small", BY_NAME["nalu_sample_tied"], parts=True),
]
PRECISIONS = [
    (torch.float32, "highest"),
    (torch.float64, "highest"),
    (torch.bfloat16, "highest"),
    (torch.float16, "highest"),
    (torch.float32, "high"),
]


class Case(NamedTuple):
    family: str
    dtype: torch.dtype
    setting: str
    way: Way

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        parts = "_parts" * self.way.parts
        return "-".join(
            [self.family, dtype, self.setting, self.way.case + parts, self.way.kind.name]
        )

    def products(self, kernel: str) -> tuple[str, str]:
        if self.way.case == "small":
            return "ieee", "ieee"
        chip = Chip(self.family, PROCESSORS)
        return products(self.dtype, self.setting, chip, backward=kernel != "forward")

    def row(self, kernel: str) -> tiles.Row:
        case = self.way.case
        if kernel == "grad_weights" and case != "small":
            case = "untied" if self.way.kind.untied else "tied"
        name = "float64" if self.dtype == torch.float64 else self.products(kernel)[0]
        (row,) = (
            row
            for row in tiles.TABLE
            if row[:3] == (self.family, kernel, case) and name in row.products
        )
        return row


def identity(row: tiles.Row, product: str) -> tuple[object, ...]:
    """What the interpreter can tell of a row."""
    return row.kernel, row.case, product, row.tile[:3]


def cases() -> list[Case]:
    """Each of them the first to run some row."""
    found, seen = [], set()
    for family in tiles.FAMILIES:
        for dtype, setting in PRECISIONS:
            for way in WAYS:
                case = Case(family, dtype, setting, way)
                rows = {
                    identity(case.row(kernel), case.products(kernel)[0]) for kernel in tiles.KERNELS
                }
                if way.case == "small" and setting == "high":
                    continue
                if not rows <= seen:
                    found.append(case)
                    seen |= rows
    return found
