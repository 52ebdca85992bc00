"""snmu(): the stochastic NMU, as it is trained."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .. import dispatch
from ..autocast import wide, widen
from ..autograd import BITS, gradients, reference_needed
from ..checks import check_noise, check_snmu
from ..dispatch import select
from ..execute import PLAIN, execute
from ..family import NMU
from ..operators import Kernels, once
from .units import of_units


def snmu(
    input: Tensor,
    W: Tensor,
    *,
    noise: tuple[float, float] | Literal["batch"] = (1.0, 5.0),
    seed: int | None = None,
) -> Tensor:
    r"""Stochastic NMU, as it is trained: every input is multiplied by noise, and its share of the
    product is divided out again.

    .. math::
        y_o = \frac{\prod_i (W_{oi} n_i x_i + 1 - W_{oi})}{\prod_i (W_{oi} n_i + 1 - W_{oi})}

    Where all weights are 0 or 1 this is :func:`nalu_kernels.nmu`, which is what is evaluated.

    The noise n, uniform and new for every number of ``input``, is a function of the seed alone: the
    same on every back end and device. Without ``seed`` one is drawn by torch, which after the same
    ``torch.manual_seed`` is another in a graph of inductor than outside. The kernels' backward
    draws the noise again; it is not stored (in a graph of torch.compile the compiler decides that).
    These lines make it, here of rows x columns inputs in float32 (float64 has it in float64)::

        from nalu_kernels.sweep import stream
        u = stream.draw(seed, stream.NOISE, 0, rows, columns)
        n = stream.uniform(u, ((1.0, 5.0),), torch.float32)

    Either product is far larger than their quotient. So both are computed in float64 where those of
    the noise alone, its bounds to the power of in_features, may take more than half of float32's
    exponents (28 inputs of the default noise), and always where the noise follows from the input.
    Float64 has room for 440 inputs of the default noise at its upper bound.

    Args:
        input: x, of shape (..., in_features); float32, float64, bfloat16 or float16.
        W: of shape (out_features, in_features), the dtype and device of ``input``.
        noise: the range (a, b) of the noise, 0 < a <= b. "batch" is the range from 1 to
            :math:`1 + 1 / \mathrm{std}(x)`: of all numbers in ``input``, unbiased, taken as a
            constant by the backward. An input whose numbers are all equal has no deviation, and
            gives NaN, as by the authors' formula.
        seed: in [0, 2**63). None takes ``torch.randint(2**63 - 1, ())`` from torch's default
            generator.

    Returns:
        y, of shape (..., out_features) and the dtype of ``input``; bfloat16 and float16 are
        computed as float32 is, and rounded once.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, mixed devices, a range that is none, or a seed out of range.

    Source: Mistry, Farrahi and Hare 2022, "Improving the Robustness of Neural Multiplication Units
    with Reversible Stochasticity".
    """
    tensors = (input, W)
    if has_torch_function(tensors):
        return handle_torch_function(snmu, tensors, *tensors, noise=noise, seed=seed)
    row, given = of_units(NMU, tensors)
    if row is not NMU:  # a unit's noise is its own, and may follow from its input
        row.check(*widen(*given)[1])
        units = zip(*(tensor.unbind(0) for tensor in given), strict=True)
        return torch.stack([snmu(x, own, noise=noise, seed=seed) for x, own in units])
    narrow, tensors = widen(*tensors)
    range = check_noise(noise)
    check_snmu(range, seed, *tensors)
    drawn = torch.randint(2**63 - 1, ()) if seed is None else torch.tensor(int(seed))
    arguments = (range, drawn, *map(wide, tensors))
    operators = select(arguments[2], NMU.name) if type(arguments[2]) in PLAIN else None
    y = _composed(*arguments) if operators is None else _redrawn(operators[NMU.name], *arguments)
    return y.to(narrow or tensors[0].dtype)


def _composed(range: tuple[float, float] | None, seed: Tensor, input: Tensor, W: Tensor) -> Tensor:
    """By what graphs, torch.func and autograd see through."""
    noise, x, w = _in_range(range, _noise(False, range, seed, input), input, W)
    return execute(NMU, (), (x * noise, w)) / execute(NMU, (), (noise, w))


def _in_range(
    range: tuple[float, float] | None, noise: Tensor, *tensors: Tensor
) -> tuple[Any, ...]:
    """All of them in a type that has room for a product of noise beside the result's own."""
    if range is not None:
        exponent = noise.shape[-1] * max(abs(math.log(end)) for end in range)
        if exponent <= _HALF_OF_FLOAT32:
            return noise, *tensors
    return tuple(tensor.double() for tensor in (noise, *tensors))


