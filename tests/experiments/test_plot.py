"""Plots are the same whatever the user has set up, and come after the numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from nalu_kernels.experiments import load, plot, refusal, runner
from nalu_kernels.experiments.experiment import Outcome
from nalu_kernels.experiments.store import read

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

RESULTS = Path(__file__).parents[2] / "examples" / "results"


def test_no_rcparam_changes_a_plot(tmp_path: Path) -> None:
    outcome = Outcome(read(RESULTS / "gridworld" / "results.json"))
    plot.save_plot(load("gridworld"), outcome, tmp_path / "plain.png")
    theirs = {"text.usetex": True, "font.size": 30, "savefig.format": "pdf", "lines.marker": "x"}
    with matplotlib.rc_context(theirs):
        plot.save_plot(load("gridworld"), outcome, tmp_path / "theirs.png")
        assert {name: matplotlib.rcParams[name] for name in theirs} == theirs
    plain, changed = ((tmp_path / f"{name}.png").read_bytes() for name in ("plain", "theirs"))
    assert plain == changed


MATPLOTLIBRC = """text.usetex: True
savefig.format: pdf
figure.dpi: 1e6
font.family: a family that is not there
backend: TkAgg
"""


def test_started_from_a_notebook_or_with_a_matplotlibrc_of_ones_own(tmp_path: Path) -> None:
    """A Jupyter kernel names its back end to its children: matplotlib itself cannot be imported
    where it is not installed."""
    code = (
        "import pathlib, sys\n"
        "from nalu_kernels.experiments import load, plot\n"
        "from nalu_kernels.experiments.experiment import Outcome\n"
        "from nalu_kernels.experiments.store import read\n"
        "folder, out = map(pathlib.Path, sys.argv[1:])\n"
        "outcome = Outcome(read(folder / 'results.json'))\n"
        "plot.save_plot(load('gridworld'), outcome, out)\n"
    )
    path, settings = tmp_path / "plot.png", tmp_path / "matplotlibrc"
    settings.write_text(MATPLOTLIBRC)
    subprocess.run(
        [sys.executable, "-c", code, str(RESULTS / "gridworld"), str(path)],
        env={
            **os.environ,
            "MPLBACKEND": "module://a_module_that_is_not_there",
            "MATPLOTLIBRC": str(settings),
        },
        check=True,
    )
    plain = tmp_path / "plain.png"
    plot.save_plot(load("gridworld"), Outcome(read(RESULTS / "gridworld" / "results.json")), plain)
    assert path.read_bytes() == plain.read_bytes()


def test_a_matplotlibrc_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def imported(name: str) -> SimpleNamespace:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(refusal.importlib, "import_module", imported)
    with pytest.raises(refusal.Refusal, match="matplotlib cannot be imported here: Unicode"):
        refusal.require("matplotlib")


def test_a_plot_on_a_full_disk_names_it_and_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, content: Any) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    outcome = Outcome(read(RESULTS / "gridworld" / "results.json"))
    with pytest.raises(refusal.Refusal, match=r"plot\.png: cannot write: No space left on device;"):
        plot.save_plot(load("gridworld"), outcome, tmp_path / "plot.png")
    assert list(tmp_path.iterdir()) == []


def test_the_named_back_end_stays_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(rcParams={})

    def imported(name: str) -> SimpleNamespace:
        assert name == "matplotlib" and "MPLBACKEND" not in os.environ
        return library

    monkeypatch.setenv("MPLBACKEND", "svg")
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.setattr(refusal.importlib, "import_module", imported)
    refusal.require("matplotlib")
    assert library.rcParams == {"backend": "svg"} and os.environ["MPLBACKEND"] == "svg"


def test_a_plot_that_cannot_be_made_is_named_after_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("a font\nis missing")

    identity = load("identity")
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(runner.Refusal, match=r"plot\.png: cannot write"):
        tiny.run("identity", tmp_path, steps=3, narrowed={"models": ["NAC"]})
    monkeypatch.setattr(type(identity), "draw", fail)
    with pytest.raises(runner.Refusal, match=r"cannot be drawn: ValueError: a font is missing;"):
        tiny.run("identity", tmp_path, steps=3, narrowed={"models": ["NAC"]})
    recorded = json.loads((tmp_path / "results.json").read_text())
    assert len(recorded["trials"]) == 1 and recorded["claims"]
    assert "NAC stack exact outside" in capsys.readouterr().out
    monkeypatch.undo()
    (tmp_path / "plot.png").rmdir()
    tiny.run("identity", tmp_path, steps=3, narrowed={"models": ["NAC"]})
    assert (tmp_path / "plot.png").is_file()
