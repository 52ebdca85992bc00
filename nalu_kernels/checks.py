"""Words for wrong arguments.

The compiled operators check their arguments themselves, cheaply, before any kernel runs, but can
only raise a bare RuntimeError. These functions are the slow, eloquent half: `execute` calls
them when an operator has refused (or before the reference runs) to raise the exception that names
the argument, what came and what was expected.
"""

from __future__ import annotations

import functools
import numbers
import operator
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_WANTED = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)


def _kind(value: object) -> str:
    """The name of its type, with the module if that is not Python's own: numpy has a bool too."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


class Sized:
    """What the checks look at of a tensor, but of this shape. It is no tensor: one that is made
    for a check stays in the graph that is being traced."""

    def __init__(self, of: Tensor, shape: tuple[int, ...]) -> None:
        self.of, self.shape = of, shape
        self.dtype, self.device, self.layout = of.dtype, of.device, of.layout
        self.is_nested = of.is_nested

    def dim(self) -> int:
        return len(self.shape)


def _is_tensor(value: object) -> bool:
    return isinstance(value, (Tensor, Sized))


def _dense(name: str, value: Any) -> Tensor:
    if not _is_tensor(value):
        raise TypeError(f"{name}: expected a torch.Tensor, got {_kind(value)}")
    if value.is_nested:
        raise TypeError(
            f"{name}: expected a dense (strided) tensor, got a nested one; call the layer for each "
            f"of {name}.unbind(), or pad it: torch.nested.to_padded_tensor({name}, 0.0)"
        )
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense (strided) tensor, got layout {value.layout}")
    tensor: Tensor = value
    return tensor


def _floating(name: str, value: object) -> Tensor:
    tensor = _dense(name, value)
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name}: expected a tensor of dtype {_WANTED}, got {tensor.dtype}")
    return tensor


def check_input(input: object) -> None:
    """Raises TypeError unless it is a tensor that a call takes first."""
    _floating("input", input)


def is_dtensor(value: object) -> bool:
    """Whether it is a DTensor, whose module takes long to import: who has one has imported it."""
    if isinstance(value, Sized):
        value = value.of
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, getattr(module, "DTensor", ()))


def _like_input(name: str, value: object, input: Tensor) -> Tensor:
    tensor = _dense(name, value)
    if is_dtensor(tensor) != is_dtensor(input):
        kinds = ("a DTensor", "a plain tensor")
        wanted, got = kinds if is_dtensor(input) else reversed(kinds)
        raise TypeError(f"{name}: expected {wanted}, as input is, got {got}")
    if tensor.dtype != input.dtype:
        raise TypeError(f"{name}: expected the dtype of input, {input.dtype}, got {tensor.dtype}")
    if tensor.device != input.device:
        raise ValueError(
            f"{name}: expected the device of input, {input.device}, got {tensor.device}"
        )
    return tensor


def _shape(name: str, value: Tensor, *expected: tuple[int, ...]) -> None:
    # Not `in`, which Dynamo gets wrong for sizes that are symbols.
    if all(tuple(value.shape) != shape for shape in expected):
        wanted = " or ".join(str(shape) for shape in expected)
        raise ValueError(f"{name}: expected shape {wanted}, got {tuple(value.shape)}")


def check_number(name: str, value: object) -> None:
    """Raises TypeError unless the value is a real number; it may be infinite."""
    if not _is_number(value):
        raise TypeError(f"{name}: expected a number, got {_kind(value)}")


def _is_number(value: object) -> bool:
    # First what a compiler can trace: numpy's numbers are known to the abstract class alone.
    return isinstance(value, (int, float, numbers.Real)) and not isinstance(value, bool)


def check_eps(eps: Any, name: str = "eps") -> float:
    """eps as a float; TypeError or ValueError unless it is a positive finite number."""
    return _finite(name, eps, "positive", 5e-324)


def check_eps_in(dtype: torch.dtype | None, eps: Any, name: str = "eps") -> float:
    """As :func:`check_eps`, and ValueError if it is 0 in what a layer of this dtype computes in:
    itself, or float32 if it is narrower. None is torch's default."""
    number = check_eps(eps, name)
    wide = (torch.get_default_dtype() if dtype is None else dtype) == torch.float64
    if not wide and number <= 2.0**-150:
        raise ValueError(
            f"{name}: expected at least 1.4e-45, the least that is not 0 in float32, got {eps}; "
            "a layer with dtype=torch.float64 takes smaller ones"
        )
    return number


