"""The whole job: checks the request, runs the three experiments, prints, plots and saves."""

from __future__ import annotations

import dataclasses
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nalu_kernels import __version__, which_backend

from . import arithmetic, digits, identity
from .report import write_json
from .toolkit import Progress, Refusal, Result, Settings, optional

_WIDTH = 100


class _Part(NamedTuple):
    name: str
    total_steps: Callable[[Settings], int]
    run: Callable[[Settings, Progress], Result]


_PARTS = (
    _Part("identity", identity.total_steps, identity.run),
    _Part("arithmetic", arithmetic.total_steps, arithmetic.run),
    _Part("digits", digits.total_steps, digits.run),
)


def _usable_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise Refusal(f"--device {name}: not usable here: {reason}") from error
    return device


def _writable_folder(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refusal(f"--out {name}: cannot write there: {error.strerror}") from error
    return folder


def _backend(device: torch.device) -> tuple[str, str]:
    try:
        return which_backend(torch.empty(1, device=device))
    except (RuntimeError, ValueError) as error:  # a forced back end that does not work here
        raise Refusal(str(error)) from error


def _check(device: str, seeds: int, steps: int, out: str) -> Settings:
    for package in ("matplotlib", "sklearn", "tqdm"):
        optional(package)
    return Settings(_usable_device(device), seeds, steps, _writable_folder(out))


@contextmanager
def _one_thread() -> Iterator[None]:
    """For networks this small, threads cost more than they bring, and much more on a busy machine;
    and the numbers do not depend on how many cores there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ")


def main(device: str, seeds: int, steps: int, out: str) -> None:
    """Runs it all; Refusal, before any training, if the request cannot be met."""
    settings = _check(device, seeds, steps, out)
    backend, why = _backend(settings.device)
    print(
        f"nalu_kernels {__version__}, torch {torch.__version__}, device {settings.device}, "
        f"back end {backend}"
    )
    print(_paragraph(f"{backend}: {why}"))
    print(f"seeds 0 to {seeds - 1}, {steps} steps, results in {settings.out}", flush=True)
    numbers: dict[str, Any] = {
        "nalu_kernels": __version__,
        "torch": torch.__version__,
        "backend": backend,
        "backend_reason": why,
        "device": str(settings.device),
        "seeds": seeds,
        "steps": steps,
        "wall_seconds": {},
    }
    with _one_thread(), warnings.catch_warnings():
        # The header has named the back end.
        warnings.filterwarnings("ignore", message="nalu_kernels runs on", category=RuntimeWarning)
        results = _run(settings, numbers)
    print()
    for result in results.values():
        print("\n".join([*result.table(), ""]))
    print("what these numbers say")
    for result in results.values():
        for claim in result.claims():
            print(_paragraph(f"- {claim}"))
    seconds = sum(numbers["wall_seconds"].values())
    print(f"\n{seconds:.0f} s; {settings.out / 'results.json'}, {settings.out / 'plot.png'}")


def _run(settings: Settings, numbers: dict[str, Any]) -> dict[str, Result]:
    """Runs the parts and saves after each."""
    from . import plot

    results: dict[str, Result] = {}
    with Progress(sum(part.total_steps(settings) for part in _PARTS)) as progress:
        for part in _PARTS:
            started = time.perf_counter()
            progress.start(part.name)
            result = results[part.name] = part.run(settings, progress)
            numbers["wall_seconds"][part.name] = time.perf_counter() - started
            numbers[part.name] = {**dataclasses.asdict(result), "claims": result.claims()}  # type: ignore[call-overload]
            write_json(settings.out / "results.json", numbers)
            plot.save(results.values(), settings.out / "plot.png")
            progress.finished(part.name)
    return results
