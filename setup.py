"""Builds the compiled operators, ``nalu_kernels._cpu`` and, where there is a CUDA toolkit for a
torch with CUDA, ``nalu_kernels._cuda``; everything else stands in pyproject.toml.

The extensions have to be built against the torch that will load them, hence

    pip install --no-build-isolation .

- torch missing while building (pip's isolated build environments have none): the build fails and
  says the line above. Installing without the operators would be a slow library in silence, and
  naming torch as a build requirement would download a second one.
- no C++ compiler: installs without the operators, with a warning here (pip shows it with ``-v``)
  and another from the library at its first call; ``nalu_kernels.backends()`` then says why.
- a compiler that refuses the sources: the build fails.
- no CUDA: see setup_cuda.py.

The sources use only LibTorch's stable ABI, as of torch 2.11, and Python's not at all, so that one
binary serves every later torch and every Python from 3.10 on. Instruction sets are chosen at run
time, inside the sources: no flag here names a processor.
"""

import os
import runpy
import shlex
import shutil
import sys
import sysconfig
from glob import glob
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # pip does not
import setup_cuda

CPU = "nalu_kernels._cpu"
CPU_SOURCES = sorted(glob("csrc/*.cpp") + glob("csrc/cpu/*.cpp"))
CUDA = "nalu_kernels._cuda"
CUDA_SOURCES = [*sorted(glob("csrc/cuda/*.cu") + glob("csrc/cuda/*.cpp")), "csrc/glibc.cpp"]
HEADERS = sorted(glob("csrc/**/*.h", recursive=True) + glob("csrc/**/*.cuh", recursive=True))
OLDEST_TORCH = (2, 11)
# The first that reads the licence as pyproject.toml has it.
OLDEST_SETUPTOOLS = 77
# One binary for every Python; free-threaded ones refuse the name, though it uses none of theirs.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")
TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"
FLAGS = {
    "unix": ["-O3", "-std=c++17", "-fvisibility=hidden", "-g0", TARGET],
    "msvc": ["/O2", "/std:c++17", "/EHsc", TARGET],
}
NVCC = [*setup_cuda.NVCC_FLAGS, TARGET, "-DUSE_CUDA"]
NVCC_FLAGS = {
    "unix": [*NVCC, "-Xcompiler=-fvisibility=hidden"],
    "msvc": NVCC,
}
PLATFORM = "msvc" if os.name == "nt" else "unix"

NO_TORCH = """
nalu_kernels: torch is not importable in the build environment: {error}
Install torch (2.11 or newer) first and build with the torch that will run it:
    pip install --no-build-isolation .
"""
OLD_SETUPTOOLS = """
nalu_kernels: setuptools {found} is too old to build it; {needed} or newer is needed:
    pip install "setuptools>={needed}"
"""
NO_COMPILER = """
==============================================================================
 WARNING: nalu_kernels is being installed WITHOUT its compiled operators,
 because no C++ compiler was found ({tried}).
 It will be correct but slow: every call runs the plain PyTorch reference.
 Install a compiler (or name one in CXX) and reinstall:
     pip install --no-build-isolation --force-reinstall --no-deps .
==============================================================================
"""


def compilers() -> list[str]:
    """The commands that may be a C++ compiler here, the user's choice first."""
    if os.name == "nt":
        return ["Microsoft Visual C++"]
    if os.environ.get("CXX"):
        return [os.environ["CXX"]]
    return ["c++", sysconfig.get_config_var("CXX") or "c++", "g++", "clang++"]


def find_compiler() -> str | None:
    """The command of the C++ compiler that builds, None if there is none."""
    if os.name == "nt":
        return find_msvc()
    for command in compilers():
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return command
    return None


def find_msvc() -> str | None:
    """As setuptools finds it: by vswhere and the registry, for it is seldom on the PATH."""
    from distutils.ccompiler import new_compiler  # setuptools' own, once that is imported

    try:
        new_compiler(compiler="msvc").initialize()
    except Exception:  # of a class that differs between versions of setuptools
        return None
    return "cl"


