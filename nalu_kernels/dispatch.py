"""Which back ends exist here, which are usable and why not, and which one a tensor gets.

A back end is a name, the device types it serves, and a loader that returns its
:class:`Operators` or raises :class:`BackendUnavailable` with the cause. Adding one is a row in
``_BACKENDS``: no caller changes. One that has no kernels of a function is passed over for it.
``reference`` has no operators: it is the plain PyTorch of ``nalu_kernels.reference``,
differentiated by autograd itself.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import NamedTuple

import torch
from torch import Tensor

from . import native
from .checks import DTYPES, check_input
from .family import COMPOSED, FUNCTIONS, OVER_TIME, OVER_UNITS
from .operators import Operators
from .triton import NAMESPACE as TRITON
from .triton.deferred import define_operators


class BackendUnavailable(RuntimeError):
    """A back end cannot be used here; the message says why."""


class Backend(NamedTuple):
    """A row of the table of back ends."""

    name: str
    device_types: tuple[str, ...]  # empty: every device
    dtypes: tuple[torch.dtype, ...]  # empty: every dtype
    load: Callable[[], Operators | None]
    about: Callable[[], str]  # what it is, once it has loaded
    namespace: str = ""  # of its operators in torch.ops
    if_forced: tuple[str, ...] = ()  # device types that it serves only when it is asked for


class BackendStatus(NamedTuple):
    """``usable``: whether the back end can run here. ``reason``: what it is, or why it cannot."""

    usable: bool
    reason: str


_PACKAGE = f"{__name__.partition('.')[0]}."
# Whether Triton interprets its kernels, on CPU tensors, instead of compiling them.
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "y", "yes", "on", "true")


def _require_gpu() -> None:
    """One that the Triton kernels are for, at least."""
    if not torch.cuda.is_available():
        raise BackendUnavailable("no CUDA or ROCm device is visible to torch")
    if torch.version.hip is None:
        newest = max(map(torch.cuda.get_device_capability, range(torch.cuda.device_count())))
        if newest < (8, 0):
            raise BackendUnavailable(
                "the Triton kernels need compute capability 8.0 or newer, "
                f"the GPU here has {newest[0]}.{newest[1]}"
            )


def _load_triton() -> Operators:
    if not _INTERPRETED:
        _require_gpu()
    if importlib.util.find_spec("triton") is None:
        raise BackendUnavailable("triton is not installed (pip install triton)")
    try:
        from .triton.operators import unrecorded
    except Exception as error:  # whatever a broken or too old Triton raises while it is imported
        raise BackendUnavailable(f"triton: {type(error).__name__}: {error}") from error
    return unrecorded


def _about_triton() -> str:
    import triton

    how = "interpreted on the CPU: for tests, slow" if _INTERPRETED else "compiled as needed"
    return f"Triton {triton.__version__} kernels, {how}"


def _load_compiled(load: Callable[[], Operators]) -> Operators:
    try:
        return load()
    except (ImportError, OSError) as error:
        raise BackendUnavailable(str(error)) from error
    except (AttributeError, RuntimeError) as error:
        raise BackendUnavailable(
            "the C++ extension does not fit this version of nalu_kernels: install it again, or "
            f"restart Python if that has just been done ({error})"
        ) from error


def _load_cpu() -> Operators:
    return _load_compiled(native.load_cpu)


def _load_cuda() -> Operators:
    if torch.version.hip is not None:
        raise BackendUnavailable("torch was built for ROCm, the kernels for CUDA")
    if torch.version.cuda is None:
        raise BackendUnavailable(f"torch {torch.__version__} was built without CUDA")
    if not torch.cuda.is_available():
        raise BackendUnavailable("no CUDA device is visible to torch")
    operators = _load_compiled(native.load_cuda)
    _try_on_gpu(operators)
    return operators


def _try_on_gpu(operators: Operators) -> None:
    """Which GPUs a binary serves was settled when it was built; only a launch tells."""
    tensors = [torch.ones(1, 1, device="cuda") for _ in range(3)]
    try:
        operators["nac"].forward(1.0, False, *tensors)
    except RuntimeError as error:
        major, minor = torch.cuda.get_device_capability()
        raise BackendUnavailable(
            f"the kernels do not run on the GPU here, of compute capability {major}.{minor} "
            f"(if they were not built for it: TORCH_CUDA_ARCH_LIST={major}.{minor} pip install "
            f"--no-build-isolation --force-reinstall --no-deps .): {error}"
        ) from error


# Best first: with nothing forced, a tensor gets the first usable back end that serves its device.
# cuda, where it was built, before triton: on the GPU that compared them (NVIDIA H200) nearly every
# float32 layer took less time on it, launches included, and no compiler runs at the first call.
_BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend(
            "cuda",
            ("cuda",),
            DTYPES,
            _load_cuda,
            lambda: "compiled CUDA kernels",
            native.NAMESPACE,
        ),
        Backend(
            "triton",
            ("cuda",),
            DTYPES,
            _load_triton,
            _about_triton,
            TRITON,
            if_forced=("cpu",) if _INTERPRETED else (),
        ),
        Backend(
            "cpu",
            ("cpu",),
            DTYPES,
            _load_cpu,
            lambda: f"compiled C++ kernels, {native.cpu_capability()}",
            native.NAMESPACE,
        ),
        Backend(
            "reference",
            (),
            (),
            lambda: None,
            lambda: (
                "plain PyTorch, any device; serves torch.func, forward-mode AD and gradients of "
                "gradients for all"
            ),
        ),
    )
}


@functools.cache
def _load(name: str) -> tuple[Operators | None, BackendStatus]:
    try:
        operators = _BACKENDS[name].load()
    except BackendUnavailable as error:
        return None, BackendStatus(False, str(error))
    return operators, BackendStatus(True, _BACKENDS[name].about())


def backends() -> dict[str, BackendStatus]:
    """Every back end by name, best first: usable here or not, and what it is or why not."""
    return {name: _load(name)[1] for name in _BACKENDS}


def status(name: str) -> BackendStatus:
    """As in :func:`backends`, and no other back end is loaded for it."""
    return _load(name)[1]


def forced() -> str | None:
    """The back end that ``use_backend`` or ``NALU_KERNELS_BACKEND`` asks for."""
    return _forced.choice[0] if _forced.choice is not None else None


def serves(name: str, device_type: str) -> bool:
    """Whether the back end takes tensors of these devices when it is asked for by name."""
    backend = _BACKENDS[name]
    return not backend.device_types or device_type in backend.device_types + backend.if_forced


def namespace(name: str) -> str:
    """Of the back end's operators in torch.ops."""
    return _BACKENDS[name].namespace


