"""Loads the compiled operators of csrc/."""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path

import torch

from . import sources
from .operators import Operators, overloads, register

NAMESPACE = "nalu_kernels"
_FOLDER = Path(__file__).parent


def _libraries(folder: Path, module: str) -> list[Path]:
    found = sorted(folder.glob(f"{module}.*"))
    return [path for path in found if path.suffix in (".so", ".pyd", ".dylib")]


def _load_library(module: str, not_built: str) -> None:
    found = _libraries(_FOLDER, module) or _installed_elsewhere(module)
    if not found:
        raise ImportError(not_built)
    torch.ops.load_library(str(found[0]))


def _installed_elsewhere(module: str) -> list[Path]:
    """A checkout that was installed by copying it has no binary, but hides the package that does:
    its binary serves, if it was built from the sources here."""
    csrc = _FOLDER.parent / "csrc"
    if not csrc.is_dir():
        return []
    folders = {
        Path(str(distribution.locate_file(_FOLDER.name)))
        for distribution in importlib.metadata.distributions(name="nalu-kernels")
    }
    found = [path for folder in sorted(folders) for path in _libraries(folder, module)]
    for path in found:
        record = sources.record(path)
        if record.exists() and record.read_text() == sources.digest(csrc):
            return [path]
    if found:
        raise ImportError(
            f"{found[0]} does not come from the sources in {csrc}: install these "
            "(pip install --no-build-isolation -e .), or run outside of this folder"
        )
    return []


@functools.cache
def load_cpu() -> Operators:
    """The CPU operators; ImportError or OSError if there are none."""
    _load_library(
        "_cpu",
        "the C++ extension was not built, or not taken along (no C++ compiler when nalu_kernels "
        "was installed; or a source tree that was not installed: pip install --no-build-isolation "
        "-e .; or a bundle, such as PyInstaller's, without nalu_kernels/_cpu.*: docs/install.md)",
    )
    register(NAMESPACE)
    return _operators("CPU")


def _operators(key: str) -> Operators:
    """Those with kernels for a dispatch key."""
    # The bare callable inside an OpOverload, where torch has it: a Python frame less in each call.
    # Not of the backwards, which compiled autograd traces.
    return {
        name: kernels._replace(forward=getattr(kernels.forward, "_op", kernels.forward))
        for name, kernels in overloads(NAMESPACE, key).items()
    }


@functools.cache
def load_cuda() -> Operators:
    """The operators once more, now that they serve CUDA tensors too; errors as of load_cpu."""
    load_cpu()  # the schemas are there
    _load_library(
        "_cuda",
        "the CUDA module was not built (no CUDA toolkit of torch's major version when nalu_kernels "
        "was installed: NALU_KERNELS_CUDA=1 pip install --no-build-isolation . says what is "
        "missing)",
    )
    return _operators("CUDA")


def cpu_capability() -> str:
    """The instruction set that the CPU kernels run with: ``avx512``, ``avx2`` or ``portable``."""
    load_cpu()
    return str(torch.ops.nalu_kernels.cpu_capability())
