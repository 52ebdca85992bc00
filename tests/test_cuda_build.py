"""The CUDA sources through nvcc, without a GPU: every architecture compiles without a warning, no
kernel spills, and the module asks of torch, CUDA and cuBLAS only for what they have.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import setup_cuda
from emulated_cuda import ROOT, TORCH
from selection import long

KERNELS = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
HOST = sorted((ROOT / "csrc" / "cuda").glob("*.cpp"))
ARCHITECTURES = [name.replace(".", "") for name in setup_cuda.ARCHITECTURES]
STRICT = ("-Xcompiler", "-Wall,-Wextra,-fPIC", "-Werror", "all-warnings")
FLAGS = setup_cuda.NVCC_FLAGS
TARGET = ("-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020b000000000000")
# Of every architecture from 7.5 on, without asking for more.
SHARED_BYTES = 48 * 1024
# What CUDA's sine takes of the stack for huge angles (40), and what stays there during the calls of
# functions that are not inlined (32 for two in float64).
STACK_BYTES = 72

# What libtorch_cuda has, as torch's headers declare it under USE_CUDA, and what cuBLAS has.
CUBLAS_SYMBOLS = {"cublasGemmEx_64", "cublasGetMathMode"}
CUDA_SYMBOLS = {
    *CUBLAS_SYMBOLS,
    "aoti_torch_create_cuda_guard",
    "aoti_torch_delete_cuda_guard",
    "aoti_torch_get_current_cuda_stream",
    "torch_get_current_cuda_blas_handle",
}

NVCC = shutil.which("nvcc")
pytestmark = pytest.mark.skipif(NVCC is None, reason="no nvcc here")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def compile_for(architectures: list[str], source: Path, to: Path, *flags: object) -> str:
    """What nvcc and ptxas say."""
    code = [f"-gencode=arch=compute_{one},code=sm_{one}" for one in architectures]
    done = run("nvcc", "-c", *FLAGS, *STRICT, *flags, *code, "-Xptxas", "-v", source, "-o", to)
    assert done.returncode == 0, done.stderr
    return done.stderr


def problems(report: str) -> list[str]:
    """Kernels that use more of the stack than a sine and calls do, spill, or need more shared
    memory than every chip has."""
    kernels = re.findall(r"Compiling entry function '(\w+)'.*?(?=Compiling|\Z)", report, re.DOTALL)
    parts = report.split("Compiling entry function ")[1:]
    assert kernels and len(kernels) == len(parts), report
    found = []
    for name, part in zip(kernels, parts, strict=True):
        stack = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        assert stack is not None, part
        if int(stack.group(1)) > STACK_BYTES or stack.group(2, 3) != ("0", "0"):
            found.append(f"{name}: {stack.group()}")
        shared = re.search(r"(\d+) bytes smem", part)
        if shared is not None and int(shared.group(1)) > SHARED_BYTES:
            found.append(f"{name}: {shared.group()}")
    return found


@long
def test_no_kernel_spills(tmp_path: Path) -> None:
    """On all but the oldest architecture, which the linked module is of. nvcc takes less time for
    several at once."""
    newer = ARCHITECTURES[1:]
    with ThreadPoolExecutor(len(KERNELS)) as pool:
        reports = list(
            pool.map(lambda source: compile_for(newer, source, tmp_path / source.stem), KERNELS)
        )
    for report in reports:
        assert {*re.findall(r"Compiling entry function '\w+' for 'sm_(\d+)'", report)} == {*newer}
    assert [problem for report in reports for problem in problems(report)] == []


def test_a_kernel_that_spills_is_found(tmp_path: Path) -> None:
    source = tmp_path / "bad.cu"
    source.write_text(
        "__global__ void bad(float* x, int n) {\n"
        "  float many[64];\n"
        "  for (int i = 0; i < 64; ++i) many[i] = x[i * n];\n"
        "  for (int i = 0; i < 64; ++i) x[i] = many[(i * n) % 64];\n"
        "}\n"
    )
    assert problems(compile_for(["90"], source, tmp_path / "bad.o"))


def test_a_warning_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "bad.cu"
    source.write_text("__global__ void bad(float* x) { int unused; x[0] = 1; }\n")
    with pytest.raises(AssertionError, match="unused"):
        compile_for(["90"], source, tmp_path / "bad.o")


def symbols(library: Path, which: str) -> set[str]:
    done = run("nm", "--dynamic", which, library)
    assert done.returncode == 0, done.stderr
    return {line.split()[-1] for line in done.stdout.splitlines() if line}


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here")
@pytest.mark.skipif(torch.version.cuda is not None, reason="torch here has its CUDA libraries")
@long  # two minutes of a core, for nvcc
def test_the_module_links_and_asks_for_nothing_unknown(tmp_path: Path) -> None:
    """Of the oldest architecture, which lacks most: its kernels do not spill either."""
    assert NVCC is not None
    oldest = ARCHITECTURES[0]
    cuda = Path(NVCC).resolve().parent.parent
    objects = []
    for source in (*KERNELS, *HOST):
        objects.append(tmp_path / f"{source.name}.o")
        torchs = () if source in KERNELS else (*TARGET, "-isystem", TORCH / "include")
        report = compile_for([oldest], source, objects[-1], *torchs)
        assert source not in KERNELS or problems(report) == []
    module = tmp_path / "_cuda.so"
    libraries = (f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10", "-lstdc++")
    done = run("nvcc", "-shared", "-cudart", "shared", *objects, *libraries, "-o", module)
    assert done.returncode == 0, done.stderr

    wanted = symbols(module, "--undefined-only")
    known = set(CUDA_SYMBOLS)
    for library in (TORCH / "lib" / "libtorch_cpu.so", TORCH / "lib" / "libc10.so"):
        known |= symbols(library, "--defined-only")
    (runtime, *_) = cuda.glob("**/libcudart.so")
    known |= symbols(runtime, "--defined-only")

    def is_the_systems(name: str) -> bool:
        return "@" in name or name.startswith(("_ITM_", "__gmon_start__", "__cxa_"))

    known_names = {name.partition("@")[0] for name in known}
    unknown = {
        name
        for name in wanted
        if name.partition("@")[0] not in known_names and not is_the_systems(name)
    }
    assert unknown == set()
    assert wanted >= CUDA_SYMBOLS
    # See csrc/torch.h. (Mangled, _ZNSo is a function of std::ostream.)
    assert [name for name in wanted if re.search("stream|_ZNSo", name)] == [
        "aoti_torch_get_current_cuda_stream"
    ]


def test_what_is_asked_of_torchs_cuda_library_is_in_the_stable_headers() -> None:
    text = "".join(
        path.read_text()
        for path in (
            TORCH / "include/torch/csrc/inductor/aoti_torch/c/shim.h",
            TORCH / "include/torch/csrc/stable/c/shim.h",
        )
    )
    for name in CUDA_SYMBOLS - CUBLAS_SYMBOLS:
        assert re.search(rf"\b{name}\(", text), name