class _Forced(threading.local):
    """The back end's name and who forced it, for each thread. Not a ContextVar: torch.compile knows
    none, and would not notice a change."""

    def __init__(self) -> None:
        name = os.environ.get("NALU_KERNELS_BACKEND", "")
        self.choice = (name, "NALU_KERNELS_BACKEND") if name else None


_forced = _Forced()


def _check_name(name: object, source: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{source}: expected the name of a back end, got {type(name).__name__}")
    if name not in _BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(_BACKENDS)}, got {name!r}")
    return name


def require_usable(name: str, source: str) -> None:
    usable, reason = _load(_check_name(name, source))[1]
    if not usable:
        raise BackendUnavailable(f"{source}: back end {name!r} is not usable here: {reason}")


# What torch.compiler.assume_constant_result would set, after importing the compiler: Dynamo calls
# this instead of tracing it.
require_usable._dynamo_marked_constant = True  # type: ignore[attr-defined]


class use_backend(ContextDecorator):
    """Forces back end ``name`` for the calls made inside ``with use_backend(name):``.

    It holds for the current thread and outranks the environment variable ``NALU_KERNELS_BACKEND``.
    A backward runs on the back end that its forward ran on; so does what torch.compile made inside,
    which is made anew where the choice has changed.

    Raises:
        ValueError: no back end has that name.
        BackendUnavailable: it cannot be used here; the message says why.
    """

    def __init__(self, name: str) -> None:
        require_usable(name, "use_backend")
        self.name = name
        self._outer: list[tuple[str, str] | None] = []

    def __enter__(self) -> None:
        self._outer.append(_forced.choice)
        _forced.choice = (self.name, "use_backend")

    def __exit__(self, *exception: object) -> None:
        _forced.choice = self._outer.pop()


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active()


