"""docs/training_a_nalu.md has the numbers of the study's file, and says what they say."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from nalu_kernels import NALU

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "training_a_nalu.md").read_text(encoding="utf-8")


def script() -> Any:
    path = ROOT / "examples" / "training_a_nalu.py"
    spec = importlib.util.spec_from_file_location("training_a_nalu", path)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


study = script()
FOUND = json.loads(study.RESULTS.read_text(encoding="utf-8"))
CHANGES = FOUND["changes"]


def solved(change: str) -> list[int]:
    return [CHANGES[change][task]["solved"] for task in study.TASKS]


def error(change: str, task: str) -> float:
    return CHANGES[change][task]["error"]


def test_tables_are_those_of_the_file() -> None:
    assert study.with_sections(PAGE, study.sections(FOUND)) == PAGE


def test_the_file_is_of_the_settings_that_the_script_has() -> None:
    assert list(CHANGES) == list(study.CHANGES)
    best = max(FOUND["tried"], key=lambda row: sum(row["solved"].values()))
    assert {name: FOUND["recommended"][name] for name in study.GRID} == {
        name: best[name] for name in study.GRID
    }
    setting = study.Setting(**{name: best[name] for name in study.GRID})
    assert json.loads(json.dumps(setting._asdict())) == FOUND["recommended"]
    assert not set(study.SEEDS) & set(study.TUNING)


def test_what_the_page_concludes() -> None:
    recommended = solved("as recommended")
    differences = list(study.TASKS).index("a - b")
    assert recommended[differences] == 42 and min(recommended) == 42
    assert min(recommended[:differences] + recommended[differences + 1 :]) > 90
    assert solved("a NAC in its place") == [100, 100, 0, 0, 0]
    assert sum(solved("rate 0.01, 2,000 steps")) > 0.95 * sum(recommended)
    assert all(sum(row["solved"].values()) <= 2 for row in FOUND["tried"] if row["rate"] == 0.001)
    assert CHANGES["squared error"]["a * b"]["solved"] == 0 == CHANGES["ε 0.01"]["a * b"]["solved"]
    assert all(a < b for a, b in zip(solved("the layer's own start"), recommended, strict=True))
    for task in ("a + b", "a * b", "a / b"):
        assert 1000 * error("β₂ 0.95", task) < error("as recommended", task)
    assert 10 * error("rate falls in the end", "sqrt(a)") < error("as recommended", "sqrt(a)")
    sums, _, _, quotients, _ = solved("untied")
    assert sums < recommended[0] and quotients > recommended[3]
    for signed in ("", ", gate with a bias"):
        name = f"trained on [-2, 2], tested on [-6, 6]{signed}"
        assert CHANGES[name]["a * b"]["solved"] == CHANGES[name]["a / b"]["solved"] == 0
        assert CHANGES[name]["a + b"]["solved"] == (100 if signed else 0)
    near_zero = solved("trained on [0, 1], tested on [1, 5]")
    assert near_zero[differences] == 64
    assert max(near_zero[:differences] + near_zero[differences + 1 :]) < 20
    assert solved("trained on [1, 10], tested on [10, 50]")[differences] == 100
    for clipped, usual in zip(solved("gradients clipped at norm 1"), recommended, strict=True):
        assert abs(clipped - usual) < 5
    for row in CHANGES["2,000 steps"].values():
        assert row["by"]["2000"] - row["by"]["600"] < 5
    relu = FOUND["relu"]
    assert max(row["above"] for row in relu["ε 0.01"].values()) < 5
    assert all(row["above"] == 0 for row in relu["no weight negative"].values())


def test_the_page_shows_what_its_code_prints(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
    (code,) = [text for kind, text in blocks if kind == "python" and "check_finite" in text]
    (shown,) = [text for kind, text in blocks if not kind]
    exec(compile(code, "training_a_nalu.md", "exec"), {"NALU": NALU, "torch": torch})
    assert capsys.readouterr().out.split() == shown.split()


def test_a_seed_does_not_depend_on_the_others() -> None:
    setting = study.Setting(steps=50)
    alone, among = study.train(setting, [7]), study.train(setting, [3, 7, 5])
    torch.testing.assert_close(alone.error[:, 0], among.error[:, 1], rtol=1e-3, atol=1e-5)


def test_clipping_is_of_each_seed(rng: Generator) -> None:
    parameters = [torch.zeros(3, 2, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)]
    sizes = torch.tensor([0.1, 3.0, 0.0])
    for parameter in parameters:
        grad = torch.rand(parameter.shape, generator=rng) + 0.5
        parameter.grad = grad * sizes.view(-1, *[1] * (grad.dim() - 1))
    before = [parameter.grad.clone() for parameter in parameters]
    study.clip(parameters, 1.0)
    for seed in range(3):
        mine = [parameter.grad[seed] for parameter in parameters]
        theirs = [grad[seed].clone().requires_grad_() for grad in before]
        for tensor in theirs:
            tensor.grad = tensor.detach().clone()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other.grad, rtol=1e-5, atol=1e-6)


def test_settings_reach_the_layer() -> None:
    setting = study.Setting(start=0.5, eps=0.01, tied=False, gate_bias=True)
    layer = study.layer_of(4, setting)
    assert isinstance(layer, NALU) and layer.eps == 0.01 and layer.gate_bias is not None
    for parameter in (layer.W_hat, layer.M_hat, layer.W_hat_mul, layer.M_hat_mul):
        assert parameter.abs().max() <= 0.5
    own = study.layer_of(4, study.Setting(start=0.0))
    torch.manual_seed(4)
    assert torch.equal(own.W_hat, NALU(2, 1).W_hat)


def test_wilson_and_medians() -> None:
    assert study.wilson(0, 100) == "0 (0 to 4)" and study.wilson(93, 100) == "93 (86 to 97)"
    assert study.median([1.0, math.nan, 2.0]) == 2.0


def test_a_page_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one section 'x', found 0"):
        study.with_sections("text", {"x": "table"})
