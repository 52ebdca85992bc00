"""The gate without a GPU: all that the tile table can choose, compiled for every family."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from nalu_kernels.triton import aot, tiles

ROOT = Path(__file__).parents[1]


def compiled(folder: Path, *arguments: str, table: Path | None = None) -> tuple[int, str, Any]:
    """Status, output and reports of ``python -m nalu_kernels.triton.aot``. A process of its own:
    in this one the kernels are for the interpreter."""
    environment = {**os.environ, "NALU_KERNELS_TILES": str(table or "")}
    environment.pop("TRITON_INTERPRET", None)
    path = folder / "report.json"
    command = [sys.executable, "-m", "nalu_kernels.triton.aot", "--json", str(path), *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    reports = json.loads(path.read_text()) if path.exists() else None
    return ended.returncode, ended.stdout + ended.stderr, reports


@pytest.mark.parametrize("family", tiles.FAMILIES)
def test_every_row_passes(family: str, tmp_path: Path) -> None:
    status, output, reports = compiled(tmp_path, "--family", family)
    assert status == 0, output[-4000:]
    compiled_rows = {(one["kernel"], one["case"], one["products"]) for one in reports}
    rows = {
        (row.kernel, row.case, products)
        for row in tiles.TABLE
        if row.family == family
        for products in row.products
    }
    assert rows < compiled_rows  # these, and the elementwise kernels
    for one in reports:
        report = one["report"]
        assert report["registers"] > 0
        widest = max(int(bits) for bits, count in report["loads"].items() if count)
        assert widest >= one["widest"]
        on_tensor_cores = one["products"] not in ("", "ieee", "float64")
        assert not on_tensor_cores or report["tensor_core_instructions"] > 0
    # Aligned rows are read by the widest loads, whatever else is narrower.
    for case in ("inside", "read", "tied", "untied"):
        assert {one["widest"] for one in reports if one["case"] == case} == {128}


# What a report that is otherwise without fault is refused for.
REFUSED = {
    "a stack frame of 8 bytes": {"stack_bytes": 8},
    "2 spills": {"spills": 2},
    "300000 bytes of shared memory of 232448": {"shared_bytes": 300_000},
    "600 columns of tensor memory": {"tensor_memory_columns": 600},
    "8 HGMMA, and 9 products": {"tensor_core_instructions": 8},
    "no 128-bit loads": {"loads": {32: 0, 64: 20, 128: 0}},
    "loads narrower than 64 bits": {"loads": {32: 20, 64: 10, 128: 2}},
    "3 inexact functions": {"approximations": 3},
}


@pytest.mark.parametrize("words", REFUSED)
def test_each_fault_is_refused(words: str) -> None:
    tile = tiles.Tile(64, 64, 16, 4, 3)
    variant = aot.Variant(
        *("sm_90", "forward", "read", "bf16x3", "bf16x3", "float32"), tile, "tied", "", 64, 128
    )
    clean = aot.Report(
        registers=255,
        stack_bytes=0,
        spills=0,
        shared_bytes=50_000,
        tensor_memory_columns=0,
        tensor_core_instructions=9,
        loads={32: 8, 64: 10, 128: 2},
        approximations=0,
    )
    assert not aot.problems(variant, clean)
    (found,) = aot.problems(variant, clean._replace(**REFUSED[words]))
    assert words in found


# A tile, and what the gate has to say of it.
BAD = {
    "spills": ("sm_90", (64, 128, 32, 8, 3), "spills"),
    "shared memory": ("sm_80", (64, 64, 64, 4, 4), "bytes of shared memory of 101376"),
    "scratch": ("gfx942", (128, 128, 32, 4, 2), "a stack frame"),
    "tensor memory": ("sm_100", (128, 128, 32, 4, 2), "columns of tensor memory"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tile_is_refused(name: str, tmp_path: Path) -> None:
    family, tile, words = BAD[name]
    row = next(
        row
        for row in tiles.TABLE
        if row[:3] == (family, "forward", "read") and "bf16x3" in row.products
    )
    bad = row._replace(tile=tiles.Tile(*tile), products=("bf16x3",))
    table = tmp_path / "table.json"
    tiles.write(table, [bad])
    status, output, reports = compiled(
        tmp_path, "--family", family, "--only", "*forward read bf16x3*float32*", table=table
    )
    assert status == 1 and words in output, output
    assert [one["tile"] for one in reports] == [bad.tile._asdict()]


def test_no_row_is_compiled_in_an_interpreting_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nalu_kernels.triton.aot"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and "TRITON_INTERPRET is set" in ended.stderr
