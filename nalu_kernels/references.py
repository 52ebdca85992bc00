"""What an object refers to, however deep, and what the code of its functions mentions."""

from __future__ import annotations

import contextlib
import functools
import types
import weakref
from collections import deque
from collections.abc import Container, Iterator
from typing import Any

_LIBRARIES = {"torch", __package__.partition(".")[0], "builtins", "functools", "contextlib", "abc"}
_LEAVES = (int, float, complex, bytes, type(None))


def reachable(value: Any, stop: Container[int] = (), seen: set[int] | None = None) -> Iterator[Any]:
    """An object and what it refers to: in containers, attributes, bound methods, partials, closures
    and the globals that functions name. Not what is in modules of Python, in classes, or in objects
    whose ids are in ``stop``; nor what ``__init__`` names, which has run."""
    seen = set() if seen is None else seen
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if type(each) in weakref.ProxyTypes:
            with contextlib.suppress(ReferenceError):  # it may be gone
                waiting.append(each.__init__.__self__)
            continue
        if isinstance(each, _LEAVES) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if id(each) not in stop and not isinstance(each, (str, type, types.ModuleType)):
            waiting.extend(held(each))


def held(value: Any) -> Iterator[Any]:
    """What an object itself refers to."""
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from value
    elif isinstance(value, types.FunctionType):
        yield from variables(value).values()
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
    elif isinstance(value, (types.MethodType, types.BuiltinMethodType)):
        yield from (value.__self__, getattr(value, "__func__", None))
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, weakref.ref):
        yield value()
    elif isinstance(value, (staticmethod, classmethod)):
        yield value.__func__
    elif isinstance(value, property):
        yield from (value.fget, value.fset)
    yield from getattr(value, "__dict__", {}).values()
    for kind in type(value).__mro__:
        for member in vars(kind).values():
            if isinstance(member, types.MemberDescriptorType) and "__slots__" in vars(kind):
                yield getattr(value, member.__name__, None)


def variables(function: types.FunctionType) -> dict[str, Any]:
    """The globals and the closed-over variables that a function names, but for a method's own
    class; no globals of a library's function, and no other package's functions."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name != "__class__" and cell != types.CellType():
            found[name] = cell.cell_contents
    if is_library(function) or function.__name__ == "__init__":
        return found
    named = {name for code in codes(function) for name in code.co_names}
    for name in named & function.__globals__.keys():
        value = function.__globals__[name]
        if not isinstance(value, types.FunctionType) or _package(value) == _package(function):
            found.setdefault(name, value)
    return found


def codes(function: types.FunctionType) -> Iterator[types.CodeType]:
    """Its own, and those of the functions in it."""
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        yield code
        waiting.extend(each for each in code.co_consts if isinstance(each, types.CodeType))


def is_library(value: Any) -> bool:
    """Whether a function or a class is PyTorch's, this library's or Python's own."""
    return _package(value) in _LIBRARIES


def _package(value: Any) -> str:
    return (getattr(value, "__module__", None) or "builtins").partition(".")[0]
