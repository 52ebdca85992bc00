"""Which part of an experiment runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from nalu_kernels.__main__ import main
from nalu_kernels.experiments import NAMES, load, narrowing
from nalu_kernels.experiments.arithmetic import UNTRAINED
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.refusal import Refusal


@pytest.mark.parametrize(
    ("name", "axis", "words", "chosen"),
    [
        ("static", "models", ["NALU,NAC"], ["NAC", "NALU"]),
        ("static", "models", ["relu6", "nac"], ["NAC", "ReLU6"]),
        ("static", "tasks", ["a+b,sqrt( a )", "a ^2"], ["a + b", "a^2", "sqrt(a)"]),
        # names with a comma of their own, one of them after a shorter name
        ("words", "models", ["LSTM, unscaled"], ["LSTM, unscaled"]),
        ("words", "models", ["LSTM,LSTM + NAC"], ["LSTM", "LSTM + NAC"]),
        ("words", "models", ["LSTM,unscaled,LSTM"], ["LSTM", "LSTM, unscaled"]),
        ("single", "ranges", ["[1,2],[-2, 2]"], ["[-2, 2]", "[1, 2]"]),
    ],
)
def test_names_are_found(name: str, axis: str, words: list[str], chosen: list[str]) -> None:
    assert narrowing.choose(load(name), {axis: words}) == {axis: chosen}


@pytest.mark.parametrize("name", NAMES)
def test_all_names_are_the_whole_experiment(name: str) -> None:
    experiment = load(name)
    axes = experiment.axes()
    for wanted in ({}, dict.fromkeys(axes), {axis: [",".join(axes[axis])] for axis in axes}):
        assert narrowing.choose(experiment, wanted) == {}
    assert narrowing.trials(experiment, 2, {}) == experiment.trials(2)
    assert narrowing.words({}) == ""


@pytest.mark.parametrize("name", NAMES)
def test_every_name_leaves_trials_of_its_own(name: str) -> None:
    experiment = load(name)
    for axis, names in experiment.axes().items():
        parts = [
            set(narrowing.trials(experiment, 2, narrowing.choose(experiment, {axis: [one]})))
            for one in names
        ]
        for part, one in zip(parts, names, strict=True):
            places = [experiment.place(trial) for trial in part]
            assert {place.get(axis, one) for place in places} == {one}
            assert any(place.get(axis) for place in places)
        assert set.union(*parts) == set(experiment.trials(2))


def test_what_comes_along() -> None:
    """The yardstick of the tasks that are left."""
    choice = {"models": ["NALU"], "tasks": ["a + b"]}
    found = narrowing.trials(load("static"), 2, choice)
    assert found == [Trial(m, "a + b", seed) for m in ("NALU", UNTRAINED) for seed in (0, 1)]
    found = narrowing.trials(load("single"), 1, {"tasks": ["a + b"], "ranges": ["[1, 2]"]})
    models = ("NAC", "NALU", "NAU", "GNALU", "INALU")  # the others do not learn sums
    assert found == [Trial(model, "a + b [1, 2]", 0) for model in models]


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("programs", {"models": ["NAC"]}, "--models NAC: 'nac' is none of 'LSTM', 'LSTM + NAC', "),
        ("static", {"tasks": ["a + b,c"]}, "--tasks a + b,c: 'c' is none of 'a + b', 'a - b', "),
        ("static", {"tasks": [""]}, "--tasks : '' is none of 'a + b'"),
        ("single", {"ranges": ["[9, 9]"]}, "--ranges [9, 9]: '[9,9]' is none of '[-20, -10]', "),
        ("single", {"ranges": ["[1,2],[9,9],[1,2]"]}, "'[9,9]' is none of"),
        ("digits", {"models": ["constant"]}, "'constant' is none of 'NAC', 'NALU', "),
        ("identity", {"ranges": ["[1, 2]"]}, "--ranges [1, 2]: identity has --models and --tasks"),
        (
            "single",
            {"models": ["NAC", "NAC log"], "tasks": ["a * b"]},
            "--models NAC: single has no trial of it with tasks a * b",
        ),
    ],
)
def test_what_there_is_not_is_refused(
    name: str, wanted: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        narrowing.choose(load(name), wanted)
    assert message in str(refusal.value)


def test_at_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (["identity", "--ranges", "[1, 2]"], ["words", "--models", "NAC"]):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert " ".join(arguments[1:]) in captured.err and not (tmp_path / "out").exists()
    monkeypatch.setenv("COLUMNS", "1000")
    for name in NAMES:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        text = capsys.readouterr().out
        for axis in ("models", "tasks", "ranges"):
            names = load(name).axes().get(axis)
            assert (f"--{axis} " in text) == bool(names)
            assert names is None or ", ".join(names) in text
