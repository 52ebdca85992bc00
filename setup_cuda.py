"""Whether setup.py builds the CUDA module, ``nalu_kernels._cuda``, and for which GPUs.

The environment variable NALU_KERNELS_CUDA decides: 0 never builds it, 1 fails where it cannot be
built, and without it the module is built where it can be.
"""

import os
import re
import shutil
import subprocess

VARIABLE = "NALU_KERNELS_CUDA"
# A GPU runs the binary of its own generation, or compiles the last one's PTX for itself.
ARCHITECTURES = ("7.5", "8.0", "8.6", "9.0", "10.0")
# Without contraction the formulas round as on a CPU (csrc/cuda/scalar.cuh).
NVCC_FLAGS = ("-O3", "-std=c++17", "-fmad=false", "--expt-relaxed-constexpr")


def nvcc_says(cuda_home: str | None, option: str) -> str:
    """What the toolkit's nvcc prints; nothing if there is no nvcc."""
    nvcc = cuda_home and shutil.which("nvcc", path=os.path.join(cuda_home, "bin"))
    if not nvcc:
        return ""
    return subprocess.run([nvcc, option], capture_output=True, text=True, check=False).stdout


def has_runtime(cuda_home: str | None) -> bool:
    """Not where an nvcc on the PATH only calls the one in the toolkit's folder."""
    return os.path.exists(os.path.join(cuda_home or "", "include", "cuda_runtime.h"))


def obstacle(
    *,
    torch: str,
    torch_cuda: str | None,
    torch_hip: str | None,
    nvcc_version: str,
    runtime: bool,
    compiler: str | None,
) -> str | None:
    """What keeps the CUDA module from being built; None if nothing does.

    ``torch``, ``torch_cuda`` and ``torch_hip`` are torch's version and those it was built for,
    ``nvcc_version`` is what ``nvcc --version`` prints, ``runtime`` whether the
    CUDA runtime's headers are beside it.
    """
    if torch_hip is not None:
        return f"torch {torch} was built for ROCm {torch_hip}; on its GPUs Triton's kernels run"
    if torch_cuda is None:
        return f"torch {torch} was built without CUDA; install a torch for CUDA first"
    if compiler is None:
        return "no C++ compiler was found"
    release = re.search(r"release (\d+)\.(\d+)", nvcc_version)
    if release is None:
        return (
            "no nvcc was found; install a CUDA toolkit "
            f"{torch_cuda.split('.')[0]}.x, with nvcc on the PATH or its folder in CUDA_HOME"
        )
    if release[1] != torch_cuda.split(".")[0]:
        return (
            f"nvcc is CUDA {release[1]}.{release[2]}, this torch was built for CUDA {torch_cuda}: "
            "their major versions have to agree; set CUDA_HOME to a toolkit "
            f"{torch_cuda.split('.')[0]}.x, or install a torch for CUDA {release[1]}"
        )
    if not runtime:
        return "nvcc is not in its toolkit's folder; set CUDA_HOME to that (/usr/local/cuda, say)"
    return None


def skipped(request: str, why_not: str | None) -> str | None:
    """Why the CUDA module is left out, None if it is built; SystemExit if it must be and cannot.

    ``request`` is the value of NALU_KERNELS_CUDA.
    """
    if request not in ("", "0", "1"):
        raise SystemExit(f"nalu_kernels: {VARIABLE} is 0, 1 or not set, got {request!r}")
    if request == "0":
        return f"{VARIABLE}=0"
    if request == "1" and why_not is not None:
        raise SystemExit(f"nalu_kernels: {VARIABLE}=1, but {why_not}")
    return why_not


def architectures(gpu_codes: str) -> str:
    """TORCH_CUDA_ARCH_LIST for every GPU, as far as nvcc knows them (``nvcc --list-gpu-code``)."""
    known = set(gpu_codes.split())
    names = [name for name in ARCHITECTURES if f"sm_{name.replace('.', '')}" in known]
    return ";".join(names) + "+PTX"
