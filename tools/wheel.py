"""``make wheel``: builds dist/ (the sdist, and a wheel from it) and checks that they work.

One wheel serves every Python and torch that pyproject.toml claims: abi3audit checks the former,
oldest_torch.py the latter. On Linux it runs wherever torch's own wheels do, glibc 2.28 and newer:
auditwheel refuses what is not. Any compiler will do whose binaries need nothing newer than that
(csrc/glibc.cpp has the one thing that GCC's need on a newer machine); an older C library or a
cross-compiler is not needed. The parity tests then run from the installed wheel, in a fresh
environment and outside the source tree.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from torch.utils.cpp_extension import CUDA_HOME

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import setup_cuda  # noqa: E402

DIST = ROOT / "dist"
# Of torch's own wheels.
LINUX = f"manylinux_2_28_{platform.machine()}"
# They come with torch.
TORCHS = ("libtorch*.so", "libc10*.so", "libcudart.so.*", "libcublas.so.*")
PARITY = ("test_gradients.py", "test_layouts.py", "test_special_values.py")


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("\n$", *command, flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def only(pattern: str) -> Path:
    (found,) = DIST.glob(pattern)
    return found


def build() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    # For every GPU, not for this machine's alone.
    codes = setup_cuda.nvcc_says(CUDA_HOME, "--list-gpu-code")
    if codes:
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", setup_cuda.architectures(codes))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST)


def audit() -> None:
    run(sys.executable, "-m", "abi3audit", "--strict", "--report", only("*.whl"))
    run(sys.executable, ROOT / "tools" / "oldest_torch.py", only("*.whl"))


def repair() -> None:
    """Gives the wheel the tag ``LINUX``, or fails and names what is too new for it."""
    wheel = only("*.whl")
    run(sys.executable, "-m", "auditwheel", "show", wheel)
    excluded = [word for name in TORCHS for word in ("--exclude", name)]
    with tempfile.TemporaryDirectory() as scratch:
        auditwheel = ("-m", "auditwheel", "repair", "--plat", LINUX, "--only-plat")
        run(sys.executable, *auditwheel, *excluded, "-w", scratch, wheel)
        (repaired,) = Path(scratch).iterdir()
        wheel.unlink()
        shutil.move(repaired, DIST)


def test() -> None:
    os.environ.pop("PYTHONPATH", None)  # a source tree there would hide the wheel
    with tempfile.TemporaryDirectory() as scratch:
        outside = Path(scratch)
        for folder in ("tests", "csrc"):  # tests compile CUDA sources for the CPU
            shutil.copytree(ROOT / folder, outside / folder)
        run(sys.executable, "-m", "venv", outside / "venv")
        python = outside / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        pins = ("-c", ROOT / "constraints.txt")
        run(python, "-m", "pip", "install", "--quiet", *pins, only("*.whl"), "numpy", "pytest")
        run(python, "-c", "import nalu_kernels as n; print(n.__file__, n.backends())", cwd=outside)
        tests = [outside / "tests" / name for name in PARITY]
        run(python, "-m", "pytest", "-q", "-k", "cpu", *tests, cwd=outside)


if __name__ == "__main__":
    build()
    audit()
    if sys.platform == "linux":
        repair()
    test()
    print("\nmade", *(path.relative_to(ROOT) for path in sorted(DIST.iterdir())))
