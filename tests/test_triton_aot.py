"""The gate without a GPU: what the tile table can choose, compiled for every family."""

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
from selection import covering, long, slow

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


def check(one: dict[str, Any]) -> None:
    """What is true of every kernel that passes."""
    report = one["report"]
    assert report["registers"] > 0
    widest = max(int(bits) for bits, count in report["loads"].items() if count)
    assert widest >= one["widest"]
    on_tensor_cores = one["products"] not in ("", "ieee", "float64")
    assert not on_tensor_cores or report["tensor_core_instructions"] > 0


def names(variants: list[aot.Variant], together: int, *options: str) -> list[str]:
    """Of variants that have between them all of these options, or all that occur ``together``. An
    untied layer, which needs more registers, is taken before a tied one."""
    made_of = [{option: getattr(one, option) for option in options} for one in variants]
    costs = [1.01 if one.layer == "tied" else 1.0 for one in variants]
    return [str(variants[i]) for i in covering(made_of, costs, together)]


@long
def test_a_sample_of_rows_passes(tmp_path: Path) -> None:
    """Of what float16 layers launch on one chip: between them every kernel and every case of the
    table, with tensor cores and without, and what the layers after NALU have of their own."""
    layers = [one for one in aot.launches("sm_90") if one.dtype == "float16"]
    chosen = names(layers, 1, "kernel", "case", "products")
    status, output, reports = compiled(tmp_path, "--only", *chosen)
    assert status == 0, output[-4000:]
    family = {"reduction", "reduction_gradient", "power", "power_grad_input", "power_grad_weights"}
    kernels = {*tiles.KERNELS, "backward", "transform", *family, "unroll", "unroll_backward"}
    assert kernels < {one["kernel"] for one in reports}
    assert {row.case for row in tiles.TABLE} < {one["case"] for one in reports}
    assert {one["products"] for one in reports} == {"", "ieee", "fp16", "bf16x3"}
    for one in reports:
        check(one)


@long  # ten seconds and more; test_every_row_passes has all trainers
def test_a_trainer_passes(tmp_path: Path) -> None:
    status, output, reports = compiled(tmp_path, "--only", "sm_90 train NALU 100* float32*")
    assert status == 0, output[-4000:]
    (report,) = reports
    check(report)


@long  # as above; test_every_row_passes has all cells
def test_a_cell_over_time_passes(tmp_path: Path) -> None:
    status, output, reports = compiled(tmp_path, "--only", "sm_90 unroll* NAC-log * 128x5->2")
    assert status == 0, output[-4000:]
    assert {one["kernel"] for one in reports} == {"unroll", "unroll_backward"}
    for one in reports:
        check(one)


@long
def test_every_row_passes(tmp_path: Path) -> None:
    """In every family; with its dtypes, tied and untied, and for every shape in pairs. One process
    for all, which starts its own."""
    variants = [one for family in tiles.FAMILIES for one in aot.launches(family)]
    chosen = names(variants, 2, "family", "row", "dtype", "layer", "shape")
    status, output, reports = compiled(tmp_path, "--only", *chosen)
    assert status == 0, output[-4000:]
    assert len(reports) == len(chosen)
    compiled_rows = {
        (one["family"], one["kernel"], one["case"], one["products"]) for one in reports
    }
    rows = {(*row[:3], products) for row in tiles.TABLE for products in row.products}
    assert rows < compiled_rows  # these, the elementwise kernels and the trainers
    for one in reports:
        check(one)
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


# A tile that is too large in each family, and what the gate has to say of it.
BAD = {
    "sm_80": ((64, 64, 64, 4, 4), "bytes of shared memory of 101376"),
    "sm_90": ((64, 128, 32, 8, 3), "spills"),
    "sm_100": ((128, 128, 32, 4, 2), "columns of tensor memory"),
    "gfx942": ((128, 128, 16, 4, 2), "a stack frame"),
}


@slow(lambda family: family != "sm_90")  # whose compiler tells of spills
@pytest.mark.parametrize("family", tiles.FAMILIES)
def test_bad_tiles_are_refused(family: str, tmp_path: Path) -> None:
    """Compiled, and refused for what is wrong with it."""
    sizes, words = BAD[family]
    (bad,) = (
        row._replace(tile=tiles.Tile(*sizes), products=("bf16x3",))
        for row in tiles.TABLE
        if row.family == family and row[1:3] == ("forward", "read") and "bf16x3" in row.products
    )
    table = tmp_path / "table.json"
    tiles.write(table, [bad])
    only = ("--only", f"{family} forward read bf16x3 * float32 *")
    status, output, (report,) = compiled(tmp_path, *only, table=table)
    assert status == 1, output
    assert report["tile"] == bad.tile._asdict()
    assert any(words in problem for problem in report["problems"]), report


def test_no_row_is_compiled_in_an_interpreting_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(SystemExit) as ended:
        aot.main([])
    assert ended.value.code == 2 and "TRITON_INTERPRET is set" in capsys.readouterr().err
