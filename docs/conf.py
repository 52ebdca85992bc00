"""Sphinx: the pages of this folder and the API reference as a site (``make docs``)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

import nalu_kernels  # noqa: E402

project = "nalu_kernels"
author = copyright = "The nalu_kernels developers"
version = release = nalu_kernels.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
highlight_language = "none"

html_theme = "furo"
html_title = f"nalu_kernels {release}"

autodoc_inherit_docstrings = False  # torch.nn.Module's
maximum_signature_line_length = 88
autodoc_member_order = "bysource"
napoleon_custom_sections = ["Shape", "Source"]
napoleon_use_ivar = True  # a property has an entry of its own
python_use_unqualified_type_names = True
# Other projects' names: a link to their sites would need the network while this is built.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|collections|typing|contextlib|sympy)\..*"),
    ("py:.*", r"(Tensor|Module|optional|Any|nn\..*|Placement)"),
    ("py:class", r"(nalu_kernels\.recognise\.)?Candidate"),  # which Replaced carries along
    ("py:class", "(W_hat|W_re)"),  # "W_hat, M_hat" share one entry, which Sphinx reads as a type
    ("py:class", r"(Weight|nalu_kernels\.layers\.base\._Self)"),  # names for the type checker
    # The types of a sweep's arguments, which its pages have in words.
    ("py:class", r"(os\.PathLike|Executor|Task|Success|AnyRange|Runs|Rows)"),
    ("py:class", r"nalu_kernels\.sweep\.(stack\.Stack|state\.State|.*\.(Task|Success|AnyRange))"),
    ("py:func", "convert"),  # written without the module's name
]


def _for_the_site(app: Sphinx, page: str, source: list[str]) -> None:
    """What GitHub shows and Sphinx has other means for."""
    text = source[0]
    # A file of the repository that is no page stands there as its name.
    text = re.sub(r"\[([^\]\n]+)\]\(\.\./[^)\s]*\)", r"\1", text)
    # Aligned equations have numbers of their own, which Sphinx would count anew.
    text = re.sub(
        r"```math\n\\begin\{align\}(.*?)\\end\{align\}\n```",
        r"\\begin{align*}\1\\end{align*}",
        text,
        flags=re.DOTALL,
    )
    source[0] = re.sub(r"```math\n(.*?)\n```", r"$$\n\1\n$$", text, flags=re.DOTALL)


def setup(app: Sphinx) -> None:
    app.connect("source-read", _for_the_site)
