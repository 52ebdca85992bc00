"""The README and each page of docs/: their Python blocks run as they stand and print what the page
shows, their links lead somewhere, and the index and the API reference leave nothing out."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from pathlib import Path

import pytest

import nalu_kernels
import nalu_kernels.distributed
import nalu_kernels.fit
import nalu_kernels.reference
import nalu_kernels.sweep

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
# A block, and what it prints where the page shows it: in a text block after it, perhaps with a
# paragraph between.
BLOCK = re.compile(
    r"```python\n(?P<code>.*?)```\n(?:\n(?:[^`\n#][^\n]*\n\n)?```text\n(?P<printed>.*?)```)?",
    re.DOTALL,
)
BLOCKS = {page.name: [*BLOCK.finditer(page.read_text(encoding="utf-8"))] for page in PAGES}
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?")
# One for each thing that users do with torch.nn.Linear.
PROMISES = (
    *("autocast", "compile", "convert", "distributed", "export"),
    *("higher_order", "inference", "operators", "tools", "training"),
)


def assert_same_but_for_rounding(printed: str, shown: str) -> None:
    """The same words, and numbers within 1 %: another processor rounds otherwise."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split()
    for found, expected in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        assert float(found) == pytest.approx(float(expected), rel=0.01, abs=0.005)


def test_there_are_blocks() -> None:
    assert [block["printed"] is not None for block in BLOCKS["README.md"]] == [True, False, True]
    for name in PROMISES:
        assert BLOCKS[f"{name}.md"]


@pytest.mark.parametrize("page", [name for name, blocks in BLOCKS.items() if blocks])
def test_blocks_run_and_print_what_is_shown(page: str) -> None:
    namespace: dict[str, object] = {"__name__": page}
    for block in BLOCKS[page]:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(block["code"], page, "exec"), namespace)
        if block["printed"] is not None:
            assert_same_but_for_rounding(printed.getvalue(), block["printed"])


def test_rounding_is_all_that_may_differ() -> None:
    assert_same_but_for_rounding("W = [[0.9999]]\n", "W = [[1.0]]")
    for other in ("W = [[0.97]]", "V = [[1.0]]", "W = [[1.0, 1.0]]"):
        with pytest.raises(AssertionError):
            assert_same_but_for_rounding(other, "W = [[1.0]]")


def test_the_readme_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").split()) <= 1350


def test_the_citation_names_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {nalu_kernels.__version__}\n" in citation


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert "(docs/index.md)" in PAGES[0].read_text(encoding="utf-8")
    missing = {page.name for page in DOCS if f"({page.name}" not in index}
    assert missing == {"index.md"}


def test_every_public_name_is_in_the_api_reference() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    found = set(re.findall(r"^\.\. auto\w+:: (\S+)$", page, re.MULTILINE))
    for module in (
        nalu_kernels,
        nalu_kernels.distributed,
        nalu_kernels.fit,
        nalu_kernels.reference,
        nalu_kernels.sweep,
    ):
        assert {f"{module.__name__}.{name}" for name in module.__all__} <= found
    for name in found:  # and nothing that is not there
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
