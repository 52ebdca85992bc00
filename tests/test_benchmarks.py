"""The benchmarks' harness, on synthetic samples and at tiny sizes: no timing is judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("pytest_benchmark")

import nalu_kernels
from benchmarks import (
    accuracy,
    family,
    findings,
    frozen,
    instructions,
    markdown,
    scale,
    sweep,
    table,
    training_step,
)
from benchmarks.cases import ALL, BACKWARD, FORWARD, NEEDED, QUICK, Case
from benchmarks.contenders import COMPILED, EAGER, EMPTY, LIBRARY, LINEARS, NAMES, build
from benchmarks.speed import Measured, measure, ratios, record
from benchmarks.test_speed import replay, replay_clock
from benchmarks.timing import interleave, processor_seconds
from nalu_kernels import NALU
from selection import long

ROOT = Path(__file__).parent.parent


def uncompiled(function: Any, **options: Any) -> Any:
    return function


def uncompilable(function: Any, **options: Any) -> Any:
    raise RuntimeError("no compiler\nand a long story")


SYNTHETIC = {
    LIBRARY: [1e-6, 2e-6, 1e-6],
    EAGER: [4e-6, 6e-6, 4e-6],
    COMPILED: [3e-6, 5e-6, 3e-6],
    LINEARS: [0.5e-6, 1e-6, 0.5e-6],
    EMPTY: [0.1e-6, 0.1e-6, 0.1e-6],
}


def test_ratios_are_medians_of_each_rounds_own_ratio() -> None:
    assert ratios(SYNTHETIC) == {
        "over_eager": 4.0,
        "over_best": 3.0,
        "of_floor": 2.0,
        "over_compile": 3.0,
    }


def test_interleaving_samples_everyone_in_every_round() -> None:
    made: list[str] = []
    calls = {name: (lambda name=name: made.append(name)) for name in "abc"}
    samples = interleave(calls, budget_s=0, sample_s=1e-9, min_rounds=5)
    assert {name: len(times) for name, times in samples.items()} == dict.fromkeys("abc", 5)
    twice = made[-30:]  # a call that is not counted, and one that is
    assert twice[::2] == twice[1::2]
    rounds = [twice[start : start + 6 : 2] for start in range(0, 30, 6)]
    assert all(sorted(one) == list("abc") for one in rounds)


@pytest.mark.parametrize("layer", ["nalu", "nalu untied", "nac", "log nac"])
@pytest.mark.parametrize("what", [FORWARD, BACKWARD])
def test_contenders_all_run_and_leave_gradients(layer: str, what: str) -> None:
    with torch.set_grad_enabled(what == BACKWARD):
        contenders = build(Case(layer, (3, 4, 2), what, inner=True), uncompiled)
        assert tuple(contenders.calls) == NAMES
        for call in contenders.calls.values():
            call()
    assert set(contenders.saved_bytes) == ({LIBRARY, EAGER} if what == BACKWARD else set())


def test_saved_bytes_count_what_eager_keeps() -> None:
    saved = build(Case("nac", (3, 4, 2)), uncompiled).saved_bytes
    assert saved[EAGER] == 2 * (2 * 4) * 4  # tanh and sigmoid; W itself only for the input's sake


def test_record_and_table_have_every_contender() -> None:
    measured = measure(Case("nalu", (3, 4, 2)), budget_s=0, compile=uncompiled)
    row = json.loads(json.dumps(record(measured)))
    assert set(row["contenders"]) == set(NAMES)
    assert all(summary["median_us"] > 0 for summary in row["contenders"].values())
    machine = {"processor": "p", "cores": 1, "threads": 1, "system": "s", "torch": "t"}
    machine |= {"torch_cpu_capability": "c", "nalu_kernels": "n", "backend": "b"}
    shown = table.text({"machine": machine, "cases": [row]})
    assert all(name in shown for name in NAMES)
    assert "3×4→2" in shown


def test_missed_targets_are_marked() -> None:
    shape = (64, 2, 1)
    met = record(Measured(Case("nalu", shape), SYNTHETIC, {}, {}))
    assert met["missed"] == [] and table.remark(met).startswith("met")
    swapped = {**SYNTHETIC, LIBRARY: SYNTHETIC[EAGER], EAGER: SYNTHETIC[LIBRARY]}
    missed = record(Measured(Case("nalu", shape), swapped, {}, {}))
    assert missed["missed"] == [f"{NEEDED[shape]:g}× eager", "0.95× best"]
    assert table.remark(missed).startswith("MISSED")


def test_without_a_compiler_the_rest_still_runs() -> None:
    measured = measure(Case("nalu", (3, 4, 2)), budget_s=0, compile=uncompilable)
    assert measured.skipped == {COMPILED: "RuntimeError: no compiler"}
    assert "over_compile" not in record(measured)["ratios"]


def test_pytest_benchmark_gets_the_samples_themselves() -> None:
    durations = []

    def pedantic(target: Any, rounds: int) -> None:
        for _ in range(rounds):
            start = replay_clock()
            target()
            durations.append(replay_clock() - start)

    samples = [0.25, 0.5, 0.125]
    replay(SimpleNamespace(pedantic=pedantic), samples)  # type: ignore[arg-type]
    assert durations == samples


def test_sections_are_replaced_once() -> None:
    document = "a\n<!-- x -->\nold\n<!-- end of x -->\nb"
    assert markdown.replace_section(document, "x", "new") == document.replace("old", "new")
    with pytest.raises(ValueError, match="expected one section"):
        markdown.replace_section(document, "y", "new")


def test_accuracy_of_a_small_product() -> None:
    task = accuracy.tasks(batch=8, terms=16, outputs=2)[0]
    rows = accuracy.measure(task)
    assert {(row["dtype"], row["contender"]) for row in rows} == {
        (dtype, contender) for dtype in accuracy.DTYPES for contender in (EAGER, LIBRARY)
    }
    assert all(row["output"] < 1e-5 for row in rows if row["dtype"] == "float32")
    assert "product of 6" in accuracy.text({"errors": rows})


def committed(name: str) -> Any:
    return json.loads((table.RESULTS / f"{name}.json").read_text())


def test_every_shape_that_matters_is_in_the_speed_table() -> None:
    shown = table.speed_section(committed("cpu"))
    assert all(table.shape_name(shape) in shown for shape in NEEDED)


# What a machine is described by, as far as pages say it.
USED = {"processor": "p", "torch": "t", "backend": "cpu: kernels, avx9", "threads": 1}
WRITTEN = ("README.md", "docs/speed.md", "docs/sweep.md", "docs/accuracy.md", "docs/family.md")


@pytest.mark.parametrize("page", WRITTEN)
def test_pages_show_the_committed_results(page: str, tmp_path: Path) -> None:
    for name in WRITTEN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    table.main(["--write", str(tmp_path)])
    expected = (ROOT / page).read_text(encoding="utf-8")
    assert (tmp_path / page).read_text(encoding="utf-8") == expected


# But an SNMU's, whose noise is not that of torch.rand.
@pytest.mark.parametrize("name", [name for name in family.LAYERS if name != "SNMU"])
def test_a_family_layers_contenders_are_the_same_work(name: str) -> None:
    found = {}
    for who, call in family.calls(name, (5, 3, 2), inner=True).items():
        leaves = call()
        found[who] = [leaf.grad for leaf in leaves]
    torch.testing.assert_close(found["ours"], found["eager"])
    assert len(found["empty"]) == len(found["ours"])


def test_the_familys_speed_is_measured_and_shown() -> None:
    results = {
        "machine": {**USED, "threads": 2, "load_before": 2.0},
        **family.measure(["NAU"], grid=False, inner=False, seconds=0),
    }
    results["rows"] += [
        {
            "layer": "NMU",
            "sizes": [1, 1, 1],
            "median_us": {"ours": 4.0, "eager": 2.0, "empty": 1.0},
            "times_faster": 0.5,
        }
    ]
    results["rows"].append({**results["rows"][-1], "layer": "SNMU"})  # of which nothing is asked
    results["peak_bytes"] = {"ours": 2**20, "eager": 2**26}
    shown = family.section(json.loads(json.dumps(results)))
    assert "| NAU | 128×100→2 |" in shown and "| NAU | 1024×64→64 |" in shown
    assert "NMU 1×1→1 0.50" in shown and "1.0 MiB, eager 64 MiB: 1.6%" in shown
    assert "SNMU 1×1→1" not in shown
    assert "0.95" in family.text(results)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_counts_what_a_call_holds() -> None:
    """An eager NMU's factors, more than once; and what its warm-up held hides nothing."""
    factors = 4 * 256 * 64 * 64
    found = family.peaks("NMU", (256, 64, 64))
    assert 256 * 64 * 4 <= found["ours"] < factors < found["eager"] < 10 * factors


