"""Laws, tables of them, and what is made of a method's answer."""

from __future__ import annotations

import json
import math
import runpy
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from nalu_kernels.experiments import discover, load, regressors, runner, summary
from nalu_kernels.experiments.experiment import Outcome
from nalu_kernels.experiments.laws import KINDS, LAWS
from nalu_kernels.experiments.refusal import Refusal
from nalu_kernels.experiments.regressors import Found, Method, Request
from nalu_kernels.fit import fit
from nalu_kernels.sweep.watch import Watch

for package in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(package)

SCRIPT = Path(__file__).parents[2] / "examples" / "discover.py"


def run(out: Path, *laws: str, methods: tuple[str, ...] = ("linear",), **more: Any) -> Outcome:
    narrowed = {"tasks": laws, "models": methods}
    return runner.run(load("discover"), steps=1, jobs=1, out=str(out), narrowed=narrowed, **more)


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["trials"]
    return found


def test_the_laws_are_those_that_were_asked_for() -> None:
    assert len(LAWS) >= 25
    assert {law.kind for law in LAWS.values()} == {*KINDS}
    assert {len(law.names) for law in LAWS.values()} == {*range(2, 10)}
    assert all("," not in name and len(name) <= 20 for name in LAWS)


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_what_its_text_says(name: str) -> None:
    law = LAWS[name]
    x = law.inside(20, "test")
    words = {"sqrt": math.sqrt, "pi": math.pi}
    plain = [
        eval(law.formula, {}, {**words, **dict(zip(law.names, row, strict=True))})
        for row in x.tolist()
    ]
    torch.testing.assert_close(law(x), torch.tensor(plain, dtype=torch.float64))
    assert {symbol.name for symbol in law.sympy().free_symbols} == {*law.names}


@pytest.mark.parametrize("name", LAWS)
def test_rows_stay_in_their_ranges(name: str) -> None:
    law = LAWS[name]
    inside, outside = law.inside(500, "test"), law.outside(500, "test")
    assert torch.equal(inside, law.inside(500, "test"))
    assert not torch.equal(inside, law.inside(500, "others"))
    for column, beyond, (low, high) in zip(inside.T, outside.T, law.inputs.values(), strict=True):
        assert low <= column.min() < column.max() <= high
        largest = max(-low, high)
        assert largest <= beyond.abs().min() < beyond.abs().max() <= 2 * largest
        assert bool((beyond < 0).any()) == (low < 0) and bool((beyond > 0).any())
    for x in (inside, outside):
        y = law(x)
        assert y.isfinite().all() and y.std() > 0 and 1e-3 < y.abs().median() < 1e6


def test_noise_is_of_each_target() -> None:
    law = LAWS["force"]
    x = law.inside(5000, "test")
    ratio = discover.noisy(law, x, 0.01, 0) / law(x) - 1
    assert abs(float(ratio.std()) - 0.01) < 0.001
    assert torch.equal(discover.noisy(law, x, 0.0, 0), law(x))


@pytest.mark.parametrize(
    ("off", "formula", "recovered"),
    [(0.0, "m*a", True), (0.5e-5, "m*a", True), (2e-5, "m*a", False), (0.0, "", False)],
)
def test_one_rule_says_what_is_recovered(
    tmp_path: Path, off: float, formula: str, recovered: bool
) -> None:
    def law(x: Tensor) -> Tensor:
        return x.prod(1) * (1 + off)

    method = Method(lambda request: Found(formula, law, "exact"))
    with patch.dict(regressors.METHODS, linear=method):
        found = run(tmp_path, "force").rows[0]
    assert found["exact"]["recovered"] == found["1 % noise"]["recovered"] == recovered
    assert found["exact"]["inside"] == pytest.approx(off, rel=1e-6, abs=1e-15)


