"""What an installation promises: light imports, one version, a Makefile that parses."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nalu_kernels

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
        ignore=shutil.ignore_patterns("_cpu*", "__pycache__"),
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


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("target", ["help", "demo", "test", "lint", "bench", "clean"])
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
