"""Every experiment in small: saved whole, the same again, resumed to the same numbers, refused."""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import tiny
import torch

import nalu_kernels
from nalu_kernels.__main__ import main
from nalu_kernels.experiments import NAMES, load, report, runner, store, summary, training
from nalu_kernels.experiments.benchmark import Benchmark
from nalu_kernels.experiments.experiment import Settings, Trial
from selection import long

for package in ("gymnasium", "matplotlib", "num2words", "sklearn", "tqdm"):
    pytest.importorskip(package)

PNG = b"\x89PNG\r\n\x1a\n"
# More than a chunk, so that a checkpoint falls within; in this process chunks can be short.
STEPS, SHORT, SHORT_CHUNK = 70, 6, 4
# Models of identity, where a run needs no more.
FEW = ["ELU", "ReLU", "Sigmoid", "Tanh", "NAC"]
ONE = {"narrowed": {"models": ["NAC"]}}


def rows(folder: Path) -> list[dict[str, Any]]:
    return tiny.numbers(json.loads((folder / "results.json").read_text())["trials"])


def one_of_each_model(name: str, folder: Path) -> list[tuple[Trial, Settings, dict[str, Any]]]:
    """Trials, the settings of the whole run, and the numbers found then."""
    options = runner._own_defaults(load(name))
    settings = Settings(torch.device("cpu"), 1, SHORT, folder, options=options)
    found: dict[str, tuple[Trial, Settings, dict[str, Any]]] = {}
    for row in rows(folder):
        trial = Trial(row.pop("model"), row.pop("task"), row.pop("seed"))
        found.setdefault(trial.model, (trial, settings, row))
    return list(found.values())


def finite(measured: dict[str, Any]) -> dict[str, Any]:
    """As results.json has it."""
    return tiny.numbers([json.loads(json.dumps(report.finite(measured)))])[0]


def saved(name: str, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["plot.png", "results.json"]
    image = (folder / "plot.png").read_bytes()
    assert image.startswith(PNG) and len(image) > 10_000
    text = (folder / "results.json").read_text()
    recorded = json.loads(text)
    assert recorded["experiment"] == name
    assert recorded["nalu_kernels"] == nalu_kernels.__version__
    assert recorded["torch"] == torch.__version__
    assert recorded["backend"] == nalu_kernels.which_backend(torch.empty(1))[0]
    assert (recorded["device"], recorded["seeds"], recorded["steps"]) == ("cpu", 1, SHORT)
    assert recorded["claims"]
    assert all(row["seconds"] >= 0 for row in recorded["trials"])
    assert str(folder) not in text


def the_same_again(name: str, folder: Path, checkpoints: Path) -> None:
    """Alone, stopped and resumed, and whatever the global generator's state is, which stays."""
    torch.manual_seed(torch.initial_seed() + 1)
    state = torch.get_rng_state()
    stops = 0
    for trial, settings, wanted in one_of_each_model(name, folder):
        path = checkpoints / f"{stops}.pt"
        stopping = training.Training(settings.device, path, stopping=lambda: True)
        try:
            load(name).run(trial, settings, stopping)
        except training.Stopped:
            stops += 1
            assert path.exists()
        resumed = training.Training(settings.device, path)
        assert finite(load(name).run(trial, settings, resumed)) == report.finite(wanted), trial
    assert stops >= 2 or isinstance(load(name), Benchmark)  # whose trainer is stopped by signals
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


class Counting(runner.Progress):
    shown: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, name: str, count: int, things: str, steps: int, done: int = 0) -> None:
        self.shown[:] = [(count, steps)]
        super().__init__(name, count, things, steps, done)

    def show(self, finished: int, steps: int, also: str = "") -> None:
        self.shown.append((finished, steps))


def narrowed(name: str, folder: Path) -> tuple[dict[str, list[str]], set[str]]:
    """To the first name of every axis but the last model; what it says of the other names is
    nothing."""
    axes = load(name).axes()
    choice = {axis: list(names[:1]) for axis, names in axes.items() if len(names) > 1}
    choice["models"] = [axes["models"][-1]]
    outcome = tiny.run(name, folder, steps=SHORT, narrowed=choice)
    assert outcome.narrowed == choice
    assert json.loads((folder / "results.json").read_text())["narrowed"] == choice
    return choice, {row["model"] for row in outcome.rows} - {load(name).yardstick}


