"""DDP, FSDP and tensor parallelism: two processes are equal to one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distributed_cases
import nalu_kernels
from selection import long

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(nalu_kernels.__file__).parent.parent),  # the library that is tested here
}
pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch was built without gloo",
)


def outcome(command: list[str], seconds: float) -> tuple[int, str]:
    """Exit status and output of a command that may start processes; none of them outlives it."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each case raised, in either process."""
    results = tmp_path_factory.mktemp("distributed") / "results"
    script = str(ROOT / "tests" / "distributed_cases.py")
    status, output = outcome([sys.executable, script, str(results)], 240)
    assert status == 0, output
    ranks = [
        json.loads(Path(f"{results}.{rank}").read_text()) for rank in range(distributed_cases.WORLD)
    ]
    return {name: "\n".join(filter(None, (rank[name] for rank in ranks))) for name in ranks[0]}


@long
@pytest.mark.parametrize("name", distributed_cases.CASES)
def test_two_processes(failures: dict[str, str], name: str) -> None:
    assert not failures[name], failures[name]


def test_importing_the_library_imports_none_of_it() -> None:
    code = (
        "import sys, torch\nbefore = set(sys.modules)\nimport nalu_kernels\n"
        "print(*(m for m in set(sys.modules) - before if m.startswith('torch.distributed')))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""


@long  # test_example_alone is the quicker one
@pytest.mark.parametrize("how", ["tensor", "ddp", "fsdp"])
def test_example(how: str) -> None:
    """In two processes; the loss falls to less than half."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ["examples/torchrun.py", "--how", how, "--steps", "80"]
    status, output = outcome([sys.executable, *launch, *script], 120)
    assert status == 0, output
    assert f"2 process(es), {how}, back end " in output
    first, last = re.search(r"loss ([\d.]+) at the start, ([\d.]+) after 80", output).groups()
    assert float(last) < 0.5 * float(first)


def test_example_alone() -> None:
    """The two processes' losses are those of one."""
    command = [sys.executable, "examples/torchrun.py", "--steps", "20"]
    status, output = outcome(command, 120)
    assert status == 0, output
    assert "1 process(es), ddp, back end " in output
