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


def test_no_back_end_is_needed(tmp_path: Path) -> None:
    """Matplotlib itself cannot be imported where one that is not installed is named."""
    code = (
        "import pathlib, sys\n"
        "from nalu_kernels.experiments import load, plot\n"
        "from nalu_kernels.experiments.experiment import Outcome\n"
        "from nalu_kernels.experiments.store import read\n"
        "folder, out = map(pathlib.Path, sys.argv[1:])\n"
        "outcome = Outcome(read(folder / 'results.json'))\n"
        "plot.save_plot(load('gridworld'), outcome, out)\n"
    )
    path = tmp_path / "plot.png"
    subprocess.run(
        [sys.executable, "-c", code, str(RESULTS / "gridworld"), str(path)],
        env={**os.environ, "MPLBACKEND": "a-module-that-is-not-there"},
        check=True,
    )
    assert path.read_bytes().startswith(b"\x89PNG")


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
