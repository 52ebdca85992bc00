"""``python -m nalu_kernels fit``: from a file to a formula, and to what is saved of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from laws import drawn
from torch import Generator, nn

from nalu_kernels import NAU, RealNPU
from nalu_kernels.__main__ import main
from nalu_kernels.fit import contenders

ROOT = Path(__file__).parents[2]

for package in ("matplotlib", "safetensors", "tqdm"):
    pytest.importorskip(package)


@pytest.fixture
def csv(tmp_path: Path, rng: Generator) -> Path:
    """y = (a + b) c, with a column of text."""
    table = drawn(rng, lambda a, b, c: (a + b) * c)
    rows = [
        f"{a!r},{b!r},{c!r},word,{y!r}"
        for (a, b, c), y in zip(table.x.tolist(), table.y.tolist(), strict=True)
    ]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["a,b,c,note,y", *rows]))
    return path


def find(*models: nn.Sequential) -> Any:
    """A search that finds them."""
    candidate = SimpleNamespace(name="NAU, RealNPU", complexity=5)
    found = [
        SimpleNamespace(candidate=candidate, model=model.eval(), scale=1.0, columns=None)
        for model in models
    ]
    return lambda *tensors, **options: found


def law() -> nn.Sequential:
    model = nn.Sequential(NAU(3, 2, dtype=torch.float64), RealNPU(2, 1, dtype=torch.float64))
    with torch.no_grad():
        model[0].W.copy_(torch.tensor([[1, 1, 0], [0, 0, 1]]))
        model[1].W_re.fill_(1)
        model[1].g.fill_(1)
    return model


def test_a_law(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contenders, "search", find(law()))
    out = tmp_path / "out"
    assert main(["fit", str(csv), "--target", "y", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "120 rows, y from a, b, c\n" in said
    assert "- column 'note' is left out: it has the text 'word', not numbers\n" in said
    assert "\ny = c*(a + b)\nexact: largest relative error" in said
    (chosen,) = (line for line in said.splitlines() if line.startswith(">"))
    assert chosen.split()[1] == "5" and chosen.endswith("exact           c*(a + b)")
    assert {path.name for path in out.iterdir()} == {
        "formula.json",
        "model.safetensors",
        "plot.png",
    }
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    saved = json.loads((out / "formula.json").read_text())
    assert saved["formula"] == ["c*(a + b)"] and saved["verdict"] == "exact"
    assert saved["target"] == "y" and saved["names"] == ["a", "b", "c"]
    assert sum(saved["rows"].values()) == 120
    assert [row["candidate"] for row in saved["checked"]].count("NAU, RealNPU") == 1
    from safetensors import safe_open

    with safe_open(out / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["inputs"]) == ["a", "b", "c"]
        assert torch.equal(file.get_tensor("0.W"), law()[0].W)


@pytest.mark.parametrize("page", ["README.md", "docs/fit.md"])
def test_what_the_pages_show(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for the other models in the table, which the clock has a say in, and for the errors,
    which are rounding errors."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / page).read_text(encoding="utf-8")
    (command,) = re.findall(r"^python -m nalu_kernels (fit examples/.*)$", text, re.MULTILINE)
    assert main([*command.split(), "--out", str(tmp_path)]) in (0, None)
    said = capsys.readouterr().out
    shown = text[text.index("examples/resistors.csv: ") :].partition("\n```")[0].splitlines()
    for line in [line for line in shown[:-1] if line[:2] != "  " or "complexity" in line]:
        assert re.sub(r"\d\.\de-\d+", "#", line) in re.sub(r"\d\.\de-\d+", "#", said), line


def test_no_formula_is_an_answer(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contenders, "search", find())
    monkeypatch.chdir(tmp_path)
    options = ["--target", "y", "--columns", "a", "--columns", "b", "--seed", "3"]
    assert main(["fit", str(csv), *options]) == 0
    said = capsys.readouterr().out
    assert "\nNo formula found.\nThe best model, linear regression, has an error of" in said
    saved = json.loads((tmp_path / "results/fit/data/formula.json").read_text())
    assert saved["verdict"] == "not a formula" and saved["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "--target", "y"], "none.csv: cannot read: No such file"),
        (["{csv}", "--target", "z"], "target: no column is called 'z'"),
        (["{csv}", "--target", "note"], "the target 'note' has to be of numbers: line 2"),
        (["{csv}", "--target", "y", "--columns", "note"], "'note' has to be of numbers"),
        (["{csv}", "--target", "y", "--out", "{csv}"], "expected a folder, got a file"),
        (["{csv}", "--target", "y", "--seconds", "0"], "a number of seconds above 0, got '0'"),
        (["{csv}", "--target", "y", "--seconds", "nan"], "of seconds above 0, got 'nan'"),
        (["{csv}", "--target", "y", "--seed", "-1"], "a whole number below 2**31, got '-1'"),
        (["{csv}", "--target", "y", "--seed", "2147483648"], "a whole number below 2**31"),
        (["{csv}"], "the following arguments are required: --target"),
        ([], "the following arguments are required: TABLE, --target"),
    ],
)
def test_what_is_refused_is_refused_in_a_line(
    arguments: list[str], message: str, csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *(argument.format(csv=csv) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m nalu_kernels: error: ") and message in error
    assert error.count("\n") == 1


def test_parquet_without_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["fit", str(tmp_path / "data.parquet"), "--target", "y"]) == 2
    assert "reading Parquet needs pyarrow: pip install" in capsys.readouterr().err


def test_an_extra_that_is_missing(
    csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert main(["fit", str(csv), "--target", "y"]) == 2
    assert "fit needs safetensors (" in capsys.readouterr().err


def test_names_that_would_move_the_cursor(
    tmp_path: Path,
    rng: Generator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(contenders, "search", find())
    table = drawn(rng, lambda a, b: a * b)
    path = tmp_path / "data.csv"
    rows = [
        f"{a!r},{b!r},{c!r},{y!r}"
        for (a, b, c), y in zip(table.x.tolist(), table.y.tolist(), strict=True)
    ]
    path.write_text("\n".join(["\x1b[2J,$b_{1$,c c,größe y", *rows]), encoding="utf-8")
    out = tmp_path / "out"
    assert main(["fit", str(path), "--target", "größe y", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "\ngröße y = `$b_{1$`*`\\x1b[2J`\nexact" in said
    assert said.replace("\n", "").isprintable()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_ctrl_c_gives_what_was_found(csv: Path, tmp_path: Path) -> None:
    rows = csv.read_text().splitlines()
    hard = [f"{row.rsplit(',', 1)[0]},{k * 0.37 % 1}" for k, row in enumerate(rows[1:])]
    csv.write_text("\n".join([rows[0], *hard]))
    command = [sys.executable, "-m", "nalu_kernels", "fit", str(csv), "--target", "y"]
    process = subprocess.Popen(
        [*command, "--seconds", "600", "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "searching: at most 600 s\n"
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "No formula found." in said and "Traceback" not in error
    assert (tmp_path / "out" / "formula.json").exists()
