"""What those who call a module may use of it besides its answer, and this library's layers lack.

Where anything would be lost the module stays: whether it is used cannot be seen from here.
"""

from __future__ import annotations

import dis
import inspect
import numbers
import types
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from .layers import NAC, NALU
from .recognise import Candidate, is_foreign

# Of their own the layers have these; nobody computes with them.
_HARMLESS = {"forward", "reset_parameters", "extra_repr"}
# What Python itself puts into a class, and what only serves to make, print or compile a module.
_SILENT = {
    *("__init__", "__init_subclass__", "__repr__", "__doc__", "__module__", "__qualname__"),
    *("__dict__", "__weakref__", "__slots__", "__hash__", "__abstractmethods__", "__constants__"),
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
    *("__orig_bases__", "__parameters__", "__type_params__", "__class_getitem__"),
    *("__static_attributes__", "__firstlineno__", "__conditional_annotations__"),
}
_OWN = vars(nn.Module()).keys()


def loss(
    model: nn.Module, module: nn.Module, layer: NAC | NALU, candidate: Candidate, written: list[str]
) -> str | None:
    """Why the layer cannot stand in for the module, although it computes the same; None if it can,
    once it has what :func:`plain_attributes` returns."""
    (argument, *others) = inspect.signature(module.forward).parameters.values()
    if others or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
        return f"its forward takes {_listed(argument, *others)}, a layer's takes the input alone"
    if argument.kind == argument.KEYWORD_ONLY or argument.default is not argument.empty:
        return f"its forward takes {argument}, a layer's takes the input"
    for name in dict.fromkeys(written):
        return f"its forward sets the attribute {name}, which would be lost"
    plain = plain_attributes(module)
    for name in _offered(module):
        if name not in plain and not _has(layer, name, getattr(module, name, None)):
            return f"it has {name}, which would be lost"
    for name, value in plain.items():
        if hasattr(layer, name) and not _has(layer, name, value):
            return f"its {name} is {value!r}, and the layer's {name} is something else"
    for part in module.modules():
        if part is not module and (name := next(_offered(part), None)) is not None:
            return f"the {type(part).__name__} in it has {name}, which would be lost"
    kept = {name for name, role in candidate.roles.items() if role == (name, False)}
    return _used(model, module, argument.name, {*dir(module)} - {*dir(nn.Module()), *plain} - kept)


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The module's public numbers, strings and the like, its class's too: what can be copied."""
    classes = [kind for kind in type(module).__mro__[::-1] if is_foreign(kind)]
    values: dict[str, Any] = {
        name: value
        for kind in classes
        for name, value in vars(kind).items()
        if not isinstance(value, (types.FunctionType, type))
    }
    values |= dict.fromkeys(name for name, value in module._parameters.items() if value is None)
    values |= {name: value for name, value in vars(module).items() if name not in _OWN}
    return {name: v for name, v in values.items() if name[0] != "_" and _is_plain(v)}


def _is_plain(value: object) -> bool:
    """Whether nothing but the value counts, and that cannot change."""
    if isinstance(value, (tuple, torch.Size)):
        return all(map(_is_plain, value))
    if isinstance(value, types.BuiltinFunctionType):
        return isinstance(value.__self__, (type, types.ModuleType, types.NoneType))
    if isinstance(value, types.FunctionType):
        return value.__closure__ is None
    simple = (numbers.Number, str, bytes, Enum, type, torch.dtype, torch.device)
    return value is None or isinstance(value, simple)


def _has(layer: nn.Module, name: str, value: object) -> bool:
    """Whether the layer has that attribute too, and as much as says the same by it."""
    own = getattr(layer, name, None)
    if own is None or not (_is_plain(own) and _is_plain(value)):
        return False
    return bool(own == value or (isinstance(own, bool) and own == bool(value)))


def _offered(part: nn.Module) -> Iterator[str]:
    """The names of methods, properties and attributes by which a module, or a part of one, can be
    used, but for plain attributes of itself; none of a part that is PyTorch's own."""
    for kind in type(part).__mro__:
        if not is_foreign(kind):
            continue
        for name, value in vars(kind).items():
            if name.startswith("__"):
                silent = name in _SILENT
            elif name.startswith("_"):
                silent = not hasattr(nn.Module, name)
            else:
                silent = name in _HARMLESS or (
                    _is_plain(value) and not isinstance(value, (types.FunctionType, type))
                )
            if not silent:
                yield name
    if is_foreign(type(part)):
        for name, value in vars(part).items():
            if name not in _OWN and name[0] != "_" and not _is_plain(value):
                yield name


def _listed(*parameters: inspect.Parameter) -> str:
    return f"({', '.join(str(each) for each in parameters)})"


def _used(model: nn.Module, module: nn.Module, argument: str, names: set[str]) -> str | None:
    """Who in the model uses one of these names of the module's, or keeps it where it cannot be
    exchanged."""
    inside = set(module.modules())
    for other in model.modules():
        kind = type(other)
        if other in inside or not is_foreign(kind):
            continue
        for name, value in vars(other).items():
            held = value.values() if isinstance(value, dict) else value
            held = held if isinstance(value, (dict, list, tuple)) else (value,)
            if name not in _OWN and any(each is module for each in held):
                return f"{kind.__name__} keeps it in {name} too, where it cannot be exchanged"
        mentioned = _mentions(kind)
        for name in sorted((names & mentioned.names) - {*dir(other)}):
            return f"{kind.__name__} uses its {name}, which would be lost"
        if argument != "input" and argument in mentioned.keywords:
            return f"{kind.__name__} gives an argument by the name {argument}, a layer's is input"
    return None


class _Mentioned(NamedTuple):
    names: frozenset[str]  # of attributes, and strings that may name one
    keywords: frozenset[str]  # of arguments


@lru_cache(maxsize=256)
def _mentions(kind: type) -> _Mentioned:
    """What the methods of a class mention."""
    names: set[str] = set()
    keywords: set[str] = set()
    for code in _codes(kind):
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "LOAD_CONST"):
                names.update([step.argval] if isinstance(step.argval, str) else [])
        for constant in code.co_consts:
            if isinstance(constant, tuple):
                keywords.update(each for each in constant if isinstance(each, str))
    return _Mentioned(frozenset(names), frozenset(keywords))


def _codes(kind: type) -> Iterator[types.CodeType]:
    waiting: list[Any] = [
        v for each in kind.__mro__ if is_foreign(each) for v in vars(each).values()
    ]
    while waiting:
        value = waiting.pop()
        if isinstance(value, types.CodeType):
            yield value
            waiting.extend(value.co_consts)
        elif isinstance(value, types.FunctionType):
            waiting.extend([value.__code__, getattr(value, "__wrapped__", None)])
        elif isinstance(value, (staticmethod, classmethod)):
            waiting.append(value.__func__)
        elif isinstance(value, property):
            waiting.extend([value.fget, value.fset])
