"""A folder of results: it goes on, is never half a file, and is never another sweep's."""

from __future__ import annotations

import enum
import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from skips_here import needs_trainer
from small import assert_same, run

from nalu_kernels import sweep
from nalu_kernels.sweep import store
from selection import long

pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")

FILES = ["checkpoint.safetensors", "curves.parquet", "runs.parquet", "spec.json"]
FILES += ["weights.safetensors"]


def interrupted(folder: Path, runs: Any, after: int = 2, **options: Any) -> sweep.Result:
    """A sweep that was stopped after so many looks, as by Ctrl-C."""
    looks: list[sweep.Event] = []

    def look(event: sweep.Event) -> None:
        looks.append(event)
        if len(looks) == after:
            os.kill(os.getpid(), 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nalu_kernels.sweep.watch.SEGMENT", 1e-3)
        return run(runs=runs, out=folder, callback=look, **options)


def test_a_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    runs = sweep.grid(seed=range(4), lr=[1e-2])
    first = interrupted(tmp_path, runs)
    assert first.stopped == "SIGINT"
    assert {"interrupted", "not_run"} >= set(first.columns()["status"]) - {"out_of_steps"}
    assert_same(sweep.load(tmp_path), first)
    whole = run(runs=runs, out=tmp_path)
    assert_same(whole, run(runs=runs))
    assert_same(run(runs=runs, out=tmp_path), whole)
    assert sorted(name for name in os.listdir(tmp_path) if name != ".lock") == FILES


def test_what_is_loaded_is_what_was_returned(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    runs = sweep.grid(
        seed=[1], train=[(1, 2), ((-2, -1), (1, 2)), sweep.Normal(1, 1, high=3)], name=["a", "b"]
    )
    result = run("normal", runs[1:], out=tmp_path)
    loaded = sweep.load(tmp_path)
    pandas.testing.assert_frame_equal(loaded.to_pandas(), result.to_pandas())
    pandas.testing.assert_frame_equal(loaded.curves(), result.curves())
    assert loaded.to_pandas()["train"].tolist() == result.to_pandas()["train"].tolist()
    for which in ("best", "last"):
        found = loaded.module(3, which=which).state_dict()
        expected = result.module(3, which=which).state_dict()
        assert all(value.equal(expected[name]) for name, value in found.items())
    assert repr(loaded.module(3)) == repr(small.TASKS["normal"][1])


def test_the_tables_are_for_others_to_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    from safetensors.torch import load_file

    result = run(out=tmp_path)
    frame = pandas.read_parquet(tmp_path / "runs.parquet").set_index("run")
    assert frame["error_outside"].tolist() == result.columns()["error_outside"]
    assert len(pandas.read_parquet(tmp_path / "curves.parquet")) == 30
    weights = load_file(tmp_path / "weights.safetensors")
    assert weights["best.1.G"].equal(result.modules()[0]["1.G"])
    session = json.loads((tmp_path / "spec.json").read_text())["sessions"][0]
    assert session["backend"] == "reference"
    assert {"nalu_kernels", "torch", "python", "platform"} <= session.keys()


def test_slices_are_joined_by_row(tmp_path: Path) -> None:
    runs = sweep.grid(seed=range(5), lr=[1e-2])
    for part in (2, 0, 1):
        run(runs=runs[part::3], out=tmp_path / str(part))
    joined = sweep.join([tmp_path / str(part) for part in (2, 0, 1)])
    expected = run(runs=runs)
    assert_same(joined, expected)
    assert joined.columns()["seed"] == list(range(5))
    renamed = sweep.Runs({"seed": [7, 8], "lr": [1e-2] * 2})
    run(runs=renamed, out=tmp_path / "renamed")
    again = sweep.join([tmp_path / "0", tmp_path / "renamed"])
    assert again.columns()["seed"] == [0, 3, 7, 8]
    run(runs=runs, steps=24, out=tmp_path / "other")
    with pytest.raises(ValueError, match="differ: steps is 23 there, 24 here"):
        sweep.join([tmp_path / "0", tmp_path / "other"])


def test_a_copy_of_a_folder_is_not_joined_with_it(tmp_path: Path) -> None:
    run(out=tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for other in ("a", "b"):
        with pytest.raises(
            ValueError, match=f"folders: .*a and .*{other} have the same run, seed 0"
        ):
            sweep.join([tmp_path / "a", tmp_path / other])


def test_folders_that_have_a_run_in_common_are_not_joined(tmp_path: Path) -> None:
    for name, seeds in (("a", [0, 1, 2]), ("b", [2, 3])):
        run(runs={"seed": seeds}, out=tmp_path / name)
    with pytest.raises(ValueError, match=r"folders: .*a and .*b have the same run, seed 2"):
        sweep.join(tmp_path / name for name in "ab")
    with pytest.raises(TypeError, match="folders: expected a list of folders"):
        sweep.join(str(tmp_path / "a"))


def test_the_table_of_another_sweep_is_refused(tmp_path: Path) -> None:
    run(out=tmp_path / "a")
    for runs in (sweep.grid(seed=range(3), lr=[1e-2, 2e-3]), sweep.grid(seed=range(2))):
        run(runs=runs, out=tmp_path / "b")
        shutil.copy(tmp_path / "b" / "runs.parquet", tmp_path / "a")
        with pytest.raises(ValueError, match=r"a.runs.parquet is damaged: it belongs to another"):
            sweep.load(tmp_path / "a")
        shutil.rmtree(tmp_path / "b")


def test_numbers_of_numpy_come_back_from_a_folder_as_numbers(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    runs = sweep.grid(
        seed=numpy.arange(2), lr=numpy.float32(1e-2), size=[numpy.float64(0.1)],
        sure=[numpy.bool_(True)], name=[numpy.str_("a")], width=[torch.tensor(3)],
    )  # fmt: skip
    result = run(runs=runs, out=tmp_path / "0")
    assert_labels(result, sweep.load(tmp_path / "0"))
    assert result.columns()["seed"] == [0, 1] and result.columns()["sure"] == [True, True]
    run(runs=sweep.Runs(runs.columns, [2, 3]), out=tmp_path / "1")
    joined = sweep.join([tmp_path / "0", tmp_path / "1"])
    assert joined.columns()["size"] == [0.1] * 4 and joined.columns()["width"] == [3] * 4


def test_labels_of_every_kind_come_back_from_a_folder(tmp_path: Path) -> None:
    columns = {
        "lr": [1, 0.1],
        "ints": [2**63 - 1, None],
        "mixed": [2**53 + 1, 0.5],
        "words": ["1", 1],
        "gaps": [None, float("inf")],
        "none": [None, None],
        "parts": [[1, (None, "é")], True],
        "range": [sweep.Normal(1, 1), (sweep.Normal(high=3), sweep.Exponential(2))],
        "kind": [Kind.one, 2],
        "": ["\0", "\n"],
    }
    assert_labels(run(runs=columns, out=tmp_path), sweep.load(tmp_path))


class Kind(enum.IntEnum):
    one = 1


def assert_labels(found: sweep.Result, expected: sweep.Result) -> None:
    """The same values of the same types."""
    assert repr(found._table.columns) == repr(expected._table.columns)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 24}, "steps is 23 there, 24 here"),
        ({"optimizer": "sgd"}, "optimizer is 'adam' there, 'sgd' here"),
        ({"runs": sweep.grid(seed=range(3), lr=[1e-2, 2e-3])}, "columns.lr is"),
        ({"runs": sweep.grid(seed=range(2), lr=[1e-2, 1e-3])}, "rows is 6 there, 4 here"),
        ({"task": "normal"}, "task.operation is 'a \\* b' there, 'a - b' here"),
    ],
)
def test_another_specification_is_refused_with_what_differs(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    run(out=tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    with pytest.raises(ValueError, match=words):
        run(out=tmp_path, **options)
    assert before == {name: (tmp_path / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    run(out=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    held = bytearray(path.read_bytes())
    if damage == "changed":
        held[-100] ^= 1
    path.write_bytes({"cut": held[:-50], "changed": held, "empty": b""}[damage])
    for use in (lambda: run(out=tmp_path), lambda: sweep.load(tmp_path)):
        with pytest.raises(ValueError, match=r"checkpoint.safetensors is damaged"):
            use()


def test_other_damaged_files_are_named(tmp_path: Path) -> None:
    run(out=tmp_path)
    (tmp_path / "runs.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"runs.parquet is damaged"):
        sweep.load(tmp_path)
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(ValueError, match=r"spec.json is damaged: not JSON"):
        run(out=tmp_path)
    (tmp_path / "spec.json").unlink()
    with pytest.raises(ValueError, match=r"has checkpoint.safetensors, .* but no spec.json"):
        run(out=tmp_path)
    with pytest.raises(FileNotFoundError, match="no results of a sweep"):
        sweep.load(tmp_path)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with (
        store.locked(tmp_path),
        pytest.raises(RuntimeError, match="another process is at work in"),
    ):
        run(out=tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"out: cannot write to {tmp_path / 'file' / 'results'}"):
        run(out=tmp_path / "file" / "results")
    with pytest.raises(OSError, match=f"out: cannot write to {tmp_path / 'file'}"):
        run(out=tmp_path / "file")


def test_a_disk_that_is_full_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"out: cannot write .*spec.json: No space left"):
        run(out=tmp_path, callback=lambda event: pytest.fail("it has begun"))
    assert os.listdir(tmp_path) == [".lock"]


def test_a_disk_that_gets_full_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(RuntimeWarning, match="No space left.*its result is returned") as caught:
        result = run(out=tmp_path, callback=lambda event: monkeypatch.setattr(os, "fsync", full))
    assert len(caught) == 1
    assert_same(result, run())
    monkeypatch.undo()
    assert sweep.load(tmp_path).columns()["status"] == ["not_run"] * 6


def full(handle: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


KILLED = """
import os, sys
sys.path[:0] = {path!r}
from small import run
from nalu_kernels import sweep
from nalu_kernels.sweep import watch
import importlib
module = importlib.import_module("nalu_kernels.sweep.run")
module._SAVE_SECONDS, module._SAVE_SHARE, watch.SEGMENT = 0.0, 0, 1e-3
looks = []
def look(event):
    looks.append(event)
    if len(looks) == 4:
        os.kill(os.getpid(), 9)
run({task!r}, sweep.grid(seed=range(4), lr=[1e-2]), out={out!r}, callback=look, **{options!r})
"""
ON_THE_KERNELS = {"backend": "cpu", "steps": 30_000, "test_every": 1_000}


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("arithmetic", {"steps": 23}),
        pytest.param("data", ON_THE_KERNELS, marks=[long, needs_trainer]),
        pytest.param("function", ON_THE_KERNELS, marks=[long, needs_trainer]),
    ],
)
def test_a_sweep_that_was_killed_goes_on(
    tmp_path: Path, task: str, options: dict[str, Any]
) -> None:
    script = KILLED.format(path=sys.path, out=str(tmp_path), task=task, options=options)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    left = sweep.load(tmp_path)
    assert 0 < sum(left.columns()["steps"]) < 4 * options["steps"]
    runs = sweep.grid(seed=range(4), lr=[1e-2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(task, runs, out=tmp_path, **options)
    assert_same(found, run(task, runs, **options))


def test_nothing_in_a_folder_is_a_pickle(tmp_path: Path) -> None:
    run(out=tmp_path)
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert held.pop(".lock") == b"" and held.pop("spec.json").startswith(b"{")
    for name, content in held.items():
        if name.endswith(".parquet"):
            assert content[:4] == content[-4:] == b"PAR1"
        else:  # the length of its header, which is JSON, before numbers
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_without_pyarrow_the_extra_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(ImportError, match=r"out needs pyarrow: pip install .*\[sweep\]"):
        run(out=tmp_path, callback=lambda event: pytest.fail("it has begun"))