def _finite(name: str, value: Any, sign: str, least: float) -> float:
    """The value as a float; TypeError or ValueError unless it is finite and at least ``least``."""
    if not _is_number(value):
        raise TypeError(f"{name}: expected a {sign} finite float, got {_kind(value)}")
    number = float(value)
    if not least <= number <= sys.float_info.max:
        raise ValueError(f"{name}: expected a {sign} finite float, got {value}")
    return number


def check_int(name: str, value: Any) -> int:
    """The value as an int; TypeError unless it is a whole number."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an int, got {_kind(value)}")
    return operator.index(value)


def check_size(name: str, value: Any) -> int:
    """The value as an int; TypeError or ValueError unless it is a size."""
    size = check_int(name, value)
    if size < 0:
        raise ValueError(f"{name}: expected a size of at least 0, got {size}")
    return size


def check_flag(name: str, value: object) -> bool:
    """The value as a bool; TypeError unless it is one, Python's or numpy's."""
    if isinstance(value, bool):
        return value
    numpy = sys.modules.get("numpy")  # who has its bool has imported it
    if numpy is None or not isinstance(value, numpy.bool_):
        raise TypeError(f"{name}: expected a bool, got {_kind(value)}")
    return bool(value)


def check_dtype(dtype: object) -> None:
    """Raises TypeError unless dtype, of a layer that is to be made, is one of DTYPES or None."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: expected a torch.dtype or None, got {_kind(dtype)}")
    if dtype is not None and dtype not in DTYPES:
        raise TypeError(f"dtype: expected {_WANTED}, got {dtype}")


def _untraced(check: Callable[..., None]) -> Callable[..., None]:
    """torch.jit.trace does not see the check: it would warn of each comparison of sizes."""

    @functools.wraps(check)
    def checked(*arguments: object) -> None:
        state = torch._C._get_tracing_state()
        if state is None:
            check(*arguments)
            return
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
        try:
            check(*arguments)
        finally:
            torch._C._set_tracing_state(state)  # type: ignore[attr-defined]

    return checked


def _input_and_weight(
    input: object, name: str, weight: object, for_each_input: int = 1
) -> tuple[Tensor, tuple[int, int]]:
    """input as a tensor, and (out_features, in_features), which the first weight has."""
    x = _floating("input", input)
    w = _like_input(name, weight, x)
    columns = "in_features" if for_each_input == 1 else f"{for_each_input} in_features"
    if w.dim() != 2:
        raise ValueError(
            f"{name}: expected 2 dimensions (out_features, {columns}), got shape {tuple(w.shape)}"
        )
    if w.shape[1] % for_each_input:
        raise ValueError(f"{name}: expected shape (out_features, {columns}), got {tuple(w.shape)}")
    if x.dim() == 0:
        raise ValueError("input: expected at least 1 dimension (..., in_features), got a scalar")
    out_features, in_features = w.shape[0], w.shape[1] // for_each_input
    if x.shape[-1] != in_features:
        raise ValueError(
            f"input: expected a last dimension of in_features = {in_features} "
            f"({name} is {tuple(w.shape)}), got shape {tuple(x.shape)}"
        )
    return x, (out_features, in_features)


def _check_common(
    input: object, W_hat: object, M_hat: object, eps: object
) -> tuple[Tensor, tuple[int, int]]:
    """As :func:`_input_and_weight`."""
    x, shape = _input_and_weight(input, "W_hat", W_hat)
    _shape("M_hat", _like_input("M_hat", M_hat, x), shape)
    check_eps(eps)
    return x, shape


