"""What an installation promises: light imports, one version, modules that are missing or do not fit
and say so, a Makefile that parses, the Pythons that are claimed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

import nalu_kernels
import setup_cuda
from nalu_kernels import _pyinstaller, dispatch, native, sources
from nalu_kernels.operators import Kernels

ROOT = Path(__file__).parent.parent


def python(code: str, *, path: Path = ROOT) -> str:
    """What ``code`` prints, in a Python of its own that finds nalu_kernels in ``path`` first."""
    code = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=path, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_editor_finds_the_library_after_make() -> None:
    """Type checkers and editors read paths from .pth files, and run no import hook."""
    distribution = importlib.metadata.distribution("nalu-kernels")
    if '"editable": true' not in (distribution.read_text("direct_url.json") or ""):
        pytest.skip("installed as a copy, which anything finds")
    site = Path(str(distribution.locate_file("")))
    lines = [line for path in site.glob("*nalu_kernels*.pth") for line in path.read_text().split()]
    (line,) = lines
    assert (Path(line) / "nalu_kernels" / "__init__.py").exists()


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
        "print(nalu_kernels.backends()['cpu'].usable, caught[0].filename, caught[0].message)",
        path=tmp_path,
    )
    # The warning names the line that called.
    assert found.startswith(
        "False <string> nalu_kernels runs nalu on its slow plain PyTorch reference"
    )
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


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without a binary, and the folder of a package that was installed from it."""
    (tmp_path / "checkout" / "csrc").mkdir(parents=True)
    (tmp_path / "checkout" / "csrc" / "ops.cpp").write_text("// the operators")
    monkeypatch.setattr(native, "_FOLDER", tmp_path / "checkout" / "nalu_kernels")
    installed = tmp_path / "site-packages" / "nalu_kernels"
    installed.mkdir(parents=True)
    (installed.parent / "nalu_kernels-0.dist-info").mkdir()
    metadata = installed.parent / "nalu_kernels-0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: nalu-kernels\nVersion: 0\n")
    monkeypatch.setattr(sys, "path", [str(installed.parent)])
    return installed


def test_a_checkout_finds_the_installed_binary_of_its_sources(checkout: Path) -> None:
    """`pip install .`, then Python in the clone: the clone is imported."""
    csrc = native._FOLDER.parent / "csrc"
    assert native._installed_elsewhere("_cpu") == []
    binary = checkout / "_cpu.abi3.so"
    binary.write_bytes(b"")
    with pytest.raises(ImportError, match=r"does not come from the sources in .*csrc: install"):
        native._installed_elsewhere("_cpu")
    sources.record(binary).write_text(sources.digest(csrc))
    assert native._installed_elsewhere("_cpu") == [binary]
    (csrc / ".DS_Store").write_text("no source")
    assert native._installed_elsewhere("_cpu") == [binary]
    (csrc / "ops.cpp").write_text("// other operators")
    with pytest.raises(ImportError, match="does not come from the sources"):
        native._installed_elsewhere("_cpu")
    shutil.rmtree(csrc)
    assert native._installed_elsewhere("_cpu") == []


