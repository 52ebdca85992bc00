"""Numbers in words."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import tiny
import torch

pytest.importorskip("num2words")

from nalu_kernels.__main__ import main
from nalu_kernels.experiments import load
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.training import build, generator
from nalu_kernels.experiments.words import (
    MODELS,
    NUMBERS,
    PARTS,
    TASK,
    Best,
    split,
    split_words,
    translator,
    vocabulary,
)

CPU = torch.device("cpu")


def test_words() -> None:
    numbers = vocabulary()
    assert len(numbers.words) == 30  # zero to nineteen, the tens, "hundred" and "and"
    spelled = [numbers.words[token] for token in numbers.tokens[334, : numbers.lengths[334]]]
    assert spelled == split_words("three hundred and thirty-four")
    assert len({tuple(row) for row in numbers.tokens.tolist()}) > NUMBERS - len(numbers.words)
    assert numbers.lengths.tolist()[:1] == [1] and int(numbers.lengths.max()) == 5


def test_the_parts() -> None:
    numbers = vocabulary()
    trainings = set()
    for seed in range(5):
        parts = split(generator("t", seed), numbers)
        assert {name: len(members) for name, members in parts.items()} == PARTS
        assert sorted(torch.cat([*parts.values()]).tolist()) == list(range(NUMBERS))
        training = parts["train"].tolist()
        assert {*range(20)} <= {*training}
        seen = {
            numbers.words[token]
            for value in training
            for token in numbers.tokens[value, : numbers.lengths[value]]
        }
        assert seen == {*numbers.words}
        trainings.add(tuple(training))
    assert len(trainings) == 5


@pytest.mark.parametrize("model", MODELS)
def test_what_follows_the_last_word_does_not_count(model: str) -> None:
    network = build(lambda: translator(model, 30, 500.0, 300.0), CPU, "t")
    tokens = torch.tensor([[4, 7, 0, 0, 0], [4, 7, 9, 9, 9]])
    answers = network(tokens, torch.tensor([2, 2]))
    shorter = network(tokens[:1, :2], torch.tensor([2]))
    torch.testing.assert_close(answers, shorter.expand(2))


def test_the_best_answers_are_kept() -> None:
    kept = Best()
    for step, error in enumerate((math.nan, 5.0, 2.0, 3.0, math.inf)):
        kept.see(step, error, torch.full((NUMBERS,), float(step)))
    assert (kept.step, kept.error, float(kept.answers.mean())) == (2, 2.0, 2.0)
    restored = Best()
    restored.load_state_dict(kept.state_dict())
    kept.see(9, 1.0, torch.zeros(NUMBERS))
    assert (restored.step, restored.error, float(restored.answers.mean())) == (2, 2.0, 2.0)


@pytest.mark.parametrize(
    ("model", "steps"), [("LSTM", 150), ("LSTM + NALU", 300), ("pairs + NALU", 1500)]
)
def test_it_learns(model: str, steps: int) -> None:
    first, later = (tiny.trained("words", Trial(model, TASK, 0), n) for n in (5, steps))
    assert later["train"] < first["train"] / 4
    assert later["test"] < first["test"] / 2
    assert len(later["answers"]) == PARTS["test"]


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("words", tmp_path, seeds=2, steps=3)
    printed = capsys.readouterr().out
    assert all(f"\n{model} " in printed for model in MODELS)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    rows = json.loads((tmp_path / "results.json").read_text())["trials"]
    assert [row["step"] for row in rows] == [3] * 2 * len(MODELS)
    assert [row.published for row in load("words").compare(outcome)].count("0.7218") == 1


def test_without_num2words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "num2words", None)
    assert main(["words", "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err.strip()
    assert message.endswith("pip install num2words") and "\n" not in message
    assert not (tmp_path / "out").exists()
