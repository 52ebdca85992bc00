"""RESULTS.md is made from the numbers, and stands as it was made."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny

from nalu_kernels.__main__ import main
from nalu_kernels.experiments import NAMES, load, summary
from nalu_kernels.experiments.experiment import Outcome
from nalu_kernels.experiments.store import read

for package in ("matplotlib", "tqdm"):
    pytest.importorskip(package)

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_page_is_what_its_numbers_make() -> None:
    assert (EXAMPLES / "RESULTS.md").read_text(encoding="utf-8") == summary.page(
        EXAMPLES / "results"
    )


def test_the_page_has_every_experiment_whole() -> None:
    """Its small size, or a part of it in another, a claim, a comparison, a plot, what differs."""
    page = (EXAMPLES / "RESULTS.md").read_text(encoding="utf-8")
    for name in NAMES:
        experiment = load(name)
        outcome = Outcome(read(EXAMPLES / "results" / name / "results.json"))
        assert outcome.narrowed or (outcome.seeds, outcome.steps) == experiment.small, name
        assert f"## {name}: {experiment.title}" in page
        assert experiment.claims(outcome) and experiment.compare(outcome)
        assert len(experiment.differs) > 40
    for picture in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (EXAMPLES / picture).read_bytes().startswith(b"\x89PNG")
    for first, second in re.findall(r"^\| (.*) \| .* \| (.*) \| .* \|$", page, re.MULTILINE):
        assert first or second == "published"


def test_every_published_figure_has_its_source() -> None:
    for name in NAMES:
        outcome = Outcome(read(EXAMPLES / "results" / name / "results.json"))
        for row in load(name).compare(outcome):
            assert row.ours and row.what, row
            assert bool(row.published) <= bool(row.source), row


def test_a_run_becomes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.run("identity", tmp_path / "runs" / "identity", steps=3)
    tiny.run("identity", tmp_path / "runs" / "again", steps=4)
    unfinished = tmp_path / "runs" / "static"
    shutil.copytree(tmp_path / "runs" / "identity", unfinished)
    recorded = json.loads((unfinished / "results.json").read_text())
    del recorded["claims"]
    (unfinished / "results.json").write_text(json.dumps(recorded))
    capsys.readouterr()
    for _ in range(2):
        assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page")]) == 0
        assert capsys.readouterr().out.endswith("RESULTS.md: again, identity\n")
    text = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "## again: " in text and "## identity: " in text and "static" not in text
    assert "results/again/plot.png" in text
    assert sorted(path.name for path in (tmp_path / "page" / "results" / "again").iterdir()) == [
        "plot.png",
        "results.json",
    ]


def test_bad_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: object) -> str:
        assert main(["report", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        return captured.err

    assert f"{tmp_path}: no finished run in it" in refused(tmp_path)
    assert "nowhere: no finished run in it" in refused("nowhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("half a")
    assert "results.json: not JSON" in refused(tmp_path)
    assert "name the folder that holds it" in refused(tmp_path / "run")
    assert not (tmp_path / "RESULTS.md").exists()
