"""What the run is on, as JSON; in a process of its own, so that the script holds no GPU memory.

Ends with status 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys

import torch

import nalu_kernels

from .. import machine


def _nvidia_smi() -> str | None:
    """The driver and what limits the clocks, where nvidia-smi tells."""
    path = shutil.which("nvidia-smi")
    if path is None:
        return None
    wanted = "driver_version,power.limit,clocks.max.sm,clocks.max.mem"
    command = [path, f"--query-gpu={wanted}", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return f"{wanted}: {found.stdout.strip()}" if found.returncode == 0 else None


def _triton() -> str | None:
    try:
        return str(importlib.import_module("triton").__version__)
    except ImportError:
        return None


def _gpu() -> dict[str, object]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpus": torch.cuda.device_count(),
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "nvidia_smi": _nvidia_smi(),
    }


def describe(device: str) -> dict[str, object]:
    here = {**machine.describe(), "triton": _triton()}
    here["backend"] = ": ".join(nalu_kernels.which_backend(torch.empty(1, device=device)))
    here["backends"] = {name: list(status) for name, status in nalu_kernels.backends().items()}
    return here | (_gpu() if device == "cuda" else {})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.about")
    parser.add_argument("--dry-run", action="store_true")
    dry_run = parser.parse_args().dry_run
    if not dry_run and not torch.cuda.is_available():
        print("torch finds no GPU", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(describe("cpu" if dry_run else "cuda")))


if __name__ == "__main__":
    main()
