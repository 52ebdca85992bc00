"""The tile table's rows, which are for compiled chips, by the interpreter: parity of each.

What a row can change here is the tile and the products; warps and stages are the compiler's. Rows
that differ in nothing else are run once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from torch import Generator

pytest.importorskip("triton", reason="triton is not installed")

import nalu_kernels
from error_bound import Products
from layers import BY_NAME, Kind, draw, outcome
from nalu_kernels.triton import launch, operators, recipe, tiles
from nalu_kernels.triton.device import Chip
from nalu_kernels.triton.precision import products
from parity import Judge
from precision import matmul_precision
from selection import covering, long

PROCESSORS = 132


class Launched(NamedTuple):
    kernel: str
    tile: tuple[int, ...]
    products: tuple[str, str]


class Interpreted:
    """The interpreter in the place of a chip of some family, and what is launched meanwhile."""

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


def forget_recipes() -> None:
    """They go by the thresholds of the time when they were made."""
    launch.forward.cache_clear()
    launch.backward.cache_clear()


@contextmanager
def interpreting() -> Iterator[Interpreted]:
    if torch.cuda.is_available():
        pytest.skip("a GPU takes the rows of its own family alone")
    with pytest.MonkeyPatch.context() as patch, nalu_kernels.use_backend("triton"):
        patch.delenv("NALU_KERNELS_TILES", raising=False)
        tiles._index.cache_clear()
        forget_recipes()
        yield Interpreted(patch)
    tiles._index.cache_clear()
    forget_recipes()


@pytest.fixture
def interpreted() -> Iterator[Interpreted]:
    with interpreting() as interpreter:
        yield interpreter


class Way(NamedTuple):
    """How a layer gets to its rows. ``case``: of forward and grad_input, and of grad_weights
    too if it has that."""

    case: str
    kind: Kind
    parts: bool


WAYS = [
    Way("inside", BY_NAME["nalu_output_bias_tied"], parts=False),
    Way("read", BY_NAME["nalu_sample_bias_untied"], parts=True),
    Way("inside", BY_NAME["nalu_output_untied"], parts=True),
    Way("read", BY_NAME["nalu_sample_tied"], parts=False),
    Way("odd", BY_NAME["nalu_output_bias_untied"], parts=False),
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


class Run(NamedTuple):
    """What the interpreter can tell of a row."""

    kernel: str
    case: str
    product: str
    tile: tuple[int, ...]

    @classmethod
    def of(cls, row: tiles.Row, product: str) -> Run:
        return cls(row.kernel, row.case, product, row.tile[:3])


class Case(NamedTuple):
    family: str
    dtype: torch.dtype
    setting: str
    way: Way

    def made_of(self) -> dict[str, object]:
        """The options of which ``make test`` runs every pair: a family gives these their tiles
        alone."""
        return {
            "case": self.way.case,
            "parts": self.way.parts,
            "forward": self.product("forward"),
            "backward": self.product("grad_input"),
        }

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        parts = "_parts" * self.way.parts
        return "-".join(
            [self.family, dtype, self.setting, self.way.case + parts, self.way.kind.name]
        )

    def products(self, kernel: str) -> tuple[str, str]:
        """(linear, log-space)."""
        if self.way.case == "small":
            return "ieee", "ieee"
        chip = Chip(self.family, PROCESSORS)
        return products(self.dtype, self.setting, chip, backward=kernel != "forward")

    def product(self, kernel: str) -> str:
        """As rows are named."""
        return "float64" if self.dtype == torch.float64 else self.products(kernel)[0]

    def row(self, kernel: str) -> tiles.Row:
        case = self.way.case
        if kernel == "grad_weights" and case not in ("small", "odd"):
            case = "untied" if self.way.kind.untied else "tied"
        (row,) = (
            row
            for row in tiles.TABLE
            if row[:3] == (self.family, kernel, case) and self.product(kernel) in row.products
        )
        return row

    def run(self) -> set[Run]:
        return {Run.of(self.row(kernel), self.product(kernel)) for kernel in tiles.KERNELS}


def cases() -> list[Case]:
    """Each of them the first to run some row."""
    found, seen = [], set()
    for family in tiles.FAMILIES:
        for dtype, setting in PRECISIONS:
            for way in WAYS:
                case = Case(family, dtype, setting, way)
                if not case.run() <= seen:
                    found.append(case)
                    seen |= case.run()
    return found


# What the rows leave out of layers and ways, with the products of "highest".
OTHER_WAYS = [
    *WAYS[2:4],
    WAYS[5],
    Way("read", BY_NAME["nac"], parts=True),
    Way("inside", BY_NAME["nac_log_space"], parts=True),
]
ROWS = cases()
CASES = [*ROWS, *(Case("sm_90", torch.float32, "highest", way) for way in OTHER_WAYS)]
SHORT = covering([case.made_of() for case in CASES], [1.0] * len(CASES))


def test_the_cases_run_every_row() -> None:
    there = {Run.of(row, product) for row in tiles.TABLE for product in row.products}
    assert set().union(*(case.run() for case in ROWS)) == there


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if i in SHORT else long) for i, case in enumerate(CASES)],
    ids=str,
)
def test_parity_of_a_row(case: Case, interpreted: Interpreted, rng: Generator) -> None:
    tile = {kernel: case.row(kernel).tile for kernel in tiles.KERNELS}
    # In every direction a little more than one tile; in rows of whole loads, unless it is odd.
    more = (5, 2) if case.way.case in ("odd", "small") else (8, 8)
    B = max(tile["forward"].rows, tile["grad_input"].rows) + 3
    I = max(tile["grad_input"].cols, tile["grad_weights"].cols) + more[0]  # noqa: E741
    O = max(tile["forward"].cols, tile["grad_weights"].rows) + more[1]  # noqa: E741
    layer = draw(rng, case.way.kind, (B, I, O), case.dtype)

    interpreted.as_chip(case.family, PROCESSORS if case.way.parts else 1)
    reads = case.way.case == "read"
    interpreted.set(MIN_SPLIT_ROWS=16, ROW_TILES_THAT_TRANSFORM=1 if reads else 8)
    if case.way.case != "small":
        interpreted.no_small_layers()
    with matmul_precision(case.setting):
        found = outcome(nalu_kernels, layer)

    used = Products(case.products("forward"), case.products("grad_input"))
    expected = {
        Launched(kernel, tile[kernel], used.forward if kernel == "forward" else used.backward)
        for kernel in tiles.KERNELS
    }
    assert set(interpreted.launched) == expected
    assert ("transform" in interpreted.kernels) == reads
    # Each row of tiles of outputs has its own share of a gate per sample.
    summed = case.way.parts or (case.way.kind.gates == "sample" and tile["grad_weights"].rows < O)
    assert ("finish" in interpreted.kernels) == summed
    faults = Judge(layer, used).faults(found)
    assert not faults, "\n".join(faults)
