"""Counting and adding digits: learned, on MNIST's files too, and wrong ones refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sklearn")

import tiny
from test_idx import write_mnist

from nalu_kernels import NAC
from nalu_kernels.__main__ import main
from nalu_kernels.experiments import load
from nalu_kernels.experiments.digits import COUNT, MODELS, SUM, Counter, load_images
from nalu_kernels.experiments.experiment import Trial
from nalu_kernels.experiments.refusal import Refusal
from nalu_kernels.experiments.training import build

CPU = torch.device("cpu")


def trained(model: str, task: str, steps: int, data: Path | None = None) -> dict[str, Any]:
    return tiny.trained("digits", Trial(model, task, 0), steps, data=data and str(data))


@pytest.mark.parametrize(
    ("model", "task", "steps"),
    [("NAC", SUM, 200), ("NAC", COUNT, 300), ("LSTM", SUM, 150)],
)
def test_it_learns_from_the_total_alone(model: str, task: str, steps: int) -> None:
    """Better than every constant answer, which is what a model that does not read gives."""
    error, constant = (trained(name, task, steps)["error"] for name in (model, "constant"))
    assert error["10"] < constant["10"] / 1.5
    if model == "NAC":
        assert error["100"] < constant["100"] * 3


@pytest.fixture
def mnist(tmp_path: Path, rng: torch.Generator) -> Path:
    """Fifty images of 28 x 28 in which column 2 k of digit k is bright."""
    labels = torch.arange(50, dtype=torch.uint8) % 10
    images = torch.randint(60, (50, 28, 28), generator=rng, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 2 * label : 2 * label + 4] = 255
    folder = tmp_path / "mnist"
    folder.mkdir()
    write_mnist(folder, images, labels, compress=True)
    return folder


def test_it_learns_from_mnists_files(mnist: Path) -> None:
    error, constant = (
        trained(model, SUM, 200, mnist)["error"]["10"] for model in ("LSTM", "constant")
    )
    assert error < constant / 1.5


def test_a_part_for_the_test_is_used_as_it_is(mnist: Path) -> None:
    alone = load_images(str(mnist), 0)
    assert (len(alone.training), len(alone.unseen)) == (40, 10)
    assert not set(alone.training.tolist()) & set(alone.unseen.tolist())
    assert alone.images.shape == (50, 1, 28, 28) and alone.images.max() == 1
    assert not torch.equal(alone.unseen, load_images(str(mnist), 1).unseen)
    for name in ("images-idx3", "labels-idx1"):
        content = (mnist / f"t10k-{name}-ubyte.gz").read_bytes()
        (mnist / f"train-{name}-ubyte.gz").write_bytes(content)
    both = load_images(str(mnist), 0)
    assert both.training.tolist() == list(range(50))
    assert both.unseen.tolist() == list(range(50, 100))


def test_the_folder_is_not_recorded(mnist: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = tiny.run("digits", out, steps=2, options={"data": str(mnist)})
    images = "files of MNIST's form, test part, 28 x 28, 40 to train and 10 to test"
    assert outcome.options["images"] == images
    assert str(tmp_path) not in (out / "results.json").read_text()
    with pytest.raises(Refusal, match="holds another run, with options"):
        tiny.run("digits", out, steps=2)
    labels = torch.arange(50, dtype=torch.uint8) % 10
    write_mnist(mnist, torch.zeros(50, 28, 28, dtype=torch.uint8), labels, compress=True)
    with pytest.raises(Refusal, match="holds another run, with options"):
        tiny.run("digits", out, steps=2, options={"data": str(mnist)})


@pytest.mark.parametrize(
    ("shape", "words"), [((5, 8, 7), "expected square images"), ((1, 8, 8), "too few images: 1")]
)
def test_images_that_will_not_do_are_refused(
    tmp_path: Path, shape: tuple[int, ...], words: str
) -> None:
    write_mnist(
        tmp_path, torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape[0], dtype=torch.uint8)
    )
    with pytest.raises(Refusal, match=words):
        load_images(str(tmp_path), 0)


@pytest.mark.parametrize("model", ["NAC", "NALU"])
def test_states_are_kept_at_first(model: str) -> None:
    counter = build(lambda: Counter(model, 10), CPU, "key")
    assert counter.keeps() == pytest.approx([0.849] * 10, abs=1e-3)
    if isinstance(counter.layer, NAC):
        with torch.no_grad():
            kept = counter.cell(torch.zeros(1, 10), torch.eye(10)[:1])
        assert kept[0, 0] == pytest.approx(0.849, abs=1e-3) and not kept[0, 1:].any()


def test_every_model_and_the_constant_on_both_tasks() -> None:
    trials = load("digits").trials(2)
    assert len(set(trials)) == len(trials) == 2 * 2 * (len(MODELS) + 1)


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> str:
    assert main(["digits", "--out", str(out), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert not out.exists(), "nothing is begun"
    return captured.err


def test_bad_data_is_refused_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], mnist: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "--data: expected a folder, got an empty name" in refused(capsys, out, "--data", "")
    assert "--data nowhere: no such folder" in refused(capsys, out, "--data", "nowhere")
    path = mnist / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path}: cannot be read" in refused(capsys, out, "--data", str(mnist))
    path.unlink()
    assert "but no t10k-labels-idx1-ubyte[.gz]" in refused(capsys, out, "--data", str(mnist))


def test_a_missing_package_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    message = refused(capsys, tmp_path / "out")
    assert "needs sklearn (" in message and message.endswith(": pip install scikit-learn\n")
