"""``python -m nalu_kernels extrapolate`` in small: it learns, repeats itself, saves, refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import nalu_kernels
from nalu_kernels.__main__ import main
from nalu_kernels.experiments import arithmetic, digits, extrapolate, identity, report, toolkit

for package in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(package)

pytestmark = pytest.mark.filterwarnings("ignore:nalu_kernels runs on:RuntimeWarning")

PNG = b"\x89PNG\r\n\x1a\n"


def run(part, out, *, seeds=1, steps=20):
    settings = toolkit.Settings(torch.device("cpu"), seeds, steps, out)
    with toolkit.Progress(part.total_steps(settings)) as progress:
        return part.run(settings, progress)


def refused(capsys, *arguments):
    """The one line on stderr of a call that ends with exit code 2."""
    assert main(["extrapolate", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A whole job in small: its folder."""
    folder = tmp_path_factory.mktemp("job")
    out = folder / "deep" / "er"
    assert main(["extrapolate", "--seeds", "2", "--steps", "30", "--out", str(out)]) == 0
    return out


def test_identity_is_learned_inside_only(tmp_path):
    result = run(identity, tmp_path, steps=450)
    mean_input = identity.INSIDE / 2  # what a network that answers 0 errs by
    for name in identity.ACTIVATIONS:
        assert result.inside[name][0] < mean_input / 5, name
    for name in ("Tanh", "ReLU6", "Sigmoid"):
        assert result.outside[name][0] > 10 * result.inside[name][0], name
    assert result.outside[identity.NAC_STACK][0] < 0.1


def test_arithmetic_is_learned(tmp_path):
    result = run(arithmetic, tmp_path, steps=300)
    for operation in ("a + b", "a - b"):
        scores = result.scores[operation]["NAC"]
        assert max(scores.inside_percent + scores.outside_percent) < 10
    assert result.scores["sqrt(a)"]["NALU"].inside_percent[0] < 50
    assert not result.scores["a * b"]["NAC"].solved[0]


def test_digit_sums_are_learned_from_the_sum_alone(tmp_path):
    errors = run(digits, tmp_path, steps=1200).errors
    for model in ("NAC", "LSTM"):
        assert errors[model]["10"][0] < errors["constant"]["10"][0] / 2, model


@pytest.mark.parametrize("part", [identity, arithmetic, digits], ids=lambda part: part.__name__)
def test_same_seed_same_numbers(part, tmp_path):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = asdict(run(part, tmp_path, seeds=2))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    torch.manual_seed(2)
    assert asdict(run(part, tmp_path, seeds=2)) == first


def test_a_seed_means_the_same_however_many_there_are(tmp_path):
    one, two = (run(arithmetic, tmp_path, seeds=seeds).scores for seeds in (1, 2))
    for operation, models in one.items():
        for model, scores in models.items():
            found = two[operation][model].outside[0]
            assert math.isclose(scores.outside[0], found, rel_tol=1e-4), (operation, model)


def test_every_step_is_counted(tmp_path):
    settings = toolkit.Settings(torch.device("cpu"), 2, 7, tmp_path)
    for part in (identity, arithmetic, digits):
        with toolkit.Progress(0) as progress:
            steps = 0

            def count(more):
                nonlocal steps
                steps += more

            progress.advance = count
            part.run(settings, progress)
        assert steps == part.total_steps(settings), part.__name__


def test_the_results_are_saved(job):
    assert sorted(path.name for path in job.iterdir()) == ["plot.png", "results.json"]
    image = (job / "plot.png").read_bytes()
    assert image.startswith(PNG) and len(image) > 10_000
    numbers = json.loads((job / "results.json").read_text())
    assert numbers["nalu_kernels"] == nalu_kernels.__version__
    assert numbers["torch"] == torch.__version__
    assert numbers["backend"] == nalu_kernels.which_backend(torch.empty(1))[0]
    assert (numbers["device"], numbers["seeds"], numbers["steps"]) == ("cpu", 2, 30)
    parts = ("identity", "arithmetic", "digits")
    assert all(numbers["wall_seconds"][part] > 0 and numbers[part]["claims"] for part in parts)
    assert set(numbers["arithmetic"]["scores"]) == set(arithmetic.OPERATIONS)
    for models in numbers["arithmetic"]["scores"].values():
        assert set(models) == {"NAC", "NALU", "ReLU6", "Linear"}
        assert all(len(scores["outside"]) == 2 for scores in models.values())
    assert all(len(errors["100"]) == 2 for errors in numbers["digits"]["errors"].values())


