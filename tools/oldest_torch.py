"""Checks wheels against the oldest torch that pyproject.toml claims: ``oldest_torch.py WHEEL...``

Our sources have to compile with that torch's headers, and every function that the wheels' binaries
take from torch has to be in that torch's libraries and of its stable ABI. The torch is fetched by
pip, once (on Linux the plain one is the CUDA build, half a gigabyte); where pip has none, the
check is skipped and says so.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

from elftools.elf.elffile import ELFFile
from elftools.elf.hash import GNUHashSection
from elftools.elf.sections import SymbolTableSection
from oldest import ROOT, fetch

LIBRARIES = ("libc10", "libtorch_cpu", "libc10_cuda", "libtorch_cuda")
# The C functions of the stable ABI, and C++ that is not of it.
STABLE = re.compile(r"(aoti_)?torch_")
UNSTABLE = re.compile(r"_Z[A-Z]*(2at|3c10|5torch)\d")


@contextmanager
def unpacked(wheel: Path, folder: str, suffix: str) -> Iterator[Path]:
    """The files of ``wheel`` in ``folder`` whose names end with ``suffix``."""
    with tempfile.TemporaryDirectory() as scratch, ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(folder) and name.endswith(suffix):
                archive.extract(name, scratch)
        yield Path(scratch) / folder


def compile_with_headers_of(torch: Path) -> None:
    sources = sorted(ROOT.glob("csrc/**/*.cpp"))
    with unpacked(torch, "torch/include/", ".h") as include:
        for source in sources:
            subprocess.run(
                [
                    *shlex.split(os.environ.get("CXX", "c++")),
                    *("-fsyntax-only", "-std=c++17", "-DTORCH_TARGET_VERSION=0x020b000000000000"),
                    *(["-DUSE_CUDA"] if source.parent.name == "cuda" else []),
                    *("-isystem", str(include), str(source)),
                ],
                check=True,
            )
    print(f"{len(sources)} sources compile with the headers of {torch.name}")


def undefined(library: Path) -> set[str]:
    with library.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        assert isinstance(table, SymbolTableSection)
        symbols = table.iter_symbols()
        return {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"}


def defined(names: set[str], library: Path) -> set[str]:
    with library.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".gnu.hash")
        assert isinstance(table, GNUHashSection)
        return {name for name in names if table.get_symbol(name) is not None}


def check_symbols(wheels: list[Path], torch: Path) -> None:
    for wheel in wheels:
        with unpacked(wheel, "nalu_kernels/", ".so") as binaries:
            wanted = set().union(*(undefined(path) for path in binaries.glob("*.so")))
        taken = {name for name in wanted if STABLE.match(name)}
        faults = sorted(name for name in wanted if UNSTABLE.match(name))
        with unpacked(torch, "torch/lib/", ".so") as libraries:
            there = [libraries / f"{name}.so" for name in LIBRARIES]
            faults += sorted(
                taken.difference(*(defined(taken, path) for path in there if path.exists()))
            )
        if faults:
            raise SystemExit(f"{wheel.name}: not of the stable ABI of {torch.name}: {faults}")
        print(f"{wheel.name}: {len(taken)} functions of torch, all in {torch.name}")


if __name__ == "__main__":
    torch = fetch("torch")
    if torch is not None:
        compile_with_headers_of(torch)
        check_symbols([Path(name) for name in sys.argv[1:]], torch)
