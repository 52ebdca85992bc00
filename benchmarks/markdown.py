"""Tables for the terminal and for Markdown, and the marked sections of a page that hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]  # the first is the head


def align(rows: Rows, left: int) -> str:
    """Columns as wide as their widest cell; the first ``left`` of them to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def table(rows: Rows, left: int) -> str:
    """The same as a table of Markdown."""
    head, *body = rows
    rule = [":--" if index < left else "--:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def replace_section(document: str, name: str, content: str) -> str:
    """``document`` with what stands between the marks of section ``name`` replaced.

    The marks are ``<!-- name -->`` and ``<!-- end of name -->``.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    replaced, count = section.subn(lambda _: f"{begin}\n{content}\n{end}", document)
    if count != 1:
        raise ValueError(f"expected one section from {begin} to {end}, found {count}")
    return replaced
