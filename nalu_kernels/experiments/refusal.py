"""Requests that cannot be met."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from contextlib import suppress
from typing import Any


class Refusal(ValueError):
    """The request cannot be met; the message is the whole explanation."""


def folder_name(text: str) -> str:
    """An option's type: an empty name would be that of the folder one is in, or the default."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder, got an empty name")
    return text


# What pip calls the packages that it does not call by their module's name.
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def require(*names: str, what: str = "this experiment") -> None:
    """Imports these modules of an extra, which ``what`` needs.

    Raises:
        Refusal: some are not installed, or one cannot be imported for another reason.
    """
    errors = {}
    for name in names:
        try:
            _import(name)
        except ImportError as error:
            errors[name.partition(".")[0]] = error
        except Exception as error:  # a matplotlibrc that is no text, say
            reason = " ".join(str(error).split())
            raise Refusal(
                f"{name} cannot be imported here: {type(error).__name__}: {reason}"
            ) from error
    if errors:
        reasons = ", ".join(f"{name} ({error})" for name, error in errors.items())
        packages = " ".join(_DISTRIBUTIONS.get(name, name) for name in errors)
        raise Refusal(f"{what} needs {reasons}: pip install {packages}")


def optional(name: str) -> Any:
    """The module ``name`` of the extra ``experiments``, or Refusal if it is not installed."""
    require(name)
    return importlib.import_module(name)


def _import(name: str) -> None:
    if name != "matplotlib" or name in sys.modules:
        importlib.import_module(name)
        return
    # It cannot be imported if this names a back end that is not installed. No plot here needs one.
    backend = os.environ.pop("MPLBACKEND", "")
    try:
        matplotlib = importlib.import_module(name)
    finally:
        if backend:
            os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):  # what else this process draws may need it
        if backend:
            matplotlib.rcParams["backend"] = backend
