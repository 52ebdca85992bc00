"""The search for better tiles, with a GPU that the tests make up."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from nalu_kernels.triton import tiles, tune
from nalu_kernels.triton.device import Chip
from nalu_kernels.triton.forms import Tile

START = Tile(64, 32, 16, 4, 2)


def distance(one: Tile, other: Tile) -> float:
    return sum(abs(math.log2(a / b)) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("goal", [START, Tile(32, 128, 64, 8, 4), Tile(256, 16, 16, 4, 1)])
def test_the_search_goes_to_the_fastest(goal: Tile) -> None:
    assert tune.best(START, lambda tile: 1 + distance(tile, goal)) == goal


def test_the_search_takes_no_tile_that_is_refused() -> None:
    goal = Tile(64, 128, 16, 4, 2)

    def seconds(tile: Tile) -> float | None:
        return None if tile.warps == 8 or tile.cols > 64 else 1 + distance(tile, goal)

    assert tune.best(START, seconds) == goal._replace(cols=64)


def test_noise_moves_nothing() -> None:
    assert tune.best(START, lambda tile: 1.0 if tile == START else 0.98) == START


def test_a_tile_of_ours_that_is_refused_is_left_for_one_that_is_not() -> None:
    assert tune.best(START, lambda tile: None if tile == START else 1.0) != START


@pytest.mark.parametrize("family", tiles.FAMILIES)
def test_every_row_is_tried_in_a_launch_that_takes_it(family: str) -> None:
    trials = tune.trials(family)
    assert {trial.row for trial in trials} == {row for row in tiles.TABLE if row.family == family}
    for trial in trials:
        tile = trial.row.tile._replace(stages=5)
        _, step, _ = trial.recipe(Chip(family, 132), tile, torch.device("meta"))
        assert step.kernel.__name__ == f"{trial.row.kernel}_kernel"
        assert step.options["TILE"] == tile


def test_its_table_takes_the_place_of_ours(tmp_path: Path) -> None:
    row = next(row for row in tiles.TABLE if row[:3] == ("sm_90", "forward", "read"))
    other = row._replace(tile=Tile(16, 16, 16, 4, 1), products=row.products[:1])
    path = tmp_path / "tiles.json"
    tiles.write(path, [other])
    assert tiles.read(path) == [other]
    code = (
        "from nalu_kernels.triton import tiles; from nalu_kernels.triton.device import Chip\n"
        f"for row in ({row.products[0]!r}, 'fp16'):\n"
        "    print(*tiles.choose(Chip('sm_90', 132), 'forward', 'read', row, (9, 9, 9)))"
    )
    environment = {**os.environ, "NALU_KERNELS_TILES": str(path)}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    fp16 = tiles.choose(Chip("sm_90", 132), "forward", "read", "fp16", (9, 9, 9))
    assert printed.splitlines() == ["16 16 16 4 1", " ".join(map(str, fp16))]


@pytest.mark.parametrize("text", ["", "[]", '{"rows": [{"family": "sm_90"}]}', '{"rows": 3}'])
def test_what_is_no_table_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    path.write_text(text)
    with pytest.raises(RuntimeError, match=r"NALU_KERNELS_TILES: .*tiles\.json is no table"):
        tiles.read(path)
    with pytest.raises(RuntimeError, match=r"absent\.json is no table"):
        tiles.read(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"family": "sm_70"}, "no row for family 'sm_70'"),
        ({"kernel": "forwards"}, "kernel 'forwards'"),
        ({"case": "tied"}, "case 'tied'"),
        ({"products": ("bf16x9",)}, "products 'bf16x9'"),
        (
            {"tile": Tile(48, 32, 16, 4, 2)},
            "tile.rows must be a power of two of at least 16, got 48",
        ),
        ({"tile": Tile(64, 8, 16, 4, 2)}, "tile.cols must be .* got 8"),
        ({"tile": Tile(64, 32, "16", 4, 2)}, "tile.depth must be .* got '16'"),
        (
            {"tile": Tile(64, 32, 16, 3, 2)},
            "tile.warps must be a power of two of at least 1, got 3",
        ),
        ({"tile": Tile(64, 32, 16, 4, 0)}, "tile.stages must be an integer of at least 1, got 0"),
    ],
)
def test_a_row_that_no_kernel_could_take_is_named(
    changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    row = next(row for row in tiles.TABLE if row[:3] == ("sm_90", "forward", "read"))
    path = tmp_path / "tiles.json"
    tiles.write(path, [row, row._replace(**changed)])
    with pytest.raises(RuntimeError, match=f"tiles.json is no table of tiles: .*{words}"):
        tiles.read(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure for minutes")
def test_without_a_gpu_it_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune.main(["--output", str(tmp_path / "tiles.json")]) == 2
    assert "No GPU is visible" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
