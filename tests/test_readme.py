"""The Python blocks of the README and of each page of docs/ run as they stand, page by page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {
    page.name: re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for page in PAGES
}
# One for each thing that users do with torch.nn.Linear.
PROMISES = (
    *("autocast", "compile", "convert", "distributed", "export"),
    *("higher_order", "inference", "operators", "tools", "training"),
)


def test_there_are_blocks() -> None:
    assert len(BLOCKS["README.md"]) == 2
    for name in PROMISES:
        assert BLOCKS[f"{name}.md"]


@pytest.mark.parametrize("page", [name for name, blocks in BLOCKS.items() if blocks])
def test_blocks_run(page: str) -> None:
    torch.compiler.reset()
    namespace: dict[str, object] = {"__name__": page}
    for block in BLOCKS[page]:
        exec(compile(block, page, "exec"), namespace)


def test_every_page_is_linked() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"(docs/{page.name}" in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