def _check_untied(x: Tensor, shape: tuple[int, int], W_hat_mul: object, M_hat_mul: object) -> None:
    """The product's own weights: both or neither."""
    if (W_hat_mul is None) != (M_hat_mul is None):
        names = ("W_hat_mul", "M_hat_mul")
        missing, given = names if W_hat_mul is None else reversed(names)
        raise ValueError(
            f"{missing}: expected a tensor because {given} is given, got None; pass both "
            "(untied weights) or neither (tied)"
        )
    if W_hat_mul is not None:
        for name, value in (("W_hat_mul", W_hat_mul), ("M_hat_mul", M_hat_mul)):
            _shape(name, _like_input(name, value, x), shape)


@_untraced
def check_nac(eps: object, log_space: object, input: object, W_hat: object, M_hat: object) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.nac`."""
    _check_common(input, W_hat, M_hat, eps)
    check_flag("log_space", log_space)


@_untraced
def check_nalu(
    eps: object,
    input: object,
    W_hat: object,
    M_hat: object,
    G: object,
    gate_bias: object = None,
    W_hat_mul: object = None,
    M_hat_mul: object = None,
) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.nalu`."""
    x, (out_features, in_features) = _check_common(input, W_hat, M_hat, eps)
    gates = _like_input("G", G, x)
    _shape("G", gates, (out_features, in_features), (1, in_features))
    if gate_bias is not None:
        _shape("gate_bias", _like_input("gate_bias", gate_bias, x), (gates.shape[0],))
    _check_untied(x, (out_features, in_features), W_hat_mul, M_hat_mul)


@_untraced
def check_W(input: object, W: object) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.nau` or
    :func:`nalu_kernels.nmu`."""
    _input_and_weight(input, "W", W)


@_untraced
def check_snmu(range: tuple[float, float] | None, seed: Any, input: object, W: object) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.snmu`, whose
    noise has been checked."""
    x, _ = _input_and_weight(input, "W", W)
    if is_dtensor(x):
        raise TypeError(
            "input: snmu takes no DTensors, for each process would draw noise of its own; call "
            "nmu(input * noise, W) / nmu(noise, W) with a noise that is a DTensor"
        )
    if seed is not None and not 0 <= check_size("seed", seed) < 2**63:
        raise ValueError(f"seed: expected an int below 2**63, got {seed}")
    if range is None and x.numel() == 1:
        raise ValueError(
            "input: expected at least two numbers, whose standard deviation noise='batch' takes, "
            "got one"
        )


def check_noise(noise: Any) -> tuple[float, float] | None:
    """The range of the noise, None for "batch"; TypeError or ValueError if it is neither."""
    words = "noise: expected 'batch' or two finite numbers (a, b) with 0 < a <= b"
    if isinstance(noise, str):
        if noise != "batch":
            raise ValueError(f"{words}, got {noise!r}")
        return None
    if not isinstance(noise, (tuple, list)) or len(noise) != 2:
        got = f"{len(noise)} values" if isinstance(noise, (tuple, list)) else _kind(noise)
        raise TypeError(f"{words}, got {got}")
    low, high = (
        check_eps(end, name) for end, name in zip(noise, ("noise[0]", "noise[1]"), strict=True)
    )
    if low > high:
        raise ValueError(f"{words}, got ({low}, {high})")
    return low, high


@_untraced
def check_inalu(
    eps: object,
    omega: object,
    per_sample: object,
    input: object,
    W_hat: object,
    M_hat: object,
    g: object,
    W_hat_mul: object = None,
    M_hat_mul: object = None,
) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.inalu`."""
    x, (out_features, in_features) = _check_common(input, W_hat, M_hat, eps)
    check_eps(omega, "omega")
    whole = (
        ((1, in_features),)
        if check_flag("per_sample", per_sample)
        else (
            (out_features,),
            (out_features, in_features),
        )
    )
    _shape("g", _like_input("g", g, x), *whole)
    _check_untied(x, (out_features, in_features), W_hat_mul, M_hat_mul)


@_untraced
def check_npu(
    eps: object,
    straight_through: object,
    input: object,
    W_re: object,
    g: object,
    W_im: object = None,
) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.npu`."""
    x, shape = _input_and_weight(input, "W_re", W_re)
    if W_im is not None:
        _shape("W_im", _like_input("W_im", W_im, x), shape)
    _shape("g", _like_input("g", g, x), shape[1:])
    check_eps(eps)
    check_flag("straight_through", straight_through)