def _noise(plain: bool, range: tuple[float, float] | None, seed: Tensor, input: Tensor) -> Tensor:
    """In the shape of the input; by shorter ways where no graph is made (``plain``)."""
    draw, ends = (_draw, _kept) if plain else (torch.ops.nalu_kernels.noise, low_and_width)
    *leading, columns = input.shape
    u = draw(seed, math.prod(leading), columns, input.device).view_as(input).to(input)
    return spread(ends(range, input.dtype), u, input)


def low_and_width(
    range: tuple[float, float] | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """Of the noise; None is that of the input's standard deviation."""
    if range is None:
        return None
    low, high = torch.tensor(range, dtype=dtype, device="cpu").unbind()
    return low, high - low


def spread(ends: tuple[Tensor, Tensor] | None, u: Tensor, input: Tensor) -> Tensor:
    """The noise on an input, of numbers u in [0, 1) and what :func:`low_and_width` gives."""
    if ends is not None:
        low, width = ends
        return u * width + low
    return 1 + u / input.detach().std() if input.numel() else u


_kept = functools.cache(low_and_width)
_OF_W = BITS[False, True]


_HALF_OF_FLOAT32 = math.log(torch.finfo(torch.float32).max) / 2


class _Redrawn(torch.autograd.Function):
    """:func:`_composed` by kernels, which keeps nothing but its arguments for the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        range: tuple[float, float] | None,
        seed: Tensor,
        input: Tensor,
        W: Tensor,
    ) -> Tensor:
        ctx.kernels, ctx.range = kernels, range
        ctx.save_for_backward(seed, input, W)
        noise, x, w = _in_range(range, _noise(True, range, seed, input), input, W)
        above, _ = kernels.forward(False, x * noise, w)
        below, _ = kernels.forward(False, noise, w)
        return (above / below).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        seed, input, W = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if reference_needed(grad_output):
            composed = functools.partial(_composed, ctx.range, seed)
            return None, None, None, *gradients(composed, (input, W), needed, grad_output)
        noise, x, w = _in_range(ctx.range, _noise(True, ctx.range, seed, input), input, W)
        noisy = x * noise
        above, saved = ctx.kernels.forward(True, noisy, w)
        below, saved_below = ctx.kernels.forward(True, noise, w)
        slope = grad_output / below
        of_noisy, of_W = ctx.kernels.backward(BITS[needed], slope, saved, noisy, w)
        if needed[1]:
            slope *= above / below
            of_W -= ctx.kernels.backward(_OF_W, slope, saved_below, noise, w)[1]
        of_x = (of_noisy * noise).to(input.dtype) if needed[0] else None
        return None, None, None, of_x, of_W.to(W.dtype) if needed[1] else None


# Without what apply does for torch.func, which select has ruled out.
_redrawn = super(torch.autograd.Function, _Redrawn).apply


@functools.cache
def _stream() -> ModuleType:
    from ..sweep import stream  # imports what takes long

    return stream


def _draw(seed: Tensor, rows: int, columns: int, device: torch.device) -> Tensor:
    """By an operator of the device's back end, to which nothing but the seed is carried, and not
    waited for; else on the CPU."""
    stream, operator = _stream(), _operator(device.type)
    if operator is None:
        u: Tensor = stream.drawn(seed, stream.NOISE, 0, rows, columns).to(device)
        return u
    seeds = seed.to(device, non_blocking=True)
    u = operator(seeds.flatten().contiguous(), stream.NOISE, 0, rows, columns)
    return u.view(*seed.shape, rows, columns)


@functools.cache
def _operator(device_type: str) -> Callable[..., Tensor] | None:
    """``draw`` of a GPU's back end, of seeds (n)."""
    backend, _ = dispatch._automatic(device_type, torch.float32)
    if backend == "triton":
        from ..triton.train import draw  # where Triton is

        return draw
    return torch.ops.nalu_kernels.draw if backend == "cuda" else None


def _define(library: torch.library.Library) -> None:
    library.define("noise(Tensor seed, SymInt rows, SymInt columns, Device device) -> Tensor")
    library.impl("noise", _draw, "CompositeExplicitAutograd")
    torch.library.register_fake(
        "nalu_kernels::noise",
        lambda seed, rows, columns, device: torch.empty(
            *seed.shape, rows, columns, dtype=torch.float32, device=device
        ),
        lib=library,
    )
    torch.library.register_vmap(
        "nalu_kernels::noise",
        lambda info, dims, seed, *of: (_draw(seed.movedim(dims[0], 0), *of), 0),
        lib=library,
    )


once("nalu_kernels", "FRAGMENT", "noise", _define)