@pytest.mark.parametrize("name", NAMES)
def test_narrowed_and_widened_saved_and_the_same_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "Progress", Counting)
    monkeypatch.setattr(training, "CHUNK", SHORT_CHUNK)
    folder = tmp_path / "runs" / "run"
    choice, models = narrowed(name, folder)
    assert [*models] == choice["models"]
    assert f"narrowed to models {choice['models'][0]}" in capsys.readouterr().out
    part = rows(folder)
    with tiny.quick():
        page = summary.page(folder.parent)
    assert f"Small size, narrowed to models {choice['models'][0]}" in page

    tiny.run(name, folder, steps=SHORT)
    printed = capsys.readouterr().out.replace(str(folder), "out")
    assert f"going on: {len(part)} trials had been finished before" in printed
    if not isinstance(load(name), Benchmark):  # whose trainer shows how far it is
        assert Counting.shown[0] == Counting.shown[-1], "not every step is counted"
    whole = rows(folder)
    assert len(whole) > len(part) and all(row in whole for row in part)
    assert "narrowed" not in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert f"back end {nalu_kernels.which_backend(torch.empty(1))[0]}" in printed
    saved(name, folder)
    with tiny.quick():
        assert "narrowed" not in summary.page(folder.parent)
        the_same_again(name, folder, tmp_path / "checkpoints")


