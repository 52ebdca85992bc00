"""From a table of numbers to a formula that was checked.

``files.py`` reads a file's columns, ``table.py`` checks them, ``split.py`` holds rows back.
``search.py`` trains the stacks of ``candidates.py`` by ``training.py`` and rounds them by
``rounding.py``; ``baseline.py`` has the regressions beside them, and ``contenders.py`` the best of
both. ``fitting.py`` has these read and checked, and chooses. ``command.py`` prints and saves.
"""

from .fitting import Fit, Row, fit
from .split import Split, split
from .table import Table, read, table

__all__ = ["Fit", "Row", "Split", "Table", "fit", "read", "split", "table"]