def test_training_steps_of_both_contenders_are_the_same_work() -> None:
    calls = training_step.calls(5, (3, 2, 1))
    keys = [
        training_step.key(part, who) for who in (LIBRARY, EAGER) for part in training_step.PARTS
    ]
    assert list(calls) == keys
    for call in calls.values():
        call()
        call()
    assert all(processor_seconds(call, 3) > 0 for call in calls.values())


def test_training_steps_are_recorded_and_shown() -> None:
    samples = {}
    for place, part in enumerate(training_step.PARTS, start=1):
        samples[training_step.key(part, LIBRARY)] = [1e-5, 2e-5, 1e-5]
        samples[training_step.key(part, EAGER)] = [place * 1e-5, place * 4e-5, place * 1e-5]
    row = json.loads(json.dumps(training_step.record("a model", samples)))
    assert row["times_faster"] == {
        part: place for place, part in enumerate(training_step.PARTS, start=1)
    }
    assert row["median_us"][training_step.key(training_step.ADAM, EAGER)] == 20
    machine = {**USED, "load_before": 0.1}
    results = {"machine": machine, "models": [row]}
    for shown in (training_step.text(results), training_step.section(results)):
        assert all(part in shown for part in training_step.PARTS) and "avx9" in shown
        assert "other work" not in shown
    machine["load_before"] = 2.0
    assert "step with Adam 2.0 to 2.0" in training_step.summary(results)
    assert "while other work ran" in training_step.summary(results)


