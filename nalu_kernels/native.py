"""Loads the compiled operators of csrc/."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from .operators import Operators, overloads, register

NAMESPACE = "nalu_kernels"
_FOLDER = Path(__file__).parent


def _load_library(module: str, not_built: str) -> None:
    found = sorted(_FOLDER.glob(f"{module}.*"))
    libraries = [path for path in found if path.suffix in (".so", ".pyd", ".dylib")]
    if not libraries:
        raise ImportError(not_built)
    torch.ops.load_library(str(libraries[0]))


@functools.cache
def load_cpu() -> Operators:
    """The CPU operators; ImportError or OSError if there are none."""
    _load_library(
        "_cpu",
        "the C++ extension was not built (no C++ compiler when nalu_kernels was installed, or "
        "it runs from a source tree: pip install --no-build-isolation -e .)",
    )
    register(NAMESPACE)
    # The bare callable inside an OpOverload, where torch has it: a Python frame less in each call.
    return Operators(*(getattr(overload, "_op", overload) for overload in overloads(NAMESPACE)))


@functools.cache
def load_cuda() -> Operators:
    """The operators once more, now that they serve CUDA tensors too; errors as of load_cpu."""
    operators = load_cpu()  # the schemas are there
    _load_library(
        "_cuda",
        "the CUDA module was not built (no CUDA toolkit of torch's major version when nalu_kernels "
        "was installed: NALU_KERNELS_CUDA=1 pip install --no-build-isolation . says what is "
        "missing)",
    )
    return operators


def cpu_capability() -> str:
    """The instruction set that the CPU kernels run with: ``avx512``, ``avx2`` or ``portable``."""
    load_cpu()
    return str(torch.ops.nalu_kernels.cpu_capability())