def under_vmap() -> bool:
    """Whether vmap is the only transform of torch.func at work: the operators have its rule."""
    if torch._C._functorch.get_dynamic_layer_stack_depth() != 1:
        return False
    only = torch._C._functorch.peek_interpreter_stack()
    return bool(only.key() == torch._C._functorch.TransformType.Vmap)


_OVER_TIME = {row.name for row in OVER_TIME.values()}


def _needs_reference(function: str | None = None) -> str | None:
    """What is at work that only the reference's plain PyTorch supports, if anything is."""
    if _transformed() and not (under_vmap() and function not in _OVER_TIME):
        return "a torch.func transform is active"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode AD is active"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace is recording"
    return None


def which_backend(input: Tensor, function: str | None = None) -> tuple[str, str]:
    """The name of the back end that a call with ``input`` would run on now, and why that one.

    Args:
        input: the tensor that the call is given first.
        function: the name of the function that is called, such as ``"nmu"``. A back end that has
            no kernels of it is passed over. None asks for the back end of any function.
            ``"nmu_unroll"`` is that of an NMUCell's ``unroll``, which on "reference" calls the
            layer for each step, on the back end of ``"nmu"``.

    Raises:
        TypeError: input is not a tensor of a dtype and layout that calls take, or function no
            string.
        ValueError: there is no such function; or a back end is forced that does not serve the
            input's device, or that does not exist.
        BackendUnavailable: a back end is forced that cannot be used here.
    """
    check_input(input)
    if function is not None:
        function = _kernels_of(function)
    reason = _needs_reference(function)
    if reason is None and _transformed():  # vmap alone, whose calls are of units
        name = function or "nac"
        function = OVER_UNITS[name].name if name in OVER_UNITS else name
    chosen = _choose(_forced.choice, input.device.type, input.dtype, function)
    return chosen if reason is None else ("reference", reason)


def _kernels_of(function: object) -> str:
    """The name of the function whose kernels are called for this one."""
    if not isinstance(function, str):
        raise TypeError(
            f"function: expected a function's name, such as 'nmu', got {type(function).__name__}"
        )
    name = COMPOSED.get(function, function)
    if name not in FUNCTIONS:
        names = ", ".join([*FUNCTIONS, *COMPOSED])
        raise ValueError(
            f"function: expected one of {names}, which the layers call, got {function!r}"
        )
    return name


def _choose(
    forced: tuple[str, str] | None,
    device_type: str,
    dtype: torch.dtype,
    function: str | None,
) -> tuple[str, str]:
    """The back end's name and why that one, if no transform is at work."""
    if forced is None:
        return _automatic(device_type, dtype, function)
    name, source = forced
    require_usable(name, source)
    backend = _BACKENDS[name]
    types = backend.device_types + backend.if_forced if backend.device_types else ()
    if not _serves(types, backend.dtypes, device_type, dtype):
        raise ValueError(
            f"input: back end {name!r}, forced by {source}, serves {', '.join(types)} tensors "
            f"of floating dtype, got {dtype} on {device_type}"
        )
    if not _has(_load(name)[0], function):
        return "reference", f"{name}, forced by {source}, has no kernels of {function}"
    return name, f"forced by {source}"


def _has(operators: Operators | None, function: str | None) -> bool:
    """Whether a back end computes the function; it need have no operators for that."""
    return operators is None or function is None or function in operators