@_untraced
def check_nru(training: object, input: object, W: object) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.nru`."""
    _input_and_weight(input, "W", W)
    check_flag("training", training)


@_untraced
def check_nmru(eps: object, input: object, W: object) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.nmru`."""
    _input_and_weight(input, "W", W, for_each_input=2)
    _finite("eps", eps, "non-negative", 0.0)


@_untraced
def check_over_units(check: Callable[..., None], names: tuple[str, ...], *arguments: Any) -> None:
    """Raises TypeError or ValueError if these are not arguments of a layer, whose own check is
    ``check``, with a dimension of units before those of its tensors, called ``names``."""
    tensors = [of for of in arguments if of is None or _is_tensor(of)]
    options = arguments[: len(arguments) - len(tensors)]
    W = tensors[1]
    if not isinstance(W, Tensor) or W.dim() != 3 or W.shape[0] == 0:
        got = tuple(W.shape) if isinstance(W, Tensor) else _kind(W)
        raise ValueError(
            f"{names[1]}: expected shape (units, out, in), of one unit or more, got {got}"
        )
    units = W.shape[0]
    for name, tensor in zip(names, tensors):  # noqa: B905 - the last may be left out
        if tensor is not None and (tensor.dim() == 0 or tensor.shape[0] != units):
            wanted = f"{units} units ({names[1]} is {tuple(W.shape)}) as the first dimension"
            got = f"got shape {tuple(tensor.shape)}"
            if name == "input":
                got += f"; one that all units share is input.expand({units}, *input.shape), no copy"
            raise ValueError(f"{name}: expected {wanted}, {got}")
    check(*options, *(of if of is None else Sized(of, of.shape[1:]) for of in tensors))


@_untraced
def check_over_time(
    check: Callable[..., None], options: int, tensors: int, *arguments: Any
) -> None:
    """Raises TypeError or ValueError if these are not arguments of a cell's ``unroll``: the options
    and tensors of the layer, whose own check is ``check``, with ``last_only`` between them and hx,
    lengths and reset behind."""
    given, last_only = arguments[:options], arguments[options]
    input, *weights = arguments[options + 1 : options + 1 + tensors]
    hx, lengths, reset = (*arguments[options + 1 + tensors :], None, None, None)[:3]
    x = _floating("input", input)
    if x.dim() != 3:
        raise ValueError(
            f"input: expected 3 dimensions (steps, batch, features), got shape {tuple(x.shape)}"
        )
    W = weights[0]
    columns = W.shape[-1] if isinstance(W, Tensor) and W.dim() == 2 else 1
    check(*given, Sized(x, (0, columns)), *weights)
    steps, batch, features = x.shape
    state = W.shape[0]
    if features + state != columns:
        raise ValueError(
            f"input: expected a last dimension of {columns - state}, the columns of the weights "
            f"{tuple(W.shape)} that are not the state's, got shape {tuple(x.shape)}"
        )
    check_flag("last_only", last_only)
    if hx is not None:
        _shape("hx", _like_input("hx", hx, x), (batch, state))
    for name, value, dtype, shape in (
        ("lengths", lengths, torch.int64, (batch,)),
        ("reset", reset, torch.bool, (steps, batch)),
    ):
        if value is not None:
            tensor = _dense(name, value)
            if tensor.dtype != dtype:
                raise TypeError(f"{name}: expected dtype {dtype}, got {tensor.dtype}")
            if tensor.device != x.device:
                raise ValueError(
                    f"{name}: expected the device of input, {x.device}, got {tensor.device}"
                )
            _shape(name, tensor, shape)
    if lengths is not None and not torch.compiler.is_compiling():
        _check_lengths(lengths, steps)


def _check_lengths(lengths: Any, steps: int) -> None:
    """Reads the numbers where that is free: a GPU would have to be waited for."""
    without_numbers = type(lengths) is not Tensor  # but a FakeTensor
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(lengths)
    if without_numbers or wrapped or not lengths.is_cpu or not lengths.numel():
        return
    low, high = int(lengths.min()), int(lengths.max())
    if low < 0 or high > steps:
        raise ValueError(f"lengths: expected 0 to {steps}, the steps of input, got {low} to {high}")


@_untraced
def check_sequence(
    input: object,
    hx: object,
    lengths: object,
    reset: object,
    input_size: int,
    hidden_size: int,
) -> None:
    """Raises TypeError or ValueError if these are not arguments of a cell's ``unroll``, of rows or
    of a single one; what depends on the layer is left to its own checks."""
    x = _dense("input", input)
    if x.dim() not in (2, 3) or x.shape[-1] != input_size:
        raise ValueError(
            f"input: expected shape (steps, batch, {input_size}) or (steps, {input_size}), got "
            f"{tuple(x.shape)}"
        )
    steps, batch = x.shape[0], tuple(x.shape[1:-1])
    if hx is not None:
        _shape("hx", _dense("hx", hx), (*batch, hidden_size))
    if lengths is not None:
        _shape("lengths", _dense("lengths", lengths), batch)
    if reset is not None:
        _shape("reset", _dense("reset", reset), (steps, *batch))


@_untraced
def check_network(
    input: object, hx: object, input_size: int, hidden_size: int, num_layers: int
) -> None:
    """Raises TypeError or ValueError if these are not an input, perhaps packed, and the states (or
    None) of cells one above the other."""
    name, x = "input", input
    packed = isinstance(input, PackedSequence)
    if isinstance(input, PackedSequence):
        name, x = "input.data", input.data
    tensor = _dense(name, x)
    dims = (2,) if packed else (2, 3)
    if tensor.dim() not in dims or tensor.shape[-1] != input_size:
        wanted = f"(steps, batch, {input_size}), (steps, {input_size}) or a PackedSequence"
        if packed:
            wanted = f"(..., {input_size})"
        raise ValueError(f"{name}: expected shape {wanted}, got {tuple(tensor.shape)}")
    if hx is not None:
        state = _dense("hx", hx)
        batched = packed or tensor.dim() == 3
        batch = state.shape[1:2] if batched else ()  # of which each cell's own checks judge
        if tuple(state.shape) != (num_layers, *batch, hidden_size):
            wanted = f"({num_layers}, {'batch, ' if batched else ''}{hidden_size})"
            raise ValueError(f"hx: expected shape {wanted}, got {tuple(state.shape)}")


@_untraced
def check_state(input: object, hx: object, input_size: int, hidden_size: int) -> None:
    """Raises TypeError or ValueError if these are not an input and a state (or None) of a cell."""
    x = _dense("input", input)
    if x.dim() not in (1, 2) or x.shape[-1] != input_size:
        over_time = (
            "; a cell takes one step of a sequence: for x in input: hx = cell(x, hx), or where the "
            "batch comes first, for x in input.unbind(1)"
        )
        raise ValueError(
            f"input: expected shape (batch, {input_size}) or ({input_size},), got {tuple(x.shape)}"
            f"{over_time if x.dim() == 3 else ''}"
        )
    if hx is None:
        return
    # Autocast hands back the state in a dtype of its own; torch.cat then widens.
    state = _dense("hx", hx)
    if not torch._C._is_any_autocast_enabled() or state.device != x.device:
        _like_input("hx", state, x)
    _shape("hx", state, (*x.shape[:-1], hidden_size))
