"""The packages of the extras, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def optional(module: str, what: str, extra: str = "sweep") -> Any:
    """The module; ImportError that says what needs it, and which extra has it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{what} needs {package}: pip install 'nalu-kernels[{extra}]' ({error})"
        ) from error