def test_the_printed_tables_fit_100_columns(capsys, tmp_path):
    assert main(["extrapolate", "--seeds", "1", "--steps", "3", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert max(map(len, captured.out.replace(str(tmp_path), "out").splitlines())) <= 100
    assert f"back end {nalu_kernels.which_backend(torch.empty(1))[0]}" in captured.out
    assert [line.split(":")[0] for line in captured.err.splitlines()] == [
        "identity",
        "arithmetic",
        "digits",
    ]


def test_the_claims_follow_the_numbers():
    solved = arithmetic.Scores([0.1] * 2, [0.1] * 2, [1.0] * 2, [1.0] * 2, [True, True])
    failed = arithmetic.Scores([9.0] * 2, [9.0] * 2, [90.0] * 2, [90.0] * 2, [False, False])
    for scores, word in ((solved, "yes, on 2 of 2 seeds"), (failed, "no, on 0 of 2 seeds")):
        models = {name: scores for name in ("NAC", "NALU", "ReLU6", "Linear")}
        table = {operation: models for operation in arithmetic.OPERATIONS}
        claims = arithmetic.Arithmetic((1, 4), (4, 8), 0.02, table).claims()
        assert f"NALU extrapolates a / b: {word}" in claims
    assert report.how_often([True, False, False]) == "partly, on 1 of 3 seeds"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "nowhere"], "--device nowhere: not usable here"),
        (["--device", "meta"], "--device meta: not usable here"),
        (["--seeds", "0"], "--seeds: expected a whole number of at least 1, got '0'"),
        (["--steps", "many"], "--steps: expected a whole number of at least 1, got 'many'"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(capsys, tmp_path, arguments, words):
    assert words in refused(capsys, "--out", tmp_path, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_refused(capsys, tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert f"--out {file}/in: cannot write there" in refused(capsys, "--out", f"{file}/in")


@pytest.mark.parametrize("package", ["matplotlib", "sklearn", "tqdm"])
def test_a_missing_package_is_named(capsys, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(capsys, "--out", tmp_path)
    assert package in message and "nalu_kernels[experiments]" in message


def test_an_interruption_loses_no_finished_part(capsys, tmp_path, monkeypatch):
    def interrupted(settings, progress):
        raise KeyboardInterrupt

    first, second, third = extrapolate._PARTS
    parts = (first, second._replace(run=interrupted), third)
    monkeypatch.setattr(extrapolate, "_PARTS", parts)
    assert main(["extrapolate", "--seeds", "1", "--steps", "3", "--out", str(tmp_path)]) == 130
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert "identity" in numbers and "arithmetic" not in numbers
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    report.write_json(path, {"kept": [1.5, math.inf, math.nan]})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        report.write_atomic(path, fail)
    assert json.loads(path.read_text()) == {"kept": [1.5, None, None]}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00123456, "0.00123"),
        (0.000123456, "1.2e-04"),
        (7.5, "7.50"),
        (99.96, "100"),
        (999.7, "1000"),
        (427.4, "427"),
        (12345.0, "1.2e+04"),
        (math.inf, "overflow"),
        (math.nan, "overflow"),
    ],
)
def test_numbers_are_short(value, text):
    assert report.number(value) == text


def test_nan_is_the_worst_error():
    assert report.median([math.nan, 1.0, 2.0]) == 2.0
    assert report.best([math.nan, 3.0]) == 3.0
    assert report.median([math.nan, math.nan, 1.0]) == math.inf


def test_from_the_command_line():
    def call(*arguments):
        command = [sys.executable, "-m", "nalu_kernels", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    helped = call()
    assert helped.returncode == 0 and "extrapolate" in helped.stdout
    bad = call("extrapolate", "--seeds", "0")
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and bad.stdout == ""


def test_importing_the_library_imports_no_optional_package():
    # tqdm is torch's own import where it is installed
    code = (
        "import sys, nalu_kernels, nalu_kernels.__main__; "
        "print({'matplotlib', 'sklearn', 'nalu_kernels.experiments'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
