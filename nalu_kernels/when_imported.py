"""To tell a module of PyTorch something as soon as it is imported, without importing it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def when_imported(name: str, tell: Callable[[ModuleType], None]) -> None:
    """Calls ``tell`` with this module: now if it has been imported, else once it is."""
    if name in sys.modules:
        tell(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, tell))


class _Finder(MetaPathFinder):
    """Finds a module where others find it, and sees to it that it is told once it has run."""

    def __init__(self, name: str, tell: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.tell = tell

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_tell(module: ModuleType) -> None:
            run(module)
            self.tell(module)

        spec.loader.exec_module = run_and_tell  # type: ignore[method-assign]
        return spec
