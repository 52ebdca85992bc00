"""How the house is built: imports go one way, and a call goes one way down."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import nalu_kernels
from nalu_kernels import NALU

ROOT = Path(nalu_kernels.__file__).parent.parent


def modules(package: Path) -> dict[str, Path]:
    """The files of a package by their dotted names."""
    names = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports, anywhere in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - max(node.level - 1, 0)]
            base = ".".join([*up, *filter(None, [node.module])]) if node.level else node.module
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                found.add(deeper if deeper in known else base)
    return (found & known.keys()) - {name}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names along a circle, if there is one."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name not in done:
            for after in sorted(graph[name]):
                if found := search(after, [*path, name]):
                    return found
            done.add(name)
        return []

    return next(filter(None, (search(name, []) for name in sorted(graph))), [])


@pytest.mark.parametrize("package", ["nalu_kernels", "benchmarks"])
def test_no_import_goes_round(package: str) -> None:
    if not (ROOT / package).is_dir():
        pytest.skip(f"{package} is not installed")
    known = modules(ROOT / package)
    graph = {name: imports(name, path, known) for name, path in known.items()}
    assert sum(map(len, graph.values())) > len(graph)
    assert circle(graph) == []


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("grad", [True, False])
def test_a_call_goes_one_way_down(grad: bool) -> None:
    """From the module to the operator, each room entered once."""
    if not nalu_kernels.backends()["cpu"].usable:
        pytest.skip("without the compiled kernels it ends in the reference")
    layer, x = NALU(3, 2), torch.rand(4, 3)
    layer(x)  # what is chosen once has been
    rooms: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT / "nalu_kernels"):
            rooms.append(path.relative_to(ROOT / "nalu_kernels").with_suffix("").as_posix())

    with torch.set_grad_enabled(grad):
        sys.setprofile(watch)
        try:
            layer(x)
        finally:
            sys.setprofile(None)
    way = list(dict.fromkeys(rooms))
    kernel = ["autograd"] if grad else []
    down = ["layers/nalu", "functional/nalu", "functional/call", "execute", "dispatch", *kernel]
    assert [room for room in way if room in down] == down
    assert set(way) <= {*down, "layers/base", "execute"}


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_the_program_that_watches_threads_compiles() -> None:
    """Only ``make sanitize`` runs it, and it names the fields of what kernels are given."""
    program = ROOT / "tests" / "native" / "threads.cpp"
    flags = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only")
    done = subprocess.run(["g++", *flags, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
