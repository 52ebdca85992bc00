"""From a table of numbers to a formula that was checked.

``files.py`` reads a file's columns, ``table.py`` checks them, ``split.py`` holds rows back.
``search.py`` trains the stacks of ``candidates.py`` by ``training.py`` and rounds them by
``rounding.py``; ``baseline.py`` is the linear regression beside them. ``fitting.py`` has it all
read and checked, and chooses.
"""

from .fitting import Fit, Row, fit
from .split import Split, split
from .table import Table, read, table

__all__ = ["Fit", "Row", "Split", "Table", "fit", "read", "split", "table"]
