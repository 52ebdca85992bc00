"""Sweeps over other processes: the table is that of one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import torch
from small import assert_same, product, run

from nalu_kernels import NAC, sweep
from nalu_kernels.sweep import shards
from selection import long

RUNS = sweep.grid(seed=range(6), lr=[1e-2])


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@long
def test_a_pool_of_processes(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    for task in ("arithmetic", "data"):
        assert_same(run(task, RUNS, executor=pool), run(task, RUNS))
    pytest.importorskip("pyarrow")
    stored = run(runs=RUNS, executor=pool, out=tmp_path)
    assert_same(sweep.load(tmp_path), stored)


def test_threads_do_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_SHARDS", 2)
    with ThreadPoolExecutor(2) as executor:
        assert_same(run(runs=RUNS, executor=executor), run(runs=RUNS))


def killing(x: torch.Tensor) -> torch.Tensor:
    """The product; the first process that a batch reaches is killed, once."""
    mark = Path(os.environ["NALU_KERNELS_TEST_MARK"])
    if multiprocessing.parent_process() is not None and len(x) > 64:
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return product(x)


def trained(**options: Any) -> sweep.Result:
    task = sweep.Function(killing, 2, (1, 2), (2, 3), samples=40)
    return sweep.run(
        NAC(2, 1, log_space=True), task, RUNS, steps=23, test_every=5, batch_size=16,
        backend="reference", **options,
    )  # fmt: skip


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Something is killed in the test, once."""
    monkeypatch.setenv("NALU_KERNELS_TEST_MARK", str(tmp_path / "mark"))
    here = os.path.dirname(__file__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    yield
    assert (tmp_path / "mark").exists()


@long
def test_a_pool_of_which_a_process_is_killed(
    pool: ProcessPoolExecutor, tmp_path: Path, mark: None
) -> None:
    """Python's pool is broken then; the same call with another goes on."""
    pytest.importorskip("pyarrow")
    with pytest.raises(BrokenProcessPool):
        trained(executor=pool, out=tmp_path / "results")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as another:
        result = trained(executor=another, out=tmp_path / "results")
    assert_same(result, trained())


@long
def test_dask_of_which_a_worker_is_killed(mark: None) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        result = trained(executor=executor)
    assert_same(result, trained())


class Broken(Executor):
    """Refuses the second task."""

    def __init__(self) -> None:
        self.inner = ThreadPoolExecutor(1)
        self.count = 0

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
        self.count += 1
        return self.inner.submit(self._refuse if self.count == 2 else function, *arguments)

    def _refuse(self, *arguments: Any) -> None:
        raise LookupError("this machine has gone")


def test_an_error_comes_through_and_what_came_back_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(LookupError, match="this machine has gone"):
        run(runs=RUNS, executor=Broken(), out=tmp_path)
    statuses = sweep.load(tmp_path).columns()["status"]
    assert statuses[:2] == ["out_of_steps", "not_run"]


def test_seconds_hold_for_an_executor_too_and_what_was_reached_comes_back() -> None:
    with ThreadPoolExecutor(2) as executor:
        result = run(runs=RUNS, executor=executor, steps=10**7, test_every=10**7, seconds=2.0)
    assert result.stopped == "seconds"
    assert result.columns()["status"] == ["interrupted"] * 2 + ["not_run"] * 4
    assert min(result.columns()["steps"][:2]) > 0


def test_a_slice_comes_back_after_a_turn_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_TURN", 0.01)
    steps: list[int] = []
    with ThreadPoolExecutor(2) as executor:
        result = run(runs=RUNS, executor=executor, callback=lambda event: steps.append(event.steps))
    assert len(steps) > len(RUNS) and steps == sorted(steps)
    assert_same(result, run(runs=RUNS))


@long
def test_sigterm_to_the_parent_of_a_pool_saves_and_returns(
    pool: ProcessPoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(shards, "_TURN", 2.0)

    def terminate(event: sweep.Event) -> None:
        if event.steps:
            os.kill(os.getpid(), signal.SIGTERM)

    options: dict[str, Any] = {"runs": RUNS, "steps": 10**7, "test_every": 10**7}
    result = run(executor=pool, out=tmp_path, callback=terminate, **options)
    assert result.stopped == "SIGTERM"
    assert sum(steps > 0 for steps in result.columns()["steps"]) >= 2
    assert_same(sweep.load(tmp_path), result)
