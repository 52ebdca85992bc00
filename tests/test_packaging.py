"""What an installation promises: light imports, one version, modules that are missing or do not fit
and say so, a Makefile that parses."""

from __future__ import annotations

import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import nalu_kernels
import setup_cuda
from nalu_kernels import _pyinstaller, dispatch, native
from nalu_kernels.operators import Operators

ROOT = Path(__file__).parent.parent


def python(code: str, *, path: Path = ROOT) -> str:
    """What ``code`` prints, in a Python of its own that finds nalu_kernels in ``path`` first."""
    code = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=path, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_version_is_that_of_the_installed_package() -> None:
    try:
        installed = importlib.metadata.version("nalu-kernels")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("runs from a source tree, not installed")
    assert installed == nalu_kernels.__version__


def test_import_takes_no_optional_dependency() -> None:
    # What torch itself imports is torch's choice.
    found = python(
        "import torch\n"
        "before = set(sys.modules)\n"
        "import nalu_kernels\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    assert not {"matplotlib", "sklearn", "tqdm", "triton", "pytest"} & set(found.split())


def test_works_without_the_extension_and_says_so(tmp_path: Path) -> None:
    shutil.copytree(
        Path(nalu_kernels.__file__).parent,
        tmp_path / "nalu_kernels",
        ignore=shutil.ignore_patterns("_cpu*", "_cuda*", "__pycache__"),
    )
    found = python(
        "import warnings, torch, nalu_kernels\n"
        "from nalu_kernels import reference\n"
        "x, W, M, G = torch.ones(2, 3), *torch.ones(3, 4, 3)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    y = nalu_kernels.nalu(x, W, M, G)\n"
        "assert torch.equal(y, reference.nalu(x, W, M, G))\n"
        "print(nalu_kernels.backends()['cpu'].usable, caught[0].message)",
        path=tmp_path,
    )
    assert found.startswith("False nalu_kernels runs on its slow plain PyTorch reference")
    assert "extension was not built" in found
    assert "or a bundle, such as PyInstaller's, without nalu_kernels/_cpu.*" in found


def test_a_pyinstaller_bundle_takes_the_compiled_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    if not native._libraries(native._FOLDER, "_cpu"):
        pytest.skip("there are none here")
    package = native._FOLDER

    def collect(name: str, search_patterns: list[str]) -> list[tuple[str, str]]:
        assert name == package.name
        found = [path for pattern in search_patterns for path in package.rglob(pattern)]
        return [(str(path), name) for path in found]

    (folder,) = _pyinstaller.get_hook_dirs()
    hooks = types.ModuleType("PyInstaller.utils.hooks")
    hooks.collect_dynamic_libs = collect  # type: ignore[attr-defined]
    for name in ("PyInstaller", "PyInstaller.utils", hooks.__name__):
        monkeypatch.setitem(sys.modules, name, hooks)
    hook = runpy.run_path(str(Path(folder) / "hook-nalu_kernels.py"))
    wanted = [str(path) for name in ("_cpu", "_cuda") for path in native._libraries(package, name)]
    assert hook["binaries"] == [(path, package.name) for path in wanted]
    assert "py" in hook["module_collection_mode"].split("+")


def test_msvc_is_found_off_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    setuptools = pytest.importorskip("setuptools")
    ccompiler = pytest.importorskip("distutils.ccompiler")
    if not (ROOT / "setup.py").exists():
        pytest.skip("not a source checkout")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setenv("CXX", "c++")
    monkeypatch.setenv("NALU_KERNELS_CUDA", "0")
    monkeypatch.chdir(ROOT)
    found = runpy.run_path("setup.py")["find_msvc"]
    if os.name != "nt":
        assert found() is None  # setuptools refuses the platform

    class Compiler:
        def initialize(self) -> None:
            pass

    monkeypatch.setattr(ccompiler, "new_compiler", lambda compiler: Compiler())
    assert found() == "cl"


NVCC = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release {}, V0.0.1\n"
FITS = {
    "torch": "2.13.0+cu130",
    "torch_cuda": "13.0",
    "torch_hip": None,
    "nvcc_version": NVCC.format("13.2"),
    "runtime": True,
    "compiler": "c++",
}


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        ({}, None),
        ({"torch_cuda": None}, "built without CUDA"),
        ({"torch_cuda": None, "torch_hip": "7.1.25"}, "built for ROCm 7.1.25"),
        ({"compiler": None}, "no C\\+\\+ compiler was found"),
        ({"runtime": False}, "set CUDA_HOME"),
        ({"nvcc_version": ""}, "no nvcc was found; install a CUDA toolkit 13.x"),
        (
            {"nvcc_version": NVCC.format("12.4")},
            "nvcc is CUDA 12.4, this torch was built for CUDA 13.0: .* have to agree; .* 13.x, "
            "or install a torch for CUDA 12",
        ),
    ],
)
def test_cuda_module_is_built_where_it_can_be(differs: dict[str, Any], why: str | None) -> None:
    why_not = setup_cuda.obstacle(**{**FITS, **differs})
    if why is None:
        assert why_not is None
        assert setup_cuda.skipped("1", why_not) is None
    else:
        assert why_not is not None
        assert re.search(why, why_not)
        with pytest.raises(SystemExit, match=f"NALU_KERNELS_CUDA=1, but .*{why}"):
            setup_cuda.skipped("1", why_not)
    assert setup_cuda.skipped("", why_not) == why_not
    assert setup_cuda.skipped("0", why_not) == "NALU_KERNELS_CUDA=0"
    with pytest.raises(SystemExit, match="NALU_KERNELS_CUDA is 0, 1 or not set, got 'yes'"):
        setup_cuda.skipped("yes", why_not)


