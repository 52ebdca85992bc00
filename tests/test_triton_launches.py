"""How many launches each layer takes, and how far they reach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

pytest.importorskip("triton", reason="triton is not installed")

from conftest import Backend
from layers import KINDS, Kind, draw
from nalu_kernels import NALUCell
from nalu_kernels.triton import launch, launch_unroll, tiles, trace
from nalu_kernels.triton.arguments import describe
from nalu_kernels.triton.device import Chip
from parity import check
from selection import only, pairs

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_family = pytest.mark.parametrize("family", tiles.FAMILIES)
SMALL = [(64, 2, 1), (128, 100, 2), (128, 100, 100), (1, 1, 1), (7, 3, 300)]
MIDDLE = [(64, 1024, 1024), (300, 512, 512)]
LARGE = [(1024, 512, 512), (8192, 4096, 4096), (65536, 1024, 1024), (100_000, 512, 64)]


def sample(kind: Kind, shape: tuple[int, int, int], dtype: torch.dtype) -> trace.Sample:
    gates = {None: 0, "output": shape[2], "sample": 1}[kind.gates]
    nalu = kind.function == "nalu"
    linear, log_space = nalu or not kind.log_space, nalu or kind.log_space
    return trace.Sample(*shape, dtype, linear, log_space, gates, kind.bias, kind.untied)


def names(launches: list[trace.Launch]) -> list[str]:
    return [launch.kernel.__name__.removesuffix("_kernel") for launch in launches]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@by_family
@by_kind
def test_launches_are_as_few_as_promised(kind: Kind, family: str, dtype: torch.dtype) -> None:
    chip = Chip(family, 132)
    for shape in SMALL + MIDDLE + LARGE:
        layer = sample(kind, shape, dtype)
        forward = names(trace.forward(layer, chip, save=True))
        backward = names(trace.backward(layer, chip))
        assert forward in (["forward"], ["transform", "forward"])
        assert backward in (
            ["backward"],
            ["grad_weights", "grad_input"],
            ["grad_weights", "finish", "grad_input"],
        )
        if shape in SMALL:
            assert forward == ["forward"]
            # A gate per sample is summed over more than one tile of 300 outputs.
            assert backward == ["backward"] or (kind.gates == "sample" and shape[2] > 16)
        if shape in LARGE and dtype != torch.float64:
            assert forward == ["transform", "forward"]


@by_family
def test_the_smallest_layers_take_one_program_of_each_kind(family: str) -> None:
    layer, chip = trace.Sample(64, 2, 1, gates=1), Chip(family, 132)
    (forward,) = trace.forward(layer, chip, save=True)
    (backward,) = trace.backward(layer, chip)
    assert forward.grid == (1,) and backward.grid == (2,)  # the weights' and the input's


@by_family
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
def test_all_steps_of_a_sequence_take_one_launch_each_way(last_only: bool, family: str) -> None:
    """And one that transforms the weights, and one that adds what the programs have summed."""
    for T, B in ((1, 1), (1000, 64), (100_000, 10_000)):
        layer, chip = trace.Sample(B, 5, 2, gates=2), Chip(family, 132)
        made = trace.unroll(layer, T, chip, last_only=last_only)
        assert names(made) == ["transform", "unroll", "transform", "unroll_backward", "finish"]
        assert made[1].grid == (-(-B // 16),)
        assert made[3].grid == (min(-(-B // 16), 264 if family == "gfx942" else 132),)


@by_family
def test_a_cells_layer_has_its_own_sums(family: str) -> None:
    """One launch adds them, whatever the layer; and only some have weights to be transformed."""
    chip = Chip(family, 132)
    for layer in ("inalu", "inalu_sum", "nmu", "npu", "nau"):
        gates = int(layer == "inalu_sum")
        cell = trace.Sample(64, 5, 2, gates=gates, log_space=layer != "nau")
        if layer == "inalu":
            cell = cell._replace(bias=True)
        before = ["transform"] if layer.startswith("inalu") else []
        finish = {"npu": "finish_power", "nmu": "finish_reduction"}.get(layer, "finish")
        made = names(trace.unroll(cell, 100, chip, layer=layer))
        assert made == [*before, "unroll", *before, "unroll_backward", finish]


@by_family
def test_which_cells_a_program_holds(family: str) -> None:
    chip = Chip(family, 132)

    def fits(layer: str, of_layer: tuple[float, ...], I: int, H: int, weights: int) -> bool:  # noqa: E741
        W = torch.empty(H, I + H, device="meta")
        given = [torch.empty(3, 4, I, device="meta"), *[W] * weights]
        missing = [None] * ((6 if weights == 2 else 1) - weights + 3)
        described = tuple(map(describe, [*given, *missing]))
        return launch_unroll.fits(chip, layer, of_layer, False, described)

    for layer, of_layer, weights, most in (
        ("nmu", (), 1, 32),
        ("nalu", (1e-7, True, False), 2, 32),
        ("inalu", (1e-7, True, True, 20.0), 2, 8),
    ):
        assert fits(layer, of_layer, most - 3, 3, weights)
        assert not fits(layer, of_layer, most - 2, 3, weights)
        assert not fits(layer, of_layer, 1, 17, weights)


@by_family
def test_frozen_tensors_cost_nothing(family: str) -> None:
    chip = Chip(family, 132)
    for shape in SMALL + LARGE:
        layer = trace.Sample(*shape, gates=shape[2])
        assert "grad_weights" not in names(trace.backward(layer, chip, needed=1))
        assert set(names(trace.backward(layer, chip, needed=-2))) <= {"grad_weights", "finish"}
        assert not trace.backward(layer, chip, needed=0)
    # W that is frozen, and has to be read, is transformed: no part of dW is summed for it.
    needed = 0b1001  # of the input and of G
    made = trace.backward(trace.Sample(4096, 512, 512, gates=512), chip, needed=needed)
    assert "transform" in names(made)
    for one in made:
        args = dict(zip(one.kernel.arg_names, one.args, strict=False))
        assert "partials" not in args or args["partials"].W is None


def tiles_of(family: str, x: Tensor, dy: Tensor, O: int) -> dict[str, tiles.Tile]:  # noqa: E741
    """The tile of each kernel in the forward and backward of a NALU."""
    chip, I = Chip(family, 132), x.shape[1]  # noqa: E741
    weights = [torch.empty(O, I, dtype=x.dtype) for _ in range(3)]
    call = chip, 1e-7, True, True, tuple(map(describe, [x, *weights, None, None, None]))
    saved = torch.empty(x.shape[0] * 3 * O)
    recipes = (
        launch.forward("highest", True, *call),
        launch.backward("highest", -1, describe(dy), describe(saved), *call),
    )
    return {
        step.kernel.__name__.removesuffix("_kernel"): step.options["TILE"]
        for recipe in recipes
        for step in recipe.steps
        if "TILE" in step.options
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@by_family
def test_rows_that_wide_loads_cannot_read_take_tiles_of_their_own(
    family: str, dtype: torch.dtype
) -> None:
    B, I, O = 1024, 512, 512  # noqa: E741

    def whole(rows: int, cols: int) -> Tensor:
        return torch.empty(rows, cols, dtype=dtype)

    x, dy = whole(B, I), whole(B, O)
    aligned = tiles_of(family, x, dy, O)
    assert tiles_of(family, whole(I, B).T, dy, O) == aligned
    assert tiles_of(family, x, whole(1, 1).expand(B, O), O) == aligned
    assert tiles_of(family, whole(B, I + 16)[:, 16:], dy, O) == aligned

    def shifted(rows: int, cols: int) -> Tensor:
        return torch.empty(rows * cols + 1, dtype=dtype)[1:].view(rows, cols)

    products = {"bf16"} if dtype == torch.bfloat16 else {"ieee", "bf16x6"}
    odd = {
        row.kernel: row.tile
        for row in tiles.TABLE
        if (row.family, row.case) == (family, "odd") and products & set(row.products)
    }
    assert set(odd) == set(aligned) and odd != aligned
    for misaligned in (whole(B, I + 1)[:, :I], shifted(B, I)):
        assert tiles_of(family, misaligned, dy, O) == odd
    assert tiles_of(family, whole(B, I + 2)[:, :-1].contiguous(), dy, O) == odd  # 513 inputs
    assert tiles_of(family, x, whole(B, O + 1), O + 1) == odd
    only_backward = tiles_of(family, x, shifted(B, O), O)
    assert only_backward == {**odd, "forward": aligned["forward"]}


@pytest.fixture
def far(tmp_path: Path) -> Tensor:
    """2^31 + 64 numbers, in a file that takes no room."""
    path, size = tmp_path / "sparse", (1 << 31) + 64
    try:
        with path.open("wb") as file:
            file.truncate(2 * size)
        return torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"no room for a sparse file: {error}")


# On a GPU test_gpu.py does this, with whole tensors.
@only(lambda backend: backend.has_kernels and backend.device == "cpu")
@pairs
@by_kind
def test_offsets_beyond_2_31(kind: Kind, backend: Backend, rng: Generator, far: Tensor) -> None:
    """Of the input and of the gradient of the output."""
    layer = draw(rng, kind, (3, 5, 4), torch.bfloat16)
    tensors = {}
    for name, offset in (("input", 0), ("grad_output", 16)):
        tensor = layer.tensors.get(name, layer.grad_output)
        tensors[name] = far[offset:].as_strided(tensor.shape, (1 << 30, 1)).copy_(tensor)
    check(layer.with_(**tensors))


@only(lambda backend: backend.name in ("cpu", "triton") and backend.device == "cpu")
@pairs
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
def test_offsets_of_steps_beyond_2_31(
    last_only: bool, backend: Backend, rng: Generator, far: Tensor
) -> None:
    cell = NALUCell(2, 1, dtype=torch.bfloat16)
    x = torch.rand(3, 2, 2, generator=rng).bfloat16()
    apart = far.as_strided(x.shape, (1 << 30, 2, 1)).copy_(x)
    dy = torch.rand((2, 1) if last_only else (3, 2, 1), generator=rng).bfloat16()
    dy_apart = far[16:].as_strided(dy.shape, (2, 1) if last_only else (1 << 30, 2, 1)).copy_(dy)
    results = []
    for given, of_output in ((x, dy), (apart, dy_apart)):
        leaf = given.detach().requires_grad_()
        output = cell.unroll(leaf, last_only=last_only)
        results.append(
            [output, *torch.autograd.grad(output, [leaf, *cell.parameters()], of_output)]
        )
    assert all(map(torch.equal, *results))
