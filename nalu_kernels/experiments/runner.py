"""Runs an experiment: checks the request, trains what is not finished yet, prints, plots, saves."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from nalu_kernels import __version__, use_backend
from nalu_kernels.sweep.progress import Progress

from . import load, narrowing
from .benchmark import Benchmark
from .experiment import Experiment, Finished, Outcome, Settings, Trial
from .plot import save_plot
from .refusal import Refusal, require
from .report import paragraph
from .store import Store, locked, writable_folder
from .training import Training

_MOST_JOBS = 61  # that Windows lets a process wait for


def usable_device(name: str) -> torch.device:
    """The device called ``name``; Refusal if tensors cannot be computed there."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise Refusal(f"--device {name}: not usable here: {reason}") from error
    return device


def _backend(experiment: Experiment, device: torch.device) -> tuple[str, str]:
    try:
        return experiment.backend(device)
    except (RuntimeError, ValueError) as error:  # a forced back end that does not work here
        raise Refusal(str(error)) from error


def run(
    experiment: Experiment,
    *,
    device: str = "cpu",
    seeds: int | None = None,
    steps: int | None = None,
    full: bool = False,
    out: str | None = None,
    jobs: int | None = None,
    fresh: bool = False,
    narrowed: Mapping[str, Sequence[str] | None] | None = None,
    options: dict[str, Any] | None = None,
) -> Outcome:
    """Runs ``experiment``, or what is left of it to do, and prints what came out.

    Args:
        seeds, steps: at least 1; None is the experiment's own, of its full size if ``full``.
        out: folder for results.json and plot.png; None is results/ and the experiment's name.
        jobs: how many trials are trained at once; None is one for each CPU core on a CPU, else 1.
        fresh: forget what an earlier run left in ``out``.
        narrowed: the names to run of each axis, as narrowing.choose() takes them; None is all.
        options: the experiment's own.

    Raises:
        Refusal: before anything is trained, for a request that cannot be met.
        KeyboardInterrupt: what had finished is saved; of trials under way the last checkpoint is
            (with several jobs one that has just been saved).
    """
    choice = narrowing.choose(experiment, narrowed or {})
    require("matplotlib", "tqdm", *experiment.requires)
    place = usable_device(device)
    backend, why = _backend(experiment, place)
    scale = experiment.full if full else experiment.small
    settings = Settings(
        device=place,
        seeds=scale.seeds if seeds is None else seeds,
        steps=scale.steps if steps is None else steps,
        out=Path(f"results/{experiment.name}{'-full' if full else ''}" if out is None else out),
        full=full,
        backend=backend,
        options={**_own_defaults(experiment), **(options or {})},
        narrowed=choice,
    )
    experiment.check(settings)
    writable_folder(settings.out)
    recorded = {
        "experiment": experiment.name,
        "nalu_kernels": __version__,
        "torch": torch.__version__,
        "backend": backend,
        "backend_reason": why,
        "device": str(place),
        "full": full,
        "seeds": settings.seeds,
        "steps": settings.steps,
        "options": experiment.describe(settings),
        "narrowed": choice,
    }
    if jobs is None:
        jobs = _cores() if place.type == "cpu" else 1
    with locked(settings.out):
        trials = narrowing.trials(experiment, settings.seeds, choice)
        store = Store(settings.out, recorded, trials, fresh=fresh)
        print(
            f"{experiment.name}: nalu_kernels {__version__}, torch {torch.__version__}, "
            f"device {place}, back end {backend}"
        )
        print(paragraph(f"{backend}: {why}"))
        print(
            f"seeds 0 to {settings.seeds - 1}, {settings.steps:,} {experiment.unit}, {jobs} at a "
            f"time, results in {settings.out}",
            flush=True,
        )
        started = time.perf_counter()
        _train(experiment, settings, store, jobs)
        outcome = store.outcome()
        claims = experiment.claims(outcome)
        store.finish(claims)
        plot = settings.out / "plot.png"
        try:
            print("\n" + "\n".join([*narrowing.table(experiment, outcome), ""]))
            for claim in claims:
                print(paragraph(f"- {claim}"))
        finally:  # the plot is saved though nobody may read on
            save_plot(experiment, outcome, plot)
    print(f"\n{time.perf_counter() - started:.0f} s; {store.path}, {plot}", flush=True)
    return outcome


def _own_defaults(experiment: Experiment) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    experiment.add_options(parser)
    return vars(parser.parse_args([]))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _train(experiment: Experiment, settings: Settings, store: Store, jobs: int) -> None:
    to_do = store.to_do()
    if not to_do:
        print("all of it had been done before: nothing is trained")
        return
    finished = store.finished()
    if finished or any(store.checkpoint(trial).exists() for trial in to_do):
        print(f"going on: {finished} trials had been finished before", flush=True)
    with _handled(signal.SIGTERM, _interrupt):  # with which clusters end jobs
        try:
            if isinstance(experiment, Benchmark):
                _in_sweeps(experiment, settings, store, to_do, jobs)
            else:
                _by_trial(experiment, settings, store, to_do, jobs)
        except KeyboardInterrupt:
            store.save()  # the interruption may have come while it was being saved
            raise