def without_torch(error: ImportError) -> dict[str, object]:
    """Metadata and source distributions need no torch; only building does."""

    class Refuse(build_ext):
        def run(self) -> None:
            raise SystemExit(NO_TORCH.format(error=error))

    extension = Extension(CPU, CPU_SOURCES, depends=HEADERS)
    return {"ext_modules": [extension], "cmdclass": {"build_ext": Refuse}}


def cuda_extension() -> Extension:
    import torch
    from torch.utils import cpp_extension

    if not torch.cuda.is_available():  # else torch takes those of the GPUs here
        codes = setup_cuda.nvcc_says(cpp_extension.CUDA_HOME, "--list-gpu-code")
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", setup_cuda.architectures(codes))
    return cpp_extension.CUDAExtension(
        CUDA,
        CUDA_SOURCES,
        depends=HEADERS,
        # cuBLAS comes with torch; only Windows asks the linker where.
        libraries=["cublas"] if os.name == "nt" else [],
        extra_compile_args={
            "cxx": [*FLAGS[PLATFORM], "-DUSE_CUDA"],
            "nvcc": NVCC_FLAGS[PLATFORM],
        },
        py_limited_api=LIMITED,
    )


def record_sources(build: build_ext) -> None:
    """Writes beside each binary which sources it was built from; native.py reads it."""
    sources = runpy.run_path(os.path.join("nalu_kernels", "sources.py"))
    for extension in build.extensions:
        binary = Path(build.get_ext_fullpath(extension.name))
        sources["record"](binary).write_text(sources["digest"](Path("csrc")))


def with_extensions() -> dict[str, object]:
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        return without_torch(error)

    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < OLDEST_TORCH:
        return without_torch(ImportError(f"found torch {torch.__version__}, which is too old"))

    compiler = find_compiler()
    cuda_skipped = setup_cuda.skipped(
        os.environ.get(setup_cuda.VARIABLE, ""),
        setup_cuda.obstacle(
            torch=torch.__version__,
            torch_cuda=torch.version.cuda,
            torch_hip=torch.version.hip,
            nvcc_version=setup_cuda.nvcc_says(cpp_extension.CUDA_HOME, "--version"),
            runtime=setup_cuda.has_runtime(cpp_extension.CUDA_HOME),
            compiler=compiler,
        ),
    )
    if compiler is None:
        print(NO_COMPILER.format(tried=", ".join(dict.fromkeys(compilers()))), file=sys.stderr)
        return {}
    if os.name != "nt":
        # torch and setuptools each have a default of their own; let both take the one found.
        os.environ["CXX"] = compiler

    class Build(cpp_extension.BuildExtension):
        def run(self) -> None:
            if cuda_skipped is not None:
                print(f"nalu_kernels: built without its CUDA module: {cuda_skipped}")
            if self.editable_mode:
                # Kept between installs, so that only what changed is compiled again.
                self.build_temp = os.path.join("build", "editable")
            try:
                super().run()
            except BaseException:
                if cuda_skipped is None:
                    print(
                        f"nalu_kernels: {setup_cuda.VARIABLE}=0 installs without the CUDA module, "
                        "if that is what does not build",
                        file=sys.stderr,
                    )
                raise
            record_sources(self)

    extensions = [
        cpp_extension.CppExtension(
            CPU,
            CPU_SOURCES,
            depends=HEADERS,
            extra_compile_args={"cxx": FLAGS[PLATFORM]},
            py_limited_api=LIMITED,
        )
    ]
    if cuda_skipped is None:
        extensions.append(cuda_extension())
    return {
        "ext_modules": extensions,
        "cmdclass": {"build_ext": Build},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED else {},
    }


if int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:
    found = setuptools.__version__
    raise SystemExit(OLD_SETUPTOOLS.format(found=found, needed=OLDEST_SETUPTOOLS))
setup(**with_extensions())
