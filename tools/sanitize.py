"""``make sanitize``: the C++ code under the compiler's sanitizers, with every warning an error.

AddressSanitizer and UndefinedBehaviorSanitizer watch the parity tests, which run on a copy of the
package that has the sanitized operators, at each instruction set of this processor; and the CUDA
kernels' in their emulator. ThreadSanitizer watches the kernels alone (tests/native/threads.cpp).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
WHERE = ROOT / "build" / "sanitize"
TORCH = Path(torch.__file__).parent
COMPILER = shlex.split(os.environ.get("CXX", "g++"))
STRICT = ("-std=c++17", "-g", "-Wall", "-Wextra", "-Werror")
ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
SOURCES = sorted([*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cpu/*.cpp")])
KERNELS = [
    ROOT / "csrc" / "cpu" / f"{name}.cpp" for name in ("portable", "avx2", "avx512", "threads")
]
TESTS = (
    *("test_functional.py", "test_gradients.py", "test_layouts.py", "test_special_values.py"),
    *("test_checks.py", "test_determinism.py", "test_fuzz.py", "test_keep_weights.py"),
    *("test_family.py", "test_family_kernels.py", "test_unroll.py"),
    *("sweep/test_fuzz_sweep.py", "sweep/test_kernel.py"),
)


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    print("\n$", shlex.join(map(str, command)), flush=True)
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"failed with status {done.returncode}")


def capabilities() -> list[str]:
    """Instruction sets that ATEN_CPU_CAPABILITY can choose here."""
    flags = Path("/proc/cpuinfo").read_text().split()
    better = {"avx2": "avx2", "avx512": "avx512f"}
    return ["default", *(name for name, flag in better.items() if flag in flags)]


def build() -> Path:
    """A folder with the package, its tests, and the sanitized operators in the package."""
    shutil.rmtree(WHERE, ignore_errors=True)
    unwanted = shutil.ignore_patterns("_cpu*", "_cuda*", "__pycache__")
    for name in ("nalu_kernels", "tests", "csrc", "benchmarks"):
        shutil.copytree(ROOT / name, WHERE / name, ignore=unwanted)
    # Otherwise the repository's would put the repository's own package first.
    (WHERE / "pytest.ini").write_text("[pytest]\npythonpath = .\nmarkers = gpu: needs a GPU\n")
    library = WHERE / "nalu_kernels" / "_cpu.so"
    flags = (*STRICT, "-O1", *ADDRESS, "-shared", "-fPIC", "-fvisibility=hidden")
    torchs = ("-DTORCH_TARGET_VERSION=0x020b000000000000", "-isystem", TORCH / "include")
    libraries = (f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10")
    run(*COMPILER, *flags, *torchs, *SOURCES, *libraries, "-o", library)
    return library


def preloaded() -> str:
    """The sanitizers' libraries, which a Python without them has to load first; and the C++ one,
    whose exceptions they watch."""
    found = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"):
        done = subprocess.run(
            [*COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
        found.append(done.stdout.strip())
    return ":".join(found)


def watch_addresses() -> None:
    library = build()
    environment = {
        "LD_PRELOAD": preloaded(),
        # Python and torch free little of what they hold when they end.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "NALU_KERNELS_TEST_LIBRARY": str(library),
        "NALU_KERNELS_TEST_CXXFLAGS": shlex.join(ADDRESS),
        "NALU_KERNELS_FUZZ_EXAMPLES": "100",
    }
    tests = [WHERE / "tests" / name for name in TESTS]
    pytest = (sys.executable, "-m", "pytest", "-q", "-x", "-n", "auto", "-p", "no:cacheprovider")
    for capability in capabilities():
        chosen = {**environment, "ATEN_CPU_CAPABILITY": capability}
        run(*pytest, "-k", "(cpu or sweep) and not long", *tests, cwd=WHERE, **chosen)
    run(*pytest, "-k", "cuda", *tests, cwd=WHERE, **environment)


def watch_threads() -> None:
    program = WHERE / "threads"
    flags = (*STRICT, "-O1", "-fsanitize=thread", "-pthread")
    run(*COMPILER, *flags, ROOT / "tests" / "native" / "threads.cpp", *KERNELS, "-o", program)
    run(program, TSAN_OPTIONS="halt_on_error=1")


if __name__ == "__main__":
    watch_addresses()
    watch_threads()
    print("\nthe sanitizers found nothing")