def _serves(
    device_types: tuple[str, ...],
    dtypes: tuple[torch.dtype, ...],
    device_type: str,
    dtype: torch.dtype,
) -> bool:
    return (not device_types or device_type in device_types) and (not dtypes or dtype in dtypes)


@functools.cache
def _automatic(
    device_type: str, dtype: torch.dtype, function: str | None = None
) -> tuple[str, str]:
    passed_over: list[str] = []
    for backend in _BACKENDS.values():
        if not _serves(backend.device_types, backend.dtypes, device_type, dtype):
            continue
        operators, (usable, reason) = _load(backend.name)
        if usable and not _has(operators, function):
            usable, reason = False, f"no kernels of {function}"
        if usable:
            why = f"the best usable for {dtype} on {device_type}"
            if passed_over:
                why += f" ({'; '.join(passed_over)})"
            return backend.name, why
        passed_over.append(f"{backend.name}: {reason}")
    raise AssertionError("reference serves every device and dtype")


@functools.cache
def _automatic_operators(
    device_type: str, dtype: torch.dtype, function: str | None
) -> Operators | None:
    name, why = _automatic(device_type, dtype, function)
    if name == "reference" and device_type in ("cpu", "cuda") and dtype in DTYPES:
        _warn(function, device_type, why)
    return _load(name)[0]


@functools.cache
def _warn(function: str | None, device_type: str, why: str) -> None:
    """Once for each function and device."""
    warnings.warn(
        f"nalu_kernels runs {function or 'all'} on its slow plain PyTorch reference: {why}",
        RuntimeWarning,
        stacklevel=_frames_of_ours(),
    )


def _frames_of_ours() -> int:
    """How many frames up from the caller the user's code is, for a warning to name its line."""
    frame, count = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame, count = frame.f_back, count + 1
    return count


def select(input: Tensor, function: str | None = None) -> Operators | None:
    """The operators for ``input``, those of ``function`` among them; None stands for the reference,
    and for a graph that is being traced (``namespace_in_graph``)."""
    if torch.compiler.is_compiling():  # first, so that the compiler sees nothing of the rest
        return None
    if _is_plain():
        device_type = "cpu" if input.is_cpu else input.device.type
        return _automatic_operators(device_type, input.dtype, function)
    if _transformed():
        return None
    name, why = which_backend(input, function)
    if name == "reference" and forced() not in (None, name) and _needs_reference() is None:
        _warn(function, input.device.type, why)
    return _load(name)[0]


def _is_plain() -> bool:
    """Whether nothing but the input decides; what which_backend asks, at a fifth of its cost."""
    return (
        _forced.choice is None
        and not _transformed()
        and torch.autograd.forward_ad._current_level < 0
        and torch._C._get_tracing_state() is None
    )


def has_kernels(input: Tensor, function: str) -> bool:
    """Whether a call of this function, which is no layer's own, with ``input`` would run on kernels
    of it."""
    if torch.compiler.is_compiling():
        return bool(namespace_in_graph(input, function))
    if _is_plain():
        return _automatic(input.device.type, input.dtype, function)[0] != "reference"
    return which_backend(input, function)[0] != "reference"


def namespace_in_graph(input: Tensor, function: str) -> str:
    """Where in torch.ops the operators are that a traced graph is to call; "": the reference."""
    if _needs_reference(function) is not None or _transformed():
        return ""
    return _namespace(_forced.choice, input.device.type, input.dtype, function)


def _namespace(
    forced: tuple[str, str] | None, device_type: str, dtype: torch.dtype, function: str
) -> str:
    return _BACKENDS[_choose(forced, device_type, dtype, function)[0]].namespace


# As above; it is called again when an argument changes.
_namespace._dynamo_marked_constant = True  # type: ignore[attr-defined]

# Graphs that were saved elsewhere name the operators, so they are there once this is imported.
define_operators(on_cpu=_INTERPRETED)
_load("cpu")
