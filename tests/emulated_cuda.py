"""The CUDA kernels on a CPU: built by the C++ compiler against tests/cuda_on_cpu/, and served by
the back end ``cuda`` when it is forced. cuBLAS's products are plain loops there, which honour the
precision that they are asked for.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from nalu_kernels import dispatch, operators

ROOT = Path(__file__).parent.parent
TORCH = Path(torch.__file__).parent
NAMESPACE = "nalu_kernels_cuda_on_cpu"
EMULATOR = ROOT / "tests" / "cuda_on_cpu"
SOURCES = sorted(
    [
        *(ROOT / "csrc" / "cuda").glob("*.cu"),
        *(ROOT / "csrc" / "cuda").glob("*.cpp"),
        ROOT / "csrc" / "ops.cpp",
        *EMULATOR.glob("*.cpp"),
    ]
)
FLAGS = [
    *("-std=c++17", "-O2", "-g0", "-fPIC", "-Wall", "-Wextra", "-Werror"),
    *shlex.split(os.environ.get("NALU_KERNELS_TEST_CXXFLAGS", "")),  # of tools/sanitize.py
    *("-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020b000000000000"),
    *("-include", str(EMULATOR / "as_cpu.h"), f"-I{EMULATOR}", "-isystem", str(TORCH / "include")),
]


def _compile(compiler: list[str], library: Path) -> None:
    """Every source by itself, as many at once as there are cores."""

    def run(*arguments: object) -> None:
        command = [*compiler, *FLAGS, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [Path(folder, f"{source.name}.o") for source in SOURCES]
        list(
            pool.map(lambda source, to: run("-x", "c++", "-c", source, "-o", to), SOURCES, objects)
        )
        libraries = (f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10")
        run("-shared", *objects, *libraries, "-o", library)


def _compiler() -> list[str] | None:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        words = shlex.split(name or "")
        if words and shutil.which(words[0]):
            return words
    return None


def build() -> Path:
    """The library, which is made again when anything in it has changed."""
    compiler = _compiler()
    if os.name == "nt" or compiler is None:
        raise dispatch.BackendUnavailable("no C++ compiler to build the emulated CUDA kernels")
    digest = hashlib.sha256(f"{torch.__version__} {compiler} {FLAGS}".encode())
    for path in sorted([*ROOT.glob("csrc/**/*.*"), *EMULATOR.glob("*")]):
        digest.update(path.read_bytes())
    library = ROOT / "build" / "cuda_on_cpu" / f"{digest.hexdigest()[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        _compile(compiler, unfinished)
        for old in library.parent.glob("*.so"):
            old.unlink()
        unfinished.rename(library)
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    library = build()
    torch.ops.load_library(str(library))
    return ctypes.CDLL(str(library))


def _load() -> operators.Operators:
    _library()
    operators.register(NAMESPACE)
    return operators.overloads(NAMESPACE, "CPU")


def install() -> None:
    """Makes the back end ``cuda`` serve CPU tensors, if it is forced."""
    dispatch._BACKENDS["cuda"] = dispatch._BACKENDS["cuda"]._replace(
        load=_load,
        namespace=NAMESPACE,
        about=lambda: "compiled CUDA kernels, emulated on the CPU: for tests, slow",
        if_forced=("cpu",),
    )


@contextmanager
def _switched_on(name: str) -> Iterator[None]:
    switch = getattr(_library(), name)
    switch(1)
    try:
        yield
    finally:
        switch(0)


def tf32_allowed() -> AbstractContextManager[None]:
    """What torch.set_float32_matmul_precision("high") tells cuBLAS."""
    return _switched_on("cuda_on_cpu_allow_tf32")


def last_thread_first() -> AbstractContextManager[None]:
    """A block's threads run in the other order between two barriers."""
    return _switched_on("cuda_on_cpu_run_last_first")


def launches() -> int:
    """How many kernels have been launched so far, cuBLAS's not among them."""
    count = _library().cuda_on_cpu_launches
    count.restype = ctypes.c_int64
    return int(count())
