"""From a table of numbers to a formula that was checked.

``files.py`` reads a file's columns, ``table.py`` checks them, ``split.py`` holds rows back.
"""

from .split import Split, split
from .table import Table, read, table

__all__ = ["Split", "Table", "read", "split", "table"]
