"""What those who call a module may use of it besides its answer, and this library's layers lack.

Where anything would be lost the module stays: whether it is used cannot be seen from here.
"""

from __future__ import annotations

import dis
import inspect
import numbers
import types
from collections.abc import Container, Iterator
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .layers.base import Layer
from .recognise import Candidate, is_eps, is_foreign
from .references import codes, is_library, reachable, variables

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
# By which attributes are set that no instruction names.
_BACK_DOORS = {"__dict__", "vars", "setattr", "__setattr__", "globals"}
_REGISTERED = {"_modules", "_parameters", "_buffers"}


def what_is_lost(
    around: Surroundings,
    module: nn.Module,
    layer: Layer,
    candidate: Candidate,
    written: list[str],
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
    forwards = forwards_of(module)
    words = {name for each in forwards for code in codes(each) for name in code.co_names}
    for name in sorted(words & _BACK_DOORS):
        return f"its forward uses {name}, by which it may set attributes"
    for name in (*(f"the attribute {each}" for each in written), *sets_of(forwards)):
        return f"its forward sets {name}, which would be lost"
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
    for name, part in module.named_modules():
        if next(part.parameters(), None) is None and not _is_formula(name, part, words):
            return f"it has {name}, which would be lost"
    for name in (*_flags(module, words), *_globals(forwards)):
        return f"its forward looks at {name}, which may change"
    kept = same | {name for name, role in candidate.roles.items() if role == (name, False)}
    lost = {*dir(module)} - {*dir(nn.Module()), *plain} - kept - {"forward"}
    return _used(around, module, argument.name, lost, plain.keys() - same, candidate.transposed)


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


def forwards_of(module: nn.Module) -> list[types.FunctionType]:
    """The functions that forward runs, as far as names tell."""
    known: dict[str, list[Any]] = {}
    for part in module.modules():
        for name, value in _named(part):
            known.setdefault(name, []).append(value)
    waiting, seen, found = {"forward"}, set[int](), list[types.FunctionType]()
    while waiting:
        for value in known.pop(waiting.pop(), ()):
            for each in reachable(value, seen=seen):
                if isinstance(each, types.FunctionType) and not is_library(each):
                    found.append(each)
                    waiting.update(name for code in codes(each) for name in code.co_names)
        waiting &= known.keys()
    return found


def _named(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """The attributes of a module's own classes, and its own."""
    for kind in type(part).__mro__:
        if is_foreign(kind):
            yield from vars(kind).items()
    yield from ((name, value) for name, value in vars(part).items() if name not in _OWN)


def sets_of(forwards: list[types.FunctionType]) -> Iterator[str]:
    """The attributes and variables that forwards set, if only in a case that has not come."""
    for function in forwards:
        for code in codes(function):
            for step in dis.get_instructions(code):
                if step.opname == "STORE_ATTR":
                    yield f"the attribute {step.argval}"
                elif step.opname == "STORE_GLOBAL":
                    yield f"the global {step.argval}"
                elif step.opname == "STORE_DEREF" and step.argval in function.__code__.co_freevars:
                    yield f"{step.argval} around it"


def _is_formula(name: str, part: nn.Module, words: set[str]) -> bool:
    """Whether a part without parameters is but a function that forward uses, such as nn.Tanh()."""
    return name.partition(".")[0] in words and not vars(part).keys() - _OWN


def _flags(module: nn.Module, words: set[str]) -> Iterator[str]:
    """The numbers and strings that forward reads of the module, but for ε, parameters' names, and
    what an argument has decided when it was made."""
    names = {name for name, _ in module.named_parameters()}
    if "training" in words:
        yield "training"
    for part in module.modules():
        decided = {
            argument
            for kind in type(part).__mro__
            if is_foreign(kind)
            for argument in inspect.signature(kind).parameters
        }
        for name, value in _named(part):
            simple = isinstance(value, (numbers.Number, str)) and not name.startswith("__")
            if simple and name in words - decided and not is_eps(name) and value not in names:
                yield name


def _globals(forwards: list[types.FunctionType]) -> Iterator[str]:
    """The variables around the functions whose value may change or be changed, and those of Python
    modules and classes that they read."""
    for function in forwards:
        around = variables(function)
        for code in codes(function):
            value: Any = None
            for step in dis.get_instructions(code):
                if step.opname in ("LOAD_GLOBAL", "LOAD_DEREF") and step.argval in around:
                    name, value = step.argval, around[step.argval]
                elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(
                    value, (types.ModuleType, type)
                ):
                    name, value = f"{name}.{step.argval}", getattr(value, step.argval, torch.tanh)
                else:
                    continue
                if not _is_constant(value):
                    yield name


def _is_constant(value: Any) -> bool:
    """Whether a variable's value is a function, a number or the like, and no flag."""
    if isinstance(value, (bool, str, types.NoneType, nn.Module, types.MethodType)):
        return False
    if isinstance(value, (types.FunctionType, types.ModuleType)) or _is_plain(value):
        return True
    return (
        callable(value)
        and is_library(type(value))
        and not isinstance(value, types.BuiltinFunctionType)
    )


def _used(
    around: Surroundings,
    module: nn.Module,
    argument: str,
    lost: set[str],
    copied: set[str],
    transposed: bool,
) -> str | None:
    """Who in the model uses one of the module's names that would be lost, sets one that would be
    copied, mentions its class, or keeps it, or weights that are copied, where there is no
    exchanging."""
    inside = set(module.modules())
    fixed = {*map(id, inside), *(map(id, module.parameters()) if transposed else ())}
    kinds = {kind for kind in type(module).__mro__ if is_foreign(kind)}
    for other in around.model.modules():
        if other in inside:
            continue
        user, found, own = type(other), around.mentions(other), {*dir(other)}
        for attribute in (found.held[each] for each in fixed & found.held.keys()):
            return f"{user.__name__} refers to it in {attribute} too, where it cannot be exchanged"
        for name in sorted(lost & found.used - own):
            return f"{user.__name__} uses its {name}, which would be lost"
        for name in sorted(copied & found.stored - own):
            return f"{user.__name__} sets its {name}, which would be lost"
        for kind in kinds if user is not type(module) else ():
            part_of_name = any(each.lower() in kind.__name__.lower() for each in found.asked)
            if kind in found.classes or kind.__name__ in found.words or part_of_name:
                return f"{user.__name__} mentions the class {kind.__name__}, which a layer is not"
        if argument != "input" and argument in found.keywords:
            return f"{user.__name__} calls something with {argument}=, a layer takes input="
    return None


class Mentions(NamedTuple):
    """What an object refers to, and what the functions among it mention."""

    held: dict[int, str]  # modules and tensors, by id, and the attribute that leads there
    classes: set[type]
    words: set[str]  # all but local variables, and what those of PyTorch's functions stand for
    used: set[str]  # attributes, and strings that may name one
    stored: set[str]  # attributes that are set
    asked: set[str]  # strings that may be the name of a class, or a part of it
    keywords: set[str]  # arguments


def mentions(module: nn.Module, stop: Container[int] = ()) -> Mentions:
    """Of a module's methods and attributes and its bases', but for what only makes it."""
    held, found, seen = dict[int, str](), list[Any](), set[int]()
    for attribute, value in _attributes(module).items():
        for each in reachable(value, stop, seen):
            found.append(each)
            if isinstance(each, (nn.Module, Tensor)):
                held[id(each)] = attribute
    used, stored, keywords = (set[str]() for _ in range(3))
    words = {each.__name__ for each in found if isinstance(each, types.BuiltinFunctionType)}
    functions = (each for each in found if isinstance(each, types.FunctionType))
    for code in (code for each in functions if not is_library(each) for code in codes(each)):
        words.update(code.co_names)
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
                (stored if step.opname == "STORE_ATTR" else used).add(step.argval)
        for constant in code.co_consts:
            if isinstance(constant, tuple):
                keywords.update(each for each in constant if isinstance(each, str))
        used.update(each for each in code.co_consts if isinstance(each, str))
    strings = {each for each in found if isinstance(each, str)} | used | keywords
    if words & {"getattr", "hasattr", "attrgetter", "get_parameter", "get_submodule"}:
        used |= strings
    asked = {each for each in strings if len(each) > 1}
    asked = asked if words & {"__name__", "__qualname__", "__class__", "type"} else set()
    classes = {each for each in found if isinstance(each, type)}
    return Mentions(held, classes, words, used | stored, stored, asked, keywords)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A module's own and its classes', but for its registered parts."""
    classes = [vars(kind) for kind in type(module).__mro__[::-1] if is_foreign(kind)]
    found = {name: value for kind in classes for name, value in kind.items()}
    found = {name: value for name, value in found.items() if name not in _SILENT}
    own = {name: value for name, value in vars(module).items() if name not in _REGISTERED}
    return {**found, **own}


class Surroundings:
    """A model, and what its modules mention of each other."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._registered = {id(module): module for module in model.modules()}
        self._mentions: dict[nn.Module, Mentions] = {}

    def mentions(self, module: nn.Module) -> Mentions:
        if module not in self._mentions:
            self._mentions[module] = mentions(module, self._registered)
        return self._mentions[module]