def test_calls_of_many_runs_are_measured_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FEW": 2, "MANY": 5, "MOST": 200, "STEPS": 3, "ROUNDS": 1}.items():
        monkeypatch.setattr(scale, name, value)
    measured = scale.measure()
    assert measured["farthest"] < 1e-12
    assert "A call of 5 runs of NALU 2→1 takes" in scale.section(measured)


@long  # compiles the trainer
def test_instructions_are_counted_and_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a counter that runs the program and says how often each part was asked for."""
    if nalu_kernels.native.cpu_capability() == "portable":
        pytest.skip("the parts need AVX2")
    valgrind = tmp_path / "valgrind"
    valgrind.write_text('#!/bin/sh\nshift 2; "$@" && echo "Collected : $(($6 * 7))" >&2\n')
    valgrind.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    counts = instructions.measure()
    assert counts.keys() <= {network.name for network in sweep.NETWORKS} and len(counts) == 4
    assert all(set(of.values()) == {7} for of in counts.values())
    shown = instructions.section(counts)
    assert "| NALU 100→2→1 | 7 | 7 | 7 | 21 | 7 | 0.33 |" in shown
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match="--instructions needs"):
        instructions.measure()


def test_a_sweeps_contenders_train_and_are_shown() -> None:
    network = sweep.Network((NALU,), (2, 1))
    found = {name: train(3) for name, train in sweep.contenders(network).items()}
    assert found.pop(sweep.VMAP) == 3 * sweep.STACKED
    for name, steps in found.items():
        assert steps == 3 * (int(name.split()[1]) if name.startswith(sweep.JAX) else 1)
    row = {
        "network": network.name,
        "microseconds": {sweep.SWEEP: 1.25},
        "times faster": {sweep.EAGER: 640.0, sweep.LIBRARY: 450.0, sweep.VMAP: 20.0},
    }
    machine = {**USED, "load_before": 2.0}
    results = {"machine": machine, "networks": [row]}
    assert "| NALU 2→1 | 1.25 | 640.0 × | 450.0 × | 20.0 × | – |" in sweep.section(results)
    assert "other work" in sweep.text(results)
    assert "1.2 µs" in sweep.summary(results) and "640 times" in sweep.summary(results)


def test_benchmarks_are_collected_case_by_case() -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks", "--quick", "--collect-only", "-q"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tests = [line for line in found.splitlines() if "::test_speed[" in line]
    assert len(tests) == len(QUICK) * len(NAMES)
    assert len(set(ALL)) == len(ALL) and set(QUICK) <= set(ALL)
    assert nalu_kernels.__name__ in tests[0]


def test_frozen_tensors_leave_the_products_that_are_printed() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    calls = frozen.calls((5, 3, 4))
    assert list(calls) == [*frozen.FROZEN, EMPTY]
    for name, call in calls.items():
        with FlopCounterMode(display=False) as counter:
            call()
            call()
        left = frozen.FROZEN[name][1] if name != EMPTY else 0
        assert counter.get_total_flops() == 2 * left * (2 * 5 * 3 * 4), name
    text = "\n".join(frozen.lines({frozen.ALL: [2e-6, 4e-6], "W frozen": [1e-6, 2e-6]}))
    assert (
        "3.0 us    1.00      1.00  (6 of 6" in text and "1.5 us    0.50      0.67  (4 of 6" in text
    )


def test_what_the_experiments_found_is_shown_whole() -> None:
    """No task of an experiment that is among the tables is left out of them."""
    columns = [column for table in findings.TABLES for column in table]
    shown = {column.experiment for column in columns}
    left_out = {
        (trial["experiment"], trial["model"], trial["task"])
        for trial in findings.trials(findings.RESULTS)
        if trial["experiment"] in shown
        and not any(
            trial["experiment"] == column.experiment and trial["task"].startswith(column.task)
            for column in columns
        )
    }
    assert not left_out
    inalu = findings.section().split("\n\n")[1]
    assert "| INALU tied | 86 % (76 to 92) |" in inalu and "RealNPU" not in inalu
