"""Fresh random numbers in every run, poisoned memory, and every back end in turn."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

# Without a GPU the Triton kernels run in Triton's interpreter, and CUDA's in an emulator, on CPU
# tensors. Triton reads this when it defines them.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import emulated_cuda
import interpreter
import nalu_kernels
from error_bound import FULL, Products
from parity import threads
from poison import poisoned_memory

pytest_plugins = ["selection", "skips"]

if not torch.cuda.is_available():
    emulated_cuda.install()
if nalu_kernels.backends()["triton"].usable and not torch.cuda.is_available():
    interpreter.hasten()

# What tools/sanitize.py says must have been loaded just now.
_library = os.environ.get("NALU_KERNELS_TEST_LIBRARY")
if _library and _library not in Path("/proc/self/maps").read_text():
    pytest.exit(f"these tests would not test {_library}", returncode=1)

HALVES = (torch.bfloat16, torch.float16)

# The same numbers in every run, so that a failure is the change's; `random` or another seed draws
# others. In the environment, for the workers that share the tests and import this again.
_given = os.environ.get("NALU_KERNELS_TEST_SEED") or "1951783615"
SEED = secrets.randbits(32) if _given == "random" else int(_given)
os.environ["NALU_KERNELS_TEST_SEED"] = str(SEED)


def pytest_report_header() -> list[str]:
    states = (
        f"{name}: {'' if status.usable else 'not usable, '}{status.reason}"
        for name, status in nalu_kernels.backends().items()
    )
    return [f"NALU_KERNELS_TEST_SEED={SEED} draws these numbers", *states]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> torch.Generator:
    """Random numbers of this test's own: the same whichever other tests run."""
    digest = hashlib.sha256(f"{SEED} {request.node.nodeid}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@pytest.fixture(autouse=True)
def surroundings(rng: torch.Generator) -> Iterator[None]:
    torch.manual_seed(rng.initial_seed())
    # Or a test's graphs would count against the limit of another's, on whichever worker both ran.
    torch.compiler.reset()
    # One thread is many times faster on tiny layers where other work keeps the cores busy; tests of
    # what several threads do ask for them.
    with poisoned_memory(), threads(1):
        yield


class Backend(NamedTuple):
    name: str
    device: str

    @property
    def has_kernels(self) -> bool:
        """Plain PyTorch, which has none, saves what it likes for a backward."""
        return self.name != "reference"

    def computes(self, dtype: torch.dtype) -> bool:
        """As promised: half precision in float32. Plain PyTorch takes the dtype it is given."""
        return self.has_kernels or dtype not in HALVES

    def large_products(self, dtype: torch.dtype) -> Products:
        """The least that a large layer's products may be."""
        if self.name == "cuda" and dtype in HALVES:
            return Products(("tf32", "bf16x3"), ("tf32", "bf16x3"))
        return FULL

    @property
    def interpreted(self) -> bool:
        """By Triton's interpreter, which is slow and serves one thread at a time."""
        return self.name == "triton" and self.device == "cpu"

    @property
    def emulated(self) -> bool:
        """In this process: a Python of its own knows nothing of the emulator."""
        return self.name == "cuda" and self.device == "cpu"

    @property
    def own_sums(self) -> bool:
        """Whether the library's own code sums, not torch's, or NumPy's for the interpreter."""
        return self.has_kernels and not self.interpreted


def _parameter(name: str) -> object:
    on_gpu = name in ("triton", "cuda") and torch.cuda.is_available()
    marks = [pytest.mark.gpu] if on_gpu else []
    return pytest.param(Backend(name, "cuda" if on_gpu else "cpu"), id=name, marks=marks)


@pytest.fixture(params=[_parameter(name) for name in nalu_kernels.backends()])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each back end, forced. One that cannot be used here is skipped, but not the compiled CPU
    kernels: without them the library is slow, and that is a failure."""
    name = request.param.name
    usable, reason = nalu_kernels.backends()[name]
    if not usable:
        if name == "cpu" and os.environ.get("NALU_KERNELS_TEST_WITHOUT_EXTENSION") != "1":
            pytest.fail(
                f"the compiled CPU kernels are not usable: {reason}\n"
                "Set NALU_KERNELS_TEST_WITHOUT_EXTENSION=1 to test the rest."
            )
        pytest.skip(f"{name}: {reason}")
    with nalu_kernels.use_backend(name):
        yield request.param