def _by_trial(
    experiment: Experiment, settings: Settings, store: Store, to_do: list[Trial], jobs: int
) -> None:
    steps = sum(experiment.steps(trial, settings) for trial in to_do)
    with Progress(experiment.name, len(to_do), "trials", steps) as progress:
        if jobs == 1:
            _here(experiment, settings, store, to_do, progress)
        else:
            jobs = min(jobs, len(to_do), _MOST_JOBS)
            _in_processes(experiment, settings, store, to_do, progress, jobs)


def _in_sweeps(
    experiment: Benchmark, settings: Settings, store: Store, to_do: list[Trial], jobs: int
) -> None:
    """The trainer has its own threads, and shows how far it is."""
    with _surroundings(settings.backend):
        for finished in experiment.train(to_do, settings, jobs):
            store.add(*finished)
        print(paragraph(experiment.by_eager(to_do, settings)))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _handled(number: int, handler: Any) -> Iterator[None]:
    """The signal by ``handler``; in a thread that is not the main one, as it is."""
    try:
        before = signal.signal(number, handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def _surroundings(backend: str) -> Iterator[None]:
    """One thread: for networks this small, more cost more than they bring, and the numbers do not
    depend on how many cores there are. The back end that has been named, without its warning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), use_backend(backend):
            warnings.filterwarnings(
                "ignore", message="nalu_kernels runs on", category=RuntimeWarning
            )
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _tiny_as_zero() -> Iterator[None]:
    """Numbers below 1e-38 are 0: a processor takes far longer for them, and the gradients of
    saturated weights and gates are full of them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _one(experiment: Experiment, trial: Trial, settings: Settings, training: Training) -> Finished:
    with _surroundings(settings.backend), _tiny_as_zero():
        numbers = experiment.run(trial, settings, training)
    return trial, training.seconds, numbers


def _here(
    experiment: Experiment,
    settings: Settings,
    store: Store,
    to_do: list[Trial],
    progress: Progress,
) -> None:
    steps = 0
    finished = 0

    def advance(more: int) -> None:
        nonlocal steps
        steps += more
        progress.show(finished, steps)

    for trial in to_do:
        training = Training(settings.device, store.checkpoint(trial), advance)
        store.add(_one(experiment, trial, settings, training))
        finished += 1
        progress.show(finished, steps)


# In other processes


class _Shared:
    """What the processes of a run share with the one that started them."""

    steps: Any
    stop: Any
    terminated: bool | None = None  # by SIGTERM; None while no trial is under way


def _start_worker(steps: Any, stop: Any) -> None:
    _Shared.steps, _Shared.stop = steps, stop
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _terminate(number: int, frame: object) -> None:
    """At once if idle, else as soon as the trial under way has saved its checkpoint."""
    if _Shared.terminated is None:
        os._exit(1)
    _Shared.terminated = True


def _end_with_parent() -> None:
    """A worker whose parent was killed would train on, for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _advance(more: int) -> None:
    with _Shared.steps.get_lock():
        _Shared.steps.value += more


def _stopping() -> bool:
    stopping: bool = _Shared.stop.is_set()
    return stopping or bool(_Shared.terminated)


def _in_worker(name: str, trial: Trial, settings: Settings, checkpoint: Path) -> Finished:
    training = Training(settings.device, checkpoint, _advance, _stopping)
    _Shared.terminated = False
    try:
        return _one(load(name), trial, settings, training)
    finally:
        if _Shared.terminated:
            os._exit(1)
        _Shared.terminated = None


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Processes started within it do not import the script that runs: they need nothing of it, it
    may come from standard input, and it may run an experiment without asking for its __name__."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _in_processes(
    experiment: Experiment,
    settings: Settings,
    store: Store,
    to_do: list[Trial],
    progress: Progress,
    jobs: int,
) -> None:
    context = multiprocessing.get_context("spawn")  # forked children of torch's threads may hang
    steps, stop = context.Value("q", 0), context.Event()
    shared = (steps, stop)
    with ProcessPoolExecutor(jobs, context, _start_worker, shared) as pool:
        pending: set[Future[Finished]] = set()
        try:
            # Ctrl-C reaches the whole group: processes started meanwhile ignore it, as only the
            # first one decides what to do about it.
            with _handled(signal.SIGINT, signal.SIG_IGN), _main_left_alone():
                for trial in to_do:
                    future = pool.submit(
                        _in_worker, experiment.name, trial, settings, store.checkpoint(trial)
                    )
                    pending.add(future)
            while pending:
                done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    pending.remove(future)
                    store.add(future.result())
                progress.show(len(to_do) - len(pending), steps.value)
        except BaseException as error:
            # The others save their checkpoints; what has finished meanwhile is kept.
            stop.set()
            pool.shutdown(cancel_futures=True)
            for future in pending:
                if future.done() and not future.cancelled() and future.exception() is None:
                    store.add(future.result())
            if isinstance(error, BrokenProcessPool):
                raise Refusal(
                    "a training process ended before its time (for want of memory?); what had "
                    "finished is saved, and --jobs 1 takes the least memory"
                ) from error
            raise
