"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

import nalu_kernels


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load() -> float | None:
    """How many other processes wanted a core in the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def ran_on(used: dict[str, Any]) -> str:
    """A line for a page, of what :func:`describe` returned."""
    threads = "one thread" if used["threads"] == 1 else f"{used['threads']} threads"
    kernels = used["backend"].rpartition(", ")[2]
    return f"{threads} of an {used['processor']} ({kernels}), torch {used['torch']}"


def busy(used: dict[str, Any]) -> str:
    """More for that line, where it holds."""
    return " while other work ran" if (used["load_before"] or 0) >= 0.5 else ""


def describe() -> dict[str, object]:
    used, _ = nalu_kernels.which_backend(torch.empty(1))
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "nalu_kernels": nalu_kernels.__version__,
        "backend": f"{used}: {nalu_kernels.backends()[used].reason}",
    }
