"""The CPU kernels of each instruction set, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Generator

import nalu_kernels
from conftest import Backend
from selection import only

TESTS = Path(__file__).parent
# torch's name of what this processor has, and the kernels that go with it.
KERNELS = {"AVX512": "avx512", "AVX2": "avx2"}


@only(lambda backend: backend.name == "cpu")
@pytest.mark.parametrize("asked", ["default", "avx2", "avx512"])
def test_instruction_set(asked: str, backend: Backend, rng: Generator) -> None:
    if asked == "avx512" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("torch believes ATEN_CPU_CAPABILITY=avx512, and this processor has none")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        # Without its cache of small blocks, glibc poisons every one of them.
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
        "ATEN_CPU_CAPABILITY": asked,
    }
    seed = str(rng.initial_seed())
    done = subprocess.run(
        [sys.executable, str(TESTS / "capability_check.py"), seed],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    torchs, *_, ours = done.stdout.split()
    assert ours == KERNELS.get(torchs, "portable")
    if asked == "default":
        assert ours == "portable"


@only(lambda backend: backend.name == "cpu")
def test_unasked_the_kernels_are_those_of_the_processor(backend: Backend) -> None:
    kernels = KERNELS.get(torch.backends.cpu.get_cpu_capability(), "portable")
    assert nalu_kernels.backends()[backend.name].reason.split()[-1] == kernels