def test_a_failure_loses_no_finished_trial(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load("identity")
    run = type(experiment).run

    def failing(self: Any, trial: Trial, *rest: Any) -> dict[str, Any]:
        if trial.model == "ReLU6":
            raise KeyboardInterrupt
        return run(self, trial, *rest)

    monkeypatch.setattr(type(experiment), "run", failing)
    arguments = ["identity", "--seeds", "1", "--steps", "3", "--jobs", "1", "--out", str(tmp_path)]
    assert main(arguments) == 130
    assert "run it again, without --fresh, to go on" in capsys.readouterr().err
    assert [row["model"] for row in rows(tmp_path)] == ["Hardtanh", "Sigmoid"]
    monkeypatch.undo()
    assert main(arguments) == 0
    assert "going on: 2 trials had been finished before" in capsys.readouterr().out
    assert len(rows(tmp_path)) == 15


def test_a_finished_run_is_shown_again_and_more_seeds_are_added(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tiny.run("identity", tmp_path, steps=3, **ONE)
    first = rows(tmp_path)
    tiny.run("identity", tmp_path, steps=3, **ONE)
    assert "nothing is trained" in capsys.readouterr().out
    assert rows(tmp_path) == first
    tiny.run("identity", tmp_path, seeds=2, steps=3, **ONE)
    assert [row for row in rows(tmp_path) if row["seed"] == 0] == first
    assert len(rows(tmp_path)) == 2 * len(first)


@long
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone and with processes; interrupted within a trial and between two."""
    run = functools.partial(tiny.run, "identity", steps=STEPS, narrowed={"models": FEW})
    run(tmp_path / "whole")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    interruptions = 0
    save = training.Training._save

    def save_and_interrupt(self: training.Training, step: int, stateful: dict[str, Any]) -> None:
        nonlocal interruptions
        save(self, step, stateful)
        interruptions += 1
        if interruptions in (1, 4):
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "_save", save_and_interrupt)
    for finished in (0, 3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "one")
        assert len(rows(tmp_path / "one")) == finished
        assert len(list((tmp_path / "one" / "checkpoints").iterdir())) == 1
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for folder, jobs in (("one", 1), ("two", 2)):
        run(tmp_path / folder, jobs=jobs)
        assert rows(tmp_path / folder) == rows(tmp_path / "whole")
        assert not (tmp_path / folder / "checkpoints").exists()


@long
@pytest.mark.parametrize(
    "number",
    [
        # Without a process, test_an_interrupted_run_goes_on_to_the_same_numbers has it.
        signal.SIGINT,
        signal.SIGTERM,
    ],
    ids=str,
)
def test_processes_are_stopped_and_go_on(number: signal.Signals, tmp_path: Path) -> None:
    """A signal to the whole group, as a terminal or a cluster sends it. The script comes from
    standard input, and does not ask for its __name__."""
    arguments = ["identity", "--seeds", "1", "--steps", "1000", "--jobs", "2", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    with process.stdin as script:
        script.write(
            "import sys\n"
            "from nalu_kernels.__main__ import main\n"
            f"sys.exit(main({[*arguments, str(tmp_path)]}))\n"
        )
    process.stdin = None  # communicate() would flush it
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / "results.json").exists() and rows(tmp_path):
            break
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run it again, without --fresh, to go on" in errors and "Traceback" not in errors
    assert rows(tmp_path)
    # One had started before that: its checkpoint is there.
    assert list((tmp_path / "checkpoints").glob("*.pt"))


@long
def test_workers_end_with_the_run(tmp_path: Path) -> None:
    """Killed, it cannot tell them to."""
    arguments = ["identity", "--seeds", "1", "--steps", "100000", "--jobs", "2", "--out"]
    command = [sys.executable, "-m", "nalu_kernels", *arguments, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)

    def alive() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def within(seconds: float, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)
        return condition()

    try:
        assert within(120, lambda: (tmp_path / "results.json").exists())
        time.sleep(3.0)  # the workers are being started
        process.kill()
        process.wait()
        assert within(60, lambda: not alive())
    finally:
        if alive():
            os.killpg(process.pid, signal.SIGKILL)


def test_a_worker_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed for its memory, say: no traceback, and what had finished is kept."""

    class Killed(multiprocessing.context.SpawnContext):
        def Process(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["target"], kwargs["args"] = os._exit, (9,)
            return super().Process(*args, **kwargs)

    monkeypatch.setattr(runner.multiprocessing, "get_context", lambda kind: Killed())
    with pytest.raises(runner.Refusal, match="a training process ended"):
        tiny.run("identity", tmp_path, steps=3, jobs=2)


def test_a_script_from_standard_input_with_two_jobs_is_not_imported_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ModuleType("__main__")
    script.__file__ = "<stdin>"
    monkeypatch.setitem(sys.modules, "__main__", script)
    before, prepared = multiprocessing.spawn.get_preparation_data, []

    def watched(name: str) -> dict[str, Any]:
        prepared.append(before(name))
        raise InterruptedError("no process is needed here")

    monkeypatch.setattr(multiprocessing.spawn, "get_preparation_data", watched)
    with pytest.raises(InterruptedError):
        tiny.run("identity", tmp_path, steps=3, jobs=2)
    assert prepared and not any(key.startswith("init_main") for key in prepared[0])
    assert sys.modules["__main__"] is script


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a call that ends with exit code 2."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "nowhere"], "--device nowhere: not usable here"),
        (["--device", "meta"], "--device meta: not usable here"),
        (["--seeds", "0"], "--seeds: expected a whole number of at least 1, got '0'"),
        (["--steps", "many"], "--steps: expected a whole number of at least 1, got 'many'"),
        (["--jobs", "-1"], "--jobs: expected a whole number of at least 1, got '-1'"),
        (["--out", ""], "--out: expected a folder, got an empty name"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
@pytest.mark.parametrize("name", ["identity", "words"])
def test_a_bad_value_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    arguments: list[str],
    words: str,
) -> None:
    assert words in refused(capsys, name, "--out", tmp_path, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_experiment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "invalid choice: 'colours'" in refused(capsys, "colours")


@pytest.mark.parametrize("name", NAMES)
def test_an_unwritable_folder_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    words = f"--out {file}/in: cannot write there"
    assert words in refused(capsys, name, "--out", f"{file}/in")
    words = f"--out {file}: expected a folder, got a file"
    assert words in refused(capsys, name, "--out", file)


@pytest.mark.parametrize("command", [["all"], ["report"]], ids=str)
def test_an_empty_name_is_not_the_default_folder(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    wanted = "--out: expected a folder, got an empty name"
    assert wanted in refused(capsys, *command, "--out", "")


def test_a_full_disk_keeps_what_had_finished(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store.write_json

    def full(path: Path, recorded: dict[str, Any]) -> None:
        if len(recorded["trials"]) == 3:
            raise OSError(28, "No space left on device")
        write(path, recorded)

    monkeypatch.setattr(store, "write_json", full)
    arguments = ["identity", "--seeds", "1", "--steps", "3", "--jobs", "1", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "results.json: cannot write: No space left on device" in capsys.readouterr().err
    assert len(rows(tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 4}, "holds another run, with steps 3 instead of 4"),
        ({"seeds": 1}, "holds 2 seeds, more than the 1 asked for"),
        ({"full": True}, "holds another run, with full False instead of True"),
        ({"narrowed": {"models": ["NAC"]}}, "holds more than is asked for, such as ELU on y = x"),
    ],
)
def test_another_runs_results_are_not_overwritten(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    request = {"seeds": 2, "steps": 3, "narrowed": {"models": ["ELU", "NAC"]}}
    tiny.run("identity", tmp_path, **request)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(runner.Refusal, match=words):
        tiny.run("identity", tmp_path, **{**request, **change})
    assert (tmp_path / "results.json").read_bytes() == before
    tiny.run("identity", tmp_path, **{**request, **change}, fresh=True)
    assert (tmp_path / "results.json").read_bytes() != before


def test_what_is_not_the_runs_own_stays(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.pt").touch()
    for fresh in (False, True):
        tiny.run("identity", tmp_path, steps=3, fresh=fresh, **ONE)
        assert (tmp_path / "checkpoints" / "mine.pt").exists()


def test_a_checkpoint_is_of_one_run_only(tmp_path: Path) -> None:
    names = set()
    for steps in (3, 4):
        recorded = {**dict.fromkeys(store._SAME), "steps": steps, "seeds": 1}
        trial = Trial("m", "t", 0)
        names.add(store.Store(tmp_path, recorded, [trial], fresh=True).checkpoint(trial))
    assert len(names) == 2


def test_an_interruption_while_saving_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = store.write_json, 0

    def interrupted(path: Path, recorded: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        write(path, recorded)

    monkeypatch.setattr(store, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.run("identity", tmp_path, steps=3)
    assert len(rows(tmp_path)) == 3


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    one = training.Training(torch.device("cpu"), tmp_path / "checkpoints" / "one.pt")
    with pytest.raises(runner.Refusal, match=r"one\.pt: cannot write the checkpoint"):
        one._save(64, {})


def test_a_full_disk_at_a_checkpoint_leaves_no_half_and_the_run_goes_on_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "CHUNK", 2)
    one = {"steps": 6, "narrowed": {"models": ["NAC"]}}
    tiny.run("identity", tmp_path / "whole", **one)
    write, writes = Path.write_bytes, 0

    def full(path: Path, content: Any) -> int:
        nonlocal writes
        writes += 1
        if writes == 1:
            return write(path, content)
        write(path, content[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        wanted = r"\.pt: cannot write the checkpoint: No space left on device; what"
        with pytest.raises(runner.Refusal, match=wanted):
            tiny.run("identity", tmp_path / "out", **one)
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert torch.load(checkpoint)["step"] == 2
    tiny.run("identity", tmp_path / "out", **one)
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with store.locked(tmp_path), pytest.raises(runner.Refusal, match="another run is at work"):
        tiny.run("identity", tmp_path, steps=3, **ONE)
    tiny.run("identity", tmp_path, steps=3, **ONE)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trials": []}', '{"trials": [{}]}'])
def test_results_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(runner.Refusal, match=r"results\.json: not "):
        tiny.run("identity", tmp_path)
    assert (tmp_path / "results.json").read_text() == text


def test_a_damaged_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    def stop(self: training.Training, step: int, stateful: dict[str, Any]) -> None:
        self._checkpoint.parent.mkdir(exist_ok=True)
        self._checkpoint.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny.run("identity", tmp_path, steps=STEPS)
    with pytest.raises(runner.Refusal, match=r"checkpoints/.*\.pt: cannot be read"):
        tiny.run("identity", tmp_path, steps=STEPS)


@pytest.mark.parametrize("package", ["matplotlib", "tqdm"])
def test_a_missing_package_is_named(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(capsys, "identity", "--out", tmp_path)
    assert f"needs {package} (" in message and message.endswith(f": pip install {package}\n")


def test_checkpoints_are_timed(tmp_path: Path) -> None:
    """Seconds of before an interruption count, those in between do not."""
    path = tmp_path / "checkpoints" / "one.pt"
    first = training.Training(torch.device("cpu"), path)
    first._before = 100.0
    first._save(64, {})
    time.sleep(0.1)
    second = training.Training(torch.device("cpu"), path)
    assert list(second.steps(66)) == [64, 65]
    assert 100 <= second.seconds < 100.1 + 1


def test_all_runs_every_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr(
        runner, "run", lambda experiment, **request: calls.append((experiment.name, request))
    )
    assert main(["all", "--out", str(tmp_path), "--jobs", "1"]) == 0
    common = {"full": False, "device": "cpu", "jobs": 1, "fresh": False}
    assert calls == [(name, {"out": f"{tmp_path}/{name}", **common}) for name in NAMES]


def test_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    for name in NAMES:
        assert name in listed
    assert main.__module__ == "nalu_kernels.__main__"


def test_each_runs_alone_from_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[2] / "examples"
    for name in NAMES:
        assert f'main(["{name}"' in (folder / f"{name}.py").read_text()
    size = ["--models", "NAC", "--seeds", "1", "--steps", "2", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["identity.py", *size, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(folder / "identity.py"), run_name="__main__")
    assert ended.value.code == 0
    assert [row["model"] for row in rows(tmp_path)] == ["NAC"]


def test_neither_the_library_nor_the_list_needs_an_optional_package() -> None:
    # tqdm is torch's own import where it is installed
    code = (
        "import sys, nalu_kernels; from nalu_kernels.__main__ import main; "
        "packages = ['matplotlib', 'sklearn', 'gymnasium', 'num2words']; "
        "print({*packages, 'nalu_kernels.experiments'} & set(sys.modules)); "
        "sys.modules.update(dict.fromkeys(packages)); main([])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("set()\n") and "gridworld" in found.stdout


def test_infinite_errors_come_back(tmp_path: Path) -> None:
    recorded = {key: None for key in store._SAME} | {"seeds": 1}
    kept = store.Store(tmp_path, recorded, [Trial("m", "t", 0)], fresh=False)
    kept.add((Trial("m", "t", 0), 1.0, {"error": math.nan, "errors": [math.inf, 1.5]}))
    (row,) = store.read(tmp_path / "results.json")["trials"]
    assert row["error"] == math.inf and row["errors"] == [math.inf, 1.5]
    assert kept.outcome().rows == [row]
