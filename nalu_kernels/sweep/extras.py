"""The packages of the extra ``sweep``, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def optional(module: str, what: str) -> Any:
    """The module; ImportError that says what needs it, and how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{what} needs {package}: pip install 'nalu-kernels[sweep]' ({error})"
        ) from error
