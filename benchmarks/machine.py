"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

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
