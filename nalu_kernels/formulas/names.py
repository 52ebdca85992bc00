"""Names of inputs, where they stand in a formula."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from sympy import Expr, Symbol, latex, sympify
from sympy.core.alphabets import greeks

_PLAIN = re.compile(r"[A-Za-z]\d*(_[A-Za-z0-9]+)?")  # what LaTeX has one letter and a subscript for
_ESCAPED = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{character: f"\\{character}" for character in "#$%&_{}"},
}


def written(expression: Expr) -> str:
    """The expression as text, in which a name that is no identifier stands between backquotes."""
    quoted = {of: Symbol(_quoted(of.name)) for of in expression.free_symbols}
    return str(expression.xreplace(quoted))


def _quoted(name: str) -> str:
    if name.isidentifier() and not keyword.iskeyword(name):
        return name
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    return f"`{shown}`"


def in_latex(name: str) -> str:
    """The name in LaTeX."""
    if _PLAIN.fullmatch(name) or name.lower() in greeks:
        return str(latex(Symbol(name)))
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    return f"\\text{{{''.join(_ESCAPED.get(c, c) for c in shown)}}}"


def is_read_by_sympy(name: str) -> bool:
    """Whether sympy reads the name, without being told, as a symbol of this name."""
    if not name.isidentifier() or keyword.iskeyword(name):
        return False
    return bool(sympify(name) == Symbol(name))


def outputs(count: int, taken: Iterable[str]) -> list[str]:
    """Names of so many outputs, none of which is taken: y, or y0, y1 and so on."""
    taken, letter = set(taken), "y"
    while True:
        names = [f"{letter}{i}" for i in range(count)] if count > 1 else [letter]
        if not taken.intersection(names):
            return names
        letter += "_"