def test_a_build_says_what_it_was_made_of() -> None:
    binary = next(iter(native._libraries(native._FOLDER, "_cpu")), None)
    if binary is None or not (ROOT / "csrc").is_dir():
        pytest.skip("not built in a source checkout")
    assert sources.record(binary).read_text() == sources.digest(ROOT / "csrc")


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
    monkeypatch.setattr(
        native, "load_cpu", lambda: {"nac": Kernels(*[lambda *arguments: None] * 2)}
    )
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

    monkeypatch.setattr(native, "load_cuda", lambda: {"nac": Kernels(*[no_kernel] * 2)})
    monkeypatch.setattr(torch, "ones", lambda *size, device: device)
    found = why_not_cuda()
    assert "compute capability 7.0" in found
    assert "TORCH_CUDA_ARCH_LIST=7.0 pip install" in found
    assert found.endswith("no kernel image is available for execution on the device")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize(
    "target",
    [
        *("help", "demo", "test", "test-all", "short", "pythons", "constraints", "lint", "docs"),
        *("bench", "fuzz", "sanitize", "wheel", "clean"),
    ],
)
def test_makefile_has_its_targets(target: str) -> None:
    if not (ROOT / "Makefile").exists():
        pytest.skip("not a source checkout")
    command = ["make", "-n", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in re.findall(r"tests/\w+\.py", done.stdout):
        assert (ROOT / name).exists(), name


def test_ci_script_is_valid_bash() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    subprocess.run([bash, "-n", str(ROOT / ".ci" / "run")], check=True)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
    """A module of tools/, by name."""
    if not (ROOT / "tools").exists():
        pytest.skip("not a source checkout")
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module


def test_the_oldest_versions_claimed(tool: Callable[[str], types.ModuleType]) -> None:
    oldest = tool("oldest").oldest
    assert [oldest("torch"), oldest("triton")] == ["2.11.0", "3.6.0"]


def test_claimed_pythons_begin_with_the_required_one(
    tool: Callable[[str], types.ModuleType],
) -> None:
    claimed = tool("claimed")
    minors = [int(version.removeprefix("3.")) for version in claimed.pythons()]
    assert f'requires-python = ">=3.{minors[0]}"' in claimed.PYPROJECT.read_text()
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_constraints_are_checked_for_all_that_the_project_requires(
    tool: Callable[[str], types.ModuleType],
) -> None:
    found = tool("check_constraints").requirements()
    assert {"torch>=2.11", "setuptools>=77", "hypothesis", "ruff", "matplotlib"} <= set(found)
    assert not any(line.startswith("nalu") for line in found)


def write_wheel(folder: Path, version: str, requires_python: str) -> None:
    with ZipFile(folder / f"standin-{version}-py3-none-any.whl", "w") as archive:
        info = f"standin-{version}.dist-info"
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: standin\n"
            f"Version: {version}\nRequires-Python: {requires_python}\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_constraints_resolve_as_another_python_would(
    tool: Callable[[str], types.ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip", minversion="26")
    resolve = tool("check_constraints").resolve
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    write_wheel(tmp_path, "1", ">=3.8")
    write_wheel(tmp_path, "2", ">=3.11")
    pins = tmp_path / "constraints.txt"
    pins.write_text('standin==1; python_version < "3.11"\nstandin==2; python_version >= "3.11"\n')
    assert resolve("3.10", ["standin"], pins, tmp_path) == {"standin": "1"}
    assert resolve("3.13", ["standin"], pins, tmp_path) == {"standin": "2"}
    pins.write_text("standin==2")
    with pytest.raises(SystemExit, match=r"3\.10\.0 not in '>=3\.11'"):
        resolve("3.10", ["standin"], pins, tmp_path)


def test_constraints_need_a_package_index(
    tool: Callable[[str], types.ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple")
    with pytest.raises(SystemExit, match="not checked: pip cannot reach its package index"):
        tool("check_constraints").pip(
            "-m", "pip", "download", "-d", str(tmp_path), "no-such-standin"
        )


def test_pythons_that_are_not_there(
    tool: Callable[[str], types.ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    pythons = tool("pythons")
    assert pythons.find(f"3.{sys.version_info[1]}") == sys.executable
    assert pythons.version("no-such-python") is None
    with pytest.raises(SystemExit):
        pythons.main(["3.0"])
    assert capsys.readouterr().out == "\nPython 3.0: not on this machine\n"


def run_setup(folder: Path, preamble: str) -> subprocess.CompletedProcess[str]:
    """setup.py with ``preamble`` before it, as it makes the metadata of an installation."""
    # Found, not imported: it would put a distutils of its own in this process.
    if importlib.util.find_spec("setuptools") is None or not (ROOT / "setup.py").exists():
        pytest.skip("no setuptools, or not a source checkout")
    for name in ("setup.py", "setup_cuda.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "nalu_kernels").mkdir()
    shutil.copy(ROOT / "nalu_kernels" / "__init__.py", folder / "nalu_kernels")
    code = f"import runpy, sys\nsys.argv = ['setup.py', 'dist_info']\n{preamble}\n"
    code += "runpy.run_path('setup.py', run_name='__main__')"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_setuptools_too_old_is_said(tmp_path: Path) -> None:
    done = run_setup(tmp_path, "import setuptools\nsetuptools.__version__ = '65.5.0'")
    assert done.returncode != 0
    assert "setuptools 65.5.0 is too old to build it" in done.stderr
    assert 'pip install "setuptools>=77"' in done.stderr
    assert 'requires = ["setuptools>=77"]' in (ROOT / "pyproject.toml").read_text()


def test_free_threaded_pythons_get_metadata(tmp_path: Path) -> None:
    done = run_setup(
        tmp_path,
        "import sysconfig\nreal = sysconfig.get_config_var\n"
        "sysconfig.get_config_var = lambda name: 1 if name == 'Py_GIL_DISABLED' else real(name)",
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("nalu_kernels-*.dist-info/METADATA"))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_modules_take_nothing_of_a_glibc_newer_than_torch_does(
    tool: Callable[[str], types.ModuleType],
) -> None:
    pytest.importorskip("elftools")
    for library in Path(nalu_kernels.__file__).parent.glob("_c*.so"):
        assert "__libc_single_threaded" not in tool("oldest_torch").undefined(library)
