"""Processes: memory after many calls, and children that were forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nalu_kernels
from layers import FULLEST, draw, outcome
from parity import Judge, threads
from selection import long
from test_determinism import same_bits

ROOT = Path(__file__).parent.parent
ALLOWED = 2 << 20  # bytes; a tensor that leaks at every call, or a handle, takes more

# Prints by how many bytes the process has grown over the last {calls} times that {step} was done.
GROWTH = """
import sys
import torch
import nalu_kernels
from nalu_kernels import NALU, nalu

torch.manual_seed(0)
torch.set_num_threads(1)
layer = NALU(2, 1)
x, g = torch.rand(64, 2), torch.ones(64, 1)
wrong = torch.rand(64, 3)
kept = []

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def step():
    {step}

with nalu_kernels.use_backend("cpu"):
    for _ in range({calls} // 10):
        step()
    before = resident()
    for _ in range({calls}):
        step()
print(resident() - before)
"""
TRAINS = "torch.autograd.grad(layer(x), list(layer.parameters()), g)"
INFERS = """with torch.no_grad():
        layer(x)"""
RAISES = """try:
        layer(wrong)
    except ValueError:
        pass"""
LEAKS = "kept.append(layer(x).detach())"


def growth(step: str, calls: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH.format(step=step, calls=calls)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
@pytest.mark.parametrize(
    ("step", "calls"),
    [(TRAINS, 30_000), (INFERS, 100_000), (RAISES, 20_000)],
    ids=["trains", "infers", "raises"],
)
def test_memory_does_not_grow(step: str, calls: int) -> None:
    assert growth(step, calls) < ALLOWED


@long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_memory_that_grows_is_seen() -> None:
    assert growth(LEAKS, 20_000) > ALLOWED


def in_a_fork(work: Callable[[], None], seconds: float = 60) -> str:
    """How a child ends that does this work, having been forked now."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "works" if status == 0 else f"fails with {status}"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


MULTIPLIED_BY_BLAS = (300, 130, 120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("shape", [(4, 3, 2), (700, 60, 50), MULTIPLIED_BY_BLAS], ids=str)
def test_a_forked_child_works_though_its_parent_had_threads(
    shape: tuple[int, int, int], rng: torch.Generator
) -> None:
    """Nothing of the parent's threads comes along, and torch's own parallel code waits for them."""
    layer = draw(rng, FULLEST, shape)

    def in_the_child() -> None:
        found = outcome(nalu_kernels, layer)
        torch.set_num_threads(1)  # what judges it is torch's code
        assert not Judge(layer).faults(found)
        if shape != MULTIPLIED_BY_BLAS:
            assert same_bits(found, expected)

    with nalu_kernels.use_backend("cpu"), threads(2):
        expected = outcome(nalu_kernels, layer)
        assert in_a_fork(in_the_child) == "works"
        assert same_bits(outcome(nalu_kernels, layer), expected)
