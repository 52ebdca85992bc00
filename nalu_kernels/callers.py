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


def what_is_lost(
    model: nn.Module, module: nn.Module, layer: NAC | NALU, candidate: Candidate, written: list[str]
) -> str | None:
    """Why the layer cannot stand in for the module, although it computes the same; None if it can,
    once it has what :func:`plain_attributes` returns."""
    signature = inspect.signature(module.forward).parameters.values()
    (argument, *others) = (each.replace(annotation=each.empty) for each in signature)
    if others or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
        listed = ", ".join(map(str, (argument, *others)))
        return f"its forward takes ({listed}), a layer's takes the input alone"
    if argument.kind == argument.KEYWORD_ONLY or argument.default is not argument.empty:
        return f"its forward takes {argument}, a layer's takes the input"
    for name in (*written, *_sets(module)):
        return f"its forward sets the attribute {name}, which would be lost"
    plain = plain_attributes(module)
    same = {name for name in dir(module) if _same(layer, module, name)}
    for offered in _offered(module):
        if offered not in plain and offered not in same:
            return f"it has {offered}, which would be lost"
    for number, value in plain.items():
        if hasattr(layer, number) and number not in same:
            return f"its {number} is {value!r}, and a layer's {number} is something else"
    for part in module.modules():
        if part is not module and (inner := next(_offered(part), None)) is not None:
            return f"the {type(part).__name__} in it has {inner}, which would be lost"
    kept = same | {name for name, role in candidate.roles.items() if role == (name, False)}
    lost = {*dir(module)} - {*dir(nn.Module()), *plain} - kept - _HARMLESS
    return _used(model, module, argument.name, lost, plain.keys() - same)


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


def _same(layer: nn.Module, module: nn.Module, name: str) -> bool:
    """Whether an attribute of the layer's own says what the module's does by that name."""
    if name.startswith("_") or name in _OWN or not hasattr(layer, name):
        return False
    own, value = getattr(layer, name), getattr(module, name, None)
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
            if name not in _OWN and not _is_plain(value):
                yield name


def _used(
    model: nn.Module, module: nn.Module, argument: str, lost: set[str], copied: set[str]
) -> str | None:
    """Who in the model uses one of the module's names that would be lost, sets one that would be
    copied, asks for its class, or keeps it where it cannot be exchanged."""
    inside = set(module.modules())
    kinds = {kind.__name__ for kind in type(module).__mro__ if is_foreign(kind)}
    for other in model.modules():
        user: type = type(other)
        if other in inside or not is_foreign(user):
            continue
        for attribute, value in vars(other).items():
            held = value.values() if isinstance(value, dict) else value
            held = held if isinstance(value, (dict, list, tuple)) else (value,)
            if attribute not in _OWN and any(each is module for each in held):
                return f"{user.__name__} keeps it in {attribute} too, where it cannot be exchanged"
        found, own = mentions(user), {*dir(other)}
        for name in sorted(lost & found.used - own):
            return f"{user.__name__} uses its {name}, which would be lost"
        for name in sorted(copied & found.set - own):
            return f"{user.__name__} sets its {name}, which would be lost"
        for name in sorted(kinds & found.asked):
            return f"{user.__name__} asks what is a {name}, which a layer is not"
        if argument != "input" and argument in found.keywords:
            return f"{user.__name__} calls something with {argument}=, a layer takes input="
    return None


def _sets(module: nn.Module) -> Iterator[str]:
    """The attributes that forwards set, if only in a case that has not come."""
    for part in module.modules():
        for kind in type(part).__mro__:
            forward = vars(kind).get("forward")
            if is_foreign(kind) and isinstance(forward, types.FunctionType):
                for code in _nested(forward.__code__):
                    steps = dis.get_instructions(code)
                    yield from (step.argval for step in steps if step.opname == "STORE_ATTR")


class Mentions(NamedTuple):
    """The names that the methods of a class use for something."""

    words: frozenset[str]  # all but local variables
    used: frozenset[str]  # attributes, and strings that may name one
    set: frozenset[str]  # attributes that are set
    asked: frozenset[str]  # beside isinstance
    keywords: frozenset[str]  # arguments


@lru_cache(maxsize=256)
def mentions(kind: type) -> Mentions:
    """What a class and its bases mention, but for PyTorch's and this library's."""
    words, used, stored, asked, keywords = (set[str]() for _ in range(5))
    for code in _codes(kind):
        words.update(code.co_names)
        if code.co_name == "__init__":  # it has run
            continue
        if "isinstance" in code.co_names:
            asked.update(code.co_names)
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
                (stored if step.opname == "STORE_ATTR" else used).add(step.argval)
        used.update(each for each in code.co_consts if isinstance(each, str))
        for constant in code.co_consts:
            if isinstance(constant, tuple):
                keywords.update(each for each in constant if isinstance(each, str))
    return Mentions(*map(frozenset, (words, used | stored, stored, asked, keywords)))


def _codes(kind: type) -> Iterator[types.CodeType]:
    """Of its methods, of the functions in them, and of those of the same files that they call."""
    bases = [each for each in kind.__mro__ if is_foreign(each)]
    files, seen = {each.__module__ for each in bases}, set[int]()
    waiting: list[Any] = [value for each in bases for value in vars(each).values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (staticmethod, classmethod)):
            waiting.append(value.__func__)
        elif isinstance(value, property):
            waiting.extend([value.fget, value.fset])
        elif isinstance(value, types.FunctionType) and id(value) not in seen:
            seen.add(id(value))
            waiting.append(getattr(value, "__wrapped__", None))
            for code in _nested(value.__code__):
                yield code
                called = map(value.__globals__.get, code.co_names)
                waiting.extend(
                    each
                    for each in called
                    if isinstance(each, types.FunctionType) and each.__module__ in files
                )


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)
