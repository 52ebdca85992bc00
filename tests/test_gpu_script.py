"""The GPU script, ``python -m benchmarks.gpu``, as far as a CPU can prove it.

The dry run is the script itself, with small shapes, CPU tensors and interpreted kernels; what
becomes of crashes, hangs and wrong numbers is tested with made-up ones.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import table
from benchmarks.cases import BACKWARD
from benchmarks.contenders import EAGER
from benchmarks.gpu import __main__ as script
from benchmarks.gpu import benchmarks, errors, measure, parity, providers, sanitizer, small_set
from benchmarks.gpu import table as gpu_table
from benchmarks.gpu.cases import DRY_GROUPS, GROUPS, HIGHEST, GpuCase, Unit, units
from benchmarks.gpu.children import Ended, python, run_all
from benchmarks.gpu.device import DryRun
from benchmarks.gpu.providers import AUTOTUNED, COMPILED, PRODUCTS, Provider
from benchmarks.gpu.results import Clock, Results
from benchmarks.gpu.roofline import Roofline
from benchmarks.gpu.verdict import record, wanted
from nalu_kernels.triton import tiles
from selection import long

ROOT = Path(__file__).parent.parent
CASE = GpuCase(DRY_GROUPS[0], (3, 4, 2), BACKWARD, HIGHEST)

# What compute-sanitizer prints when it finds nothing.
FAKE_SANITIZER = f"""\
#!{sys.executable}
import subprocess, sys
tool = sys.argv[sys.argv.index("--tool") + 1]
status = subprocess.run(sys.argv[sys.argv.index({sys.executable!r}):]).returncode
if tool == "memcheck":
    print("========= ERROR SUMMARY: 0 errors")
else:
    print("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)")
