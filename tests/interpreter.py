"""Some of the time of Triton's interpreter, saved. The tests are right without this, and slower."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def hasten() -> None:
    from triton import language
    from triton.runtime import interpreter

    # It replaces Triton's language by its own at each call of each jitted function, nested ones
    # too, although it stays replaced until the kernel ends: once for each part of the language that
    # functions see will do.
    patch: Callable[[Any], Any] = interpreter._patch_lang
    patched: set[frozenset[str]] = set()

    @functools.cache
    def seen_by(function: Any) -> frozenset[str]:
        parts = (language, language.core)
        visible = function.__globals__.values()
        return frozenset(part.__name__ for part in parts if any(part is one for one in visible))

    def once(function: Any) -> Any:
        if language.core.is_builtin(language.load):  # nothing is replaced: a kernel begins
            patched.clear()
        parts = seen_by(function)
        if parts in patched:
            return None  # only a kernel's own call looks at what is returned
        patched.add(parts)
        return patch(function)

    interpreter._patch_lang = once
    # To look up one type, as it does for every operation, it lists them all again.
    look_up: Callable[[Any], Any] = interpreter._get_np_dtype
    found: dict[str, Any] = {}

    def numpy_type(dtype: Any) -> Any:
        name = dtype.scalar.name
        if name not in found:
            found[name] = look_up(dtype)
        return found[name]

    interpreter._get_np_dtype = numpy_type
    # Tensors on the CPU are not copied for it, but it copies them back, onto themselves.
    interpreter.GridExecutor._restore_args_dev = lambda *_: None