def test_cuda_toolkits_say_what_they_are(tmp_path: Path) -> None:
    assert setup_cuda.nvcc_says(None, "--version") == ""
    assert setup_cuda.nvcc_says(str(tmp_path), "--version") == ""
    assert not setup_cuda.has_runtime(None)
    assert not setup_cuda.has_runtime(str(tmp_path))
    if os.name == "nt":
        pytest.skip("no shell scripts there")
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\necho "said $1"\n')
    nvcc.chmod(0o755)
    assert setup_cuda.nvcc_says(str(tmp_path), "--version") == "said --version\n"


def test_architectures_are_those_that_nvcc_knows() -> None:
    older = "sm_50\nsm_70\nsm_75\nsm_80\nsm_86\nsm_90\n"
    assert setup_cuda.architectures(older) == "7.5;8.0;8.6;9.0+PTX"
    newer = "sm_75\nsm_80\nsm_86\nsm_90\nsm_100\nsm_120\n"
    assert setup_cuda.architectures(newer) == "7.5;8.0;8.6;9.0;10.0+PTX"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A torch for CUDA with a GPU, and a folder for the modules that nalu_kernels finds."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(native, "load_cpu", lambda: Operators(*[lambda *arguments: None] * 4))
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    native.load_cuda.cache_clear()
    return tmp_path


def why_not_cuda() -> str:
    with pytest.raises(dispatch.BackendUnavailable) as raised:
        dispatch._load_cuda()
    return str(raised.value)


def test_cuda_says_what_torch_lacks(cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_not_cuda() == "no CUDA device is visible to torch"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert why_not_cuda() == f"torch {torch.__version__} was built without CUDA"
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert why_not_cuda() == "torch was built for ROCm, the kernels for CUDA"


def test_cuda_says_what_its_module_lacks(cuda: Path) -> None:
    found = why_not_cuda()
    assert "the CUDA module was not built" in found
    assert "NALU_KERNELS_CUDA=1 pip install --no-build-isolation ." in found
    broken = cuda / "_cuda.abi3.so"
    broken.write_bytes(b"no library")
    assert broken.name in why_not_cuda()  # the dynamic loader's own words


def test_cuda_says_that_a_gpu_is_too_old(cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_kernel(*arguments: object) -> None:
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(native, "load_cuda", lambda: Operators(*[no_kernel] * 4))
    monkeypatch.setattr(torch, "ones", lambda *size, device: device)
    found = why_not_cuda()
    assert "compute capability 7.0" in found
    assert "TORCH_CUDA_ARCH_LIST=7.0 pip install" in found
    assert found.endswith("no kernel image is available for execution on the device")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize(
    "target", ["help", "demo", "test", "lint", "bench", "fuzz", "sanitize", "wheel", "clean"]
)
def test_makefile_has_its_targets(target: str) -> None:
    if not (ROOT / "Makefile").exists():
        pytest.skip("not a source checkout")
    command = ["make", "-n", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ci_script_is_valid_bash() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    subprocess.run([bash, "-n", str(ROOT / ".ci" / "run")], check=True)