sys.exit(status)
"""


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.environ["PATH"] if folder is None else f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a dry run of all three steps wrote: a case of every group."""
    folder = tmp_path_factory.mktemp("gpu")
    tool = folder / sanitizer.NAME
    tool.write_text(FAKE_SANITIZER)
    tool.chmod(0o755)
    output = folder / "gpu.json"
    only = ("--only", "forward+backward-highest*")
    ended = run("--dry-run", *only, "--output", str(output), folder=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Written to" in ended.stdout
    found = json.loads(output.read_text())
    assert len(found["cases"]) == len(DRY_GROUPS)
    return found


@long
def test_a_dry_run_takes_every_step(dry: dict[str, Any]) -> None:
    assert dry["dry_run"] is True and dry["failures"] == [] and dry["skipped"] == {}
    steps = dry["steps"]
    assert steps["parity"]["passed"] > 0 and steps["parity"]["failing"] == {}
    assert steps["sanitizer"]["plain"] == "passed"
    for tool in sanitizer.TOOLS:
        (summary,) = steps["sanitizer"][tool]["summaries"]
        assert "SUMMARY: 0" in summary and steps["sanitizer"][tool]["wrong"] == []
    assert steps["benchmarks"]["chosen"] == 2 * len(dry["cases"])  # autotuned, and all the others


@long
def test_a_dry_run_measures_every_provider(dry: dict[str, Any]) -> None:
    for row in dry["cases"].values():
        backends = set(row["times_faster"])
        assert backends
        assert "triton" in backends or importlib.util.find_spec("triton") is None
        rivals = {EAGER, COMPILED, AUTOTUNED}
        assert set(row["providers"]) == backends | rivals | {PRODUCTS}
        for name, found in row["providers"].items():
            assert ("roofline" in found) == (name == "triton")
            if name == "triton":  # what it launches is known anywhere, the peaks of a CPU are not
                assert found["roofline"]["flops"] == 18 * math.prod(row["shape"])
                assert found["roofline"]["bytes"] > 0 and found["roofline"]["seconds"] is None
            assert "of_roofline" not in found
            assert found["wall"]["median_us"] > 0 and found["device"]["median_us"] > 0
            assert set(found["errors"]) == (set() if name == PRODUCTS else set(measure.NAMES))
            assert all(0 <= error < 1e-5 for error in found["errors"].values())
        for found in row["times_faster"].values():
            assert set(found["wall"]) == set(found["device"]) == rivals
            judged = {one["what"]: one["met"] for one in found["wanted"]}
            assert len(judged) == 5
            assert judged["peak memory, as a part of eager's"] is None


@long
def test_pages_take_no_dry_run(dry: dict[str, Any]) -> None:
    for made in (gpu_table.section, gpu_table.summary):
        assert made(None) == gpu_table.NOT_YET
        with pytest.raises(ValueError, match="dry run"):
            made(dry)
    shown = gpu_table.section({**dry, "dry_run": False})
    assert all(table.shape_name(tuple(row["shape"])) in shown for row in dry["cases"].values())


@long
def test_the_summary_is_each_back_ends_slowest_and_fastest_case(dry: dict[str, Any]) -> None:
    times: dict[str, list[float]] = {}
    for row in dry["cases"].values():
        if (row["what"], row["precision"]) == (BACKWARD, HIGHEST):
            for name, found in row["times_faster"].items():
                times.setdefault(name, []).append(found["wall"][EAGER])
    shown = gpu_table.summary({**dry, "dry_run": False})
    for name, of in times.items():
        assert f"{min(of):.2f} to {max(of):.2f} ({name})" in shown


def test_what_was_measured_on_a_gpu_is_no_dry_run() -> None:
    if not script.RESULTS.exists():
        pytest.skip("no GPU has been measured yet")
    found = json.loads(script.RESULTS.read_text())
    assert found["machine"]["gpu"] and gpu_table.section(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    ended = run("--output", str(output))
    assert ended.returncode == 2 and "No GPU" in ended.stdout
    assert not output.exists()


def test_without_time_everything_is_skipped(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    assert run("--dry-run", "--minutes", "0.01", "--output", str(output)).returncode == 0
    found = json.loads(output.read_text())
    names = {"parity", "sanitizer", "sweeps", "sequences", *benchmarks.choose(None, dry_run=True)}
    assert found["skipped"] == dict.fromkeys(names, "out of time")


def test_a_part_of_a_run_replaces_no_whole_one() -> None:
    def path(*arguments: str) -> Path | None:
        return script._path(script._options(arguments))

    assert path() == path("--minutes", "5") == script.RESULTS
    assert path("--only", "64x2") is path("--steps", "parity") is path("--dry-run") is None
    assert path("--dry-run", "--output", "x") == Path("x")


def test_the_most_telling_units_come_first() -> None:
    order = units(GROUPS)
    shapes = [shape for group in GROUPS for shape in group.shapes]
    first = [unit.case for unit in order[: len(shapes)]]
    assert [case.shape for case in first] == shapes and all(case.wanted for case in first)
    assert len({unit.id for unit in order}) == len(order) == 2 * 2 * 4 * len(shapes)
    # After the other backwards the autotuned compiler, which a figure is wanted against as well.
    plain = [unit for unit in order if not unit.autotune]
    autotuned = [unit for unit in order if unit.autotune]
    assert [unit.case for unit in plain] == [unit.case for unit in autotuned]
    place = order.index(autotuned[0])
    assert all(unit.case.backward for unit in order[:place])
    assert [unit.case for unit in order[place : place + len(shapes)]] == first
    assert not order[place + len(shapes)].case.backward


def test_the_small_set_has_every_kind_and_precision() -> None:
    calls = small_set.calls(dry_run=False)
    assert {call.kind for call in calls} == set(small_set.KINDS)
    assert set(small_set.TELLING) < set(small_set.KINDS)
    assert {call.precision for call in calls} == {
        *("highest", "high", "medium", "bfloat16", "float16", "float64")
    }


def test_accuracy_tasks_at_every_precision() -> None:
    rows = errors.measure(DryRun())
    assert {row["precision"] for row in rows} == {"highest", "high", "medium", "bfloat16"}
    backends = providers.library_backends(torch.empty(1))
    assert {EAGER, *backends} == {row["contender"] for row in rows}
    assert all(row["output"] < 1e-5 for row in rows if row["precision"] == HIGHEST)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_provider_that_fails_is_recorded_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*tensors: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of order\nand a long story")

    def build(*arguments: Any, **options: Any) -> list[Provider]:
        return [*providers.build(*arguments, **options), Provider("broken", broken)]

    monkeypatch.setattr(measure, "build", build)
    row = record(measure.measure(Unit(CASE, autotune=False), DryRun()))
    assert row["failed"] == {"broken": "call: RuntimeError: out of order"}
    assert row["providers"][EAGER]["device"]["median_us"] > 0


def test_the_distance_to_the_roofline_is_recorded_and_shown() -> None:
    samples = {"triton": [4e-3, 5e-3, 6e-3], "cpu": [1e-3] * 3}
    errors: dict[str, dict[str, float]] = {name: {} for name in samples}
    least = Roofline(launches=2, flops=6, bytes=7, seconds=2e-3)
    measured = measure.Measured(Unit(CASE, False), 1, 1, errors, {}, {}, samples, least, {})
    row = record(measured)
    assert row["providers"]["triton"]["roofline"] == least._asdict()
    assert row["providers"]["triton"]["of_roofline"] == 2.5
    assert not {"roofline", "of_roofline"} & set(row["providers"]["cpu"])
    head, *lines = gpu_table._device_table({"cases": {CASE.id: row}})
    assert [line[head.index("time ÷ roofline's")] for line in lines] == ["2.50", "–"]
    unknown = record(measured._replace(roofline=least._replace(seconds=None)))
    assert "of_roofline" not in unknown["providers"]["triton"]


def test_wanted_figures_are_judged_by_what_was_found() -> None:
    eager = {"errors": {"output": 1e-6}, "peak_bytes": 100}
    backend = {"errors": {"output": 1e-6, "G": 2e-6}, "peak_bytes": 50}
    rows = wanted(CASE, backend, eager, {EAGER: 5.0, COMPILED: 2.9})
    assert [(one["wanted"], one["found"], one["met"]) for one in rows] == [
        (5, 5.0, True),
        (3, 2.9, False),
        (3, None, None),  # a rival without a figure is not one that was beaten
        (1.0, 2.0, False),
        (0.5, 0.5, True),
    ]
    nothing = {"errors": {}, "peak_bytes": None}
    assert [one["met"] for one in wanted(CASE, nothing, eager, {})] == 5 * [None]
    assert wanted(CASE._replace(precision="high"), backend, eager, {EAGER: 1.0}) == []


def test_another_back_end_that_is_faster_is_named() -> None:
    def row(**walls: float) -> dict[str, Any]:
        providers = {name: {"wall": {"median_us": wall}} for name, wall in walls.items()}
        where = {"shape": [64, 2, 1], "what": BACKWARD, "precision": HIGHEST}
        return {**where, "providers": providers, "times_faster": dict.fromkeys(walls)}

    def choice(*rows: dict[str, Any]) -> str:
        return gpu_table._choice({"cases": dict(enumerate(rows))})

    assert "there was none" in choice(row(triton=10.0))
    assert "nowhere" in choice(row(triton=10.0, cuda=11.0))
    found = choice(row(triton=10.0, cuda=11.0), row(triton=10.0, cuda=5.0))
    assert found.count("64×2→1") == 1 and "cuda takes 0.50 of triton's time" in found


# A worker whose first unit kills it, whose second hangs, and whose third fails.
FAKE_WORKER = """
import json, os, sys, time
for name in sys.argv[1:]:
    print(json.dumps({"begin": name}), flush=True)
    if name == sys.argv[1] and "-40x3-" not in name:
        if name.startswith("3x4"):
            print("illegal memory access", file=sys.stderr, flush=True)
            os.abort()
        if name.startswith("6x5"):
            time.sleep(60)
    print(json.dumps({"failed": name, "why": "ValueError: no"}), flush=True)
"""


def test_lost_and_late_workers_cost_only_their_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "UNIT_S", 0.5)
    results = Results(None)
    benchmarks.run(
        results,
        Clock(1),
        {},
        dry_run=True,
        pattern="*-forward-highest",
        command=lambda ids: python("-c", FAKE_WORKER, *ids),
    )
    lost, late, failed, *_ = results.data["failures"]
    assert lost["what"] == "3x4-2-forward-highest" and "signal 6" in lost["why"]
    assert "illegal memory access" in lost["why"]
    assert late == {"what": "6x5-7-forward-highest", "why": "not done within 0.5 s"}
    assert failed == {"what": "40x3-5-forward-highest", "why": "ValueError: no"}


def test_a_worker_that_cannot_start_is_not_started_again() -> None:
    results = Results(None)
    command = python("-c", "import sys; sys.exit('no such module')")
    benchmarks.run(results, Clock(1), {}, dry_run=True, command=lambda ids: command)
    (failure,) = results.data["failures"]
    assert "did not start" in failure["why"] and "no such module" in failure["why"]


def test_a_failure_is_seen_in_the_file_and_the_exit_status(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    steps = ("--steps", "benchmarks", "--only", "nothing", "--output", str(output))
    assert run("--dry-run", *steps).returncode == 1
    found = json.loads(output.read_text())
    assert found["failures"] == [{"what": "benchmarks", "why": "no case matches 'nothing'"}]


def test_processes_are_ended_with_what_they_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = f"import subprocess; p = subprocess.Popen(['sleep', '60']); open({str(pid)!r}, 'w')"
    late = python("-c", f"{child}.write(str(p.pid)); p.wait()")
    ended = run_all({"late": late, "quick": python("-c", "print(7)")}, {}, 1.5)
    assert ended == {"late": Ended(None, ""), "quick": Ended(0, "7\n")}
    state = Path(f"/proc/{pid.read_text()}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z":  # killed, and not yet gone
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_parity_names_what_failed_and_what_was_running(tmp_path: Path) -> None:
    crashed, fine = tmp_path / "0", tmp_path / "1"
    lines: list[dict[str, Any]] = [
        {"collected": 3},
        {"begin": "a"},
        {"test": "a", "outcome": "failed", "why": "wrong"},
        {"begin": "b"},
    ]
    crashed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = parity.summarise(
        {"0/2": Ended(-11, "Segmentation fault"), "1/2": Ended(5, "")},
        {"0/2": crashed, "1/2": fine},
    )
    assert found["failing"] == {"a": "wrong", "b": "ended by signal 11: Segmentation fault"}
    assert (found["passed"], found["failed"], found["not_run"]) == (0, 1, 2)
    assert not found["cut"]

    late = parity.summarise({"0/1": Ended(None, "")}, {"0/1": crashed})
    assert late["failing"] == {"a": "wrong"} and late["cut"] == ["b"]
    assert late["not_run"] == 2


@pytest.mark.parametrize(
    ("ended", "clean"),
    [
        (Ended(0, "x\n========= ERROR SUMMARY: 0 errors\n"), True),
        (Ended(99, "========= ERROR SUMMARY: 2 errors\n"), False),
        (Ended(0, "RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)"), False),
        (Ended(0, "nothing was watched"), False),
        (Ended(-11, "========= ERROR SUMMARY: 0 errors\n"), False),
    ],
)
def test_the_sanitizers_word_decides(ended: Ended, clean: bool) -> None:
    assert (sanitizer.judge(ended)[1] is None) == clean
    assert sanitizer.not_run(ended) == []


def test_what_a_slow_sanitizer_did_not_come_to_has_not_failed() -> None:
    late = Ended(0, f"{small_set.NOT_RUN} nac highest\nRACECHECK SUMMARY: 0 hazards displayed\n")
    assert sanitizer.judge(late) == ("RACECHECK SUMMARY: 0 hazards displayed", None)
    assert sanitizer.not_run(late) == ["nac highest"]
    cut = Ended(None, "nac highest\n")
    assert sanitizer.judge(cut) == (None, None) and sanitizer.not_run(cut) == ["all"]


def test_the_small_set_ends_when_its_time_is_up() -> None:
    command = python("-m", "benchmarks.gpu.small_set", "--dry-run", "--share", "0/9")
    ended = subprocess.run([*command, "--until", "0"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = sanitizer.not_run(Ended(0, ended.stdout))
    assert found and found == [small_set.words(one) for one in small_set.everything(True)[::9]]


def test_the_small_set_takes_every_path() -> None:
    """The cheap calls first, and between them what each back end calls small and large."""
    calls = small_set.calls(dry_run=False)
    shapes = list(dict.fromkeys(call.shape for call in calls))
    assert shapes[0] == small_set.SMALL and set(shapes[-2:]) == set(small_set.ONLY_TRITON)
    for B, I, O in shapes:  # noqa: E741
        large = (B, I, O) in small_set.ONLY_TRITON
        for sizes in ((B, O, I), (B, I, O), (O, I, B)):  # of forward, grad_input, grad_weights
            assert tiles.is_small(*sizes) != large
    assert math.prod(small_set.SEVERAL_TILES) < math.prod(small_set.FEW_ROWS) / 40


def test_the_sanitizer_is_found_in_cuda_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / sanitizer.NAME
    tool.parent.mkdir()
    tool.write_text("")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert sanitizer.find() == str(tool)