def test_what_is_no_number_is_no_formula(tmp_path: Path) -> None:
    method = Method(lambda request: Found("nan", lambda x: x[:, 0] * math.nan))
    with patch.dict(regressors.METHODS, linear=method):
        found = run(tmp_path, "force").rows[0]["exact"]
    assert not found["recovered"] and found["inside"] == math.inf


def test_a_wider_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "net force")
    first = rows(tmp_path)
    assert [row["exact"]["recovered"] for row in first] == [True]
    run(tmp_path, "net force,lens")
    assert "going on: 1 trials had been finished before" in capsys.readouterr().out
    both = rows(tmp_path)
    assert first[0] in both and len(both) == 2
    assert not next(row for row in both if row["task"] == "lens")["exact"]["recovered"]
    run(tmp_path, "net force,lens")
    assert "nothing is trained" in capsys.readouterr().out and rows(tmp_path) == both


def test_the_methods_that_are_always_there(tmp_path: Path) -> None:
    methods = ("fit", "linear", "boosting")
    with patch.dict(regressors._BOOSTING, n_estimators=(5, 10)):
        found = {row["model"]: row for row in run(tmp_path, "force", methods=methods).rows}
    assert found["fit"]["exact"]["recovered"] and found["fit"]["exact"]["formula"] == "a*m"
    assert found["fit"]["exact"]["verdict"] == "exact"
    assert (
        not found["linear"]["exact"]["recovered"] and "*m + " in found["linear"]["exact"]["formula"]
    )
    assert found["boosting"]["exact"]["formula"] == ""


def test_a_signal_does_not_shorten_a_search(tmp_path: Path) -> None:
    """It is the run's, which would record what a search had found by then."""
    handler = signal.getsignal(signal.SIGTERM)
    seen = []

    def watched(*arguments: Any, **more: Any) -> Any:
        with Watch(None):
            seen.append(signal.getsignal(signal.SIGTERM))
        return fit(*arguments, **more)

    with patch.object(regressors, "fit", watched):
        run(tmp_path, "net force", methods=("fit",))
    assert len(seen) == 2
    # Only the runner's own handler, which is not the Watch's.
    assert all(getattr(one, "__self__", None) is None for one in seen)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_gplearn(tmp_path: Path) -> None:
    pytest.importorskip("gplearn", reason="gplearn is not installed")
    found = run(tmp_path, "force", methods=("gplearn",)).rows[0]["exact"]
    assert found["recovered"] and "mul(" in found["formula"]


def test_a_method_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gplearn", "gplearn.genetic"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Refusal, match=r"the method gplearn needs gplearn.*pip install gplearn"):
        run(tmp_path / "out", "force", methods=("linear", "gplearn"))
    assert not (tmp_path / "out").exists()


def test_its_section(tmp_path: Path) -> None:
    def answer(request: Request) -> Found:
        return Found("add(x, 0.12345)", lambda x: x.sum(1))

    with patch.dict(regressors.METHODS, fit=Method(answer), gplearn=Method(answer)):
        run(tmp_path / "discover", *LAWS, methods=("fit", "gplearn", "linear"))
    page = summary.page(tmp_path)
    section = page[page.index("## discover: ") :]
    assert "1 seed, 1 seconds for each method and table" in section
    assert all(f"\n{law.name} " in section and law.formula in section for law in LAWS.values())
    table = section.split("```")[1]
    assert max(map(len, table.splitlines())) <= 100
    assert "fit: add(x, 0.1235)" in table and "published" not in section
    assert "exact: laws recovered: fit 0 of" in section


def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["--laws", "force", "--methods", "linear", "--seconds", "1", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["discover.py", *asked, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0 and [row["task"] for row in rows(tmp_path)] == ["force"]


def test_the_script_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main(["--laws", "entropy", "--out", str(tmp_path)]) == 2
    assert "--tasks entropy: 'entropy' is none of 'force'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--seconds", "0"])
    assert "expected a whole number of at least 1" in capsys.readouterr().err
