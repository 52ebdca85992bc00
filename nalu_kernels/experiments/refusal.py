"""Requests that cannot be met."""

from __future__ import annotations

import importlib
from typing import Any


class Refusal(ValueError):
    """The request cannot be met; the message is the whole explanation."""


def optional(name: str) -> Any:
    """The module ``name`` of the extra ``experiments``, or Refusal if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Refusal(
            f"the experiments need {name.partition('.')[0]} ({error}): "
            "pip install 'nalu_kernels[experiments]'"
        ) from error
