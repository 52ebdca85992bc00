"""snmu(): the stochastic NMU, as it is trained."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..autocast import wide, widen
from ..autograd import gradients
from ..checks import check_noise, check_snmu
from ..execute import execute
from ..family import NMU
from ..operators import once


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
    same on every back end and device. The backward draws it again; it is not stored (in a graph of
    torch.compile the compiler decides that). These lines make it, here of rows x columns inputs in
    float32 (float64 has it in float64)::

        from nalu_kernels.sweep import stream
        u = stream.draw(seed, stream.NOISE, 0, rows, columns)
        n = stream.uniform(u, ((1.0, 5.0),), torch.float32)

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
        computed in float32, and rounded once.

    Raises:
        TypeError: an argument has the wrong type, or tensors of wrong or mixed dtypes.
        ValueError: a wrong shape, mixed devices, a range that is none, or a seed out of range.

    Source: Mistry, Farrahi and Hare 2022, "Improving the Robustness of Neural Multiplication Units
    with Reversible Stochasticity".
    """
    tensors = (input, W)
    if has_torch_function(tensors):
        return handle_torch_function(snmu, tensors, *tensors, noise=noise, seed=seed)
    narrow, tensors = widen(*tensors)
    check_snmu(noise, seed, *tensors)
    drawn = torch.randint(2**63 - 1, ()) if seed is None else torch.tensor(int(seed))
    arguments = (check_noise(noise), drawn, *map(wide, tensors))
    y = _composed(*arguments) if _plain_autograd() else _redrawn(*arguments)
    return y.to(narrow or tensors[0].dtype)


def _plain_autograd() -> bool:
    """Whether what is at work wants PyTorch's own operations instead of a Function."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def _composed(range: tuple[float, float] | None, seed: Tensor, input: Tensor, W: Tensor) -> Tensor:
    noise = _noise(range, seed, input.detach())
    return execute(NMU, (), (input * noise, W)) / execute(NMU, (), (noise, W))


def _noise(range: tuple[float, float] | None, seed: Tensor, input: Tensor) -> Tensor:
    """In the shape of the input; a range of None is that of its standard deviation."""
    columns = input.shape[-1]
    rows = math.prod(input.shape[:-1])
    u = torch.ops.nalu_kernels.noise(seed, rows, columns).view(input.shape).to(input)
    return spread(range, u, input)


def spread(range: tuple[float, float] | None, u: Tensor, input: Tensor) -> Tensor:
    """The noise on an input, of numbers u in [0, 1); a range of None is that of its deviation."""
    if range is not None:
        low, high = torch.tensor(range, dtype=input.dtype).unbind()
        return low + (high - low) * u
    return 1 + u / input.std() if input.numel() else u


class _Redrawn(torch.autograd.Function):
    """:func:`_composed`, which keeps nothing but its arguments for the backward."""

    @staticmethod
    def forward(
        ctx: Any, range: tuple[float, float] | None, seed: Tensor, input: Tensor, W: Tensor
    ) -> Tensor:
        ctx.range = range
        ctx.save_for_backward(seed, input, W)
        return _composed(range, seed, input, W)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        seed, *tensors = ctx.saved_tensors
        composed = functools.partial(_composed, ctx.range, seed)
        return None, None, *gradients(composed, tensors, ctx.needs_input_grad[2:], grad_output)


# Without what apply does for torch.func, which _plain_autograd has ruled out.
_redrawn = super(torch.autograd.Function, _Redrawn).apply


def _draw(seed: Tensor, rows: int, columns: int) -> Tensor:
    from ..sweep import stream  # imports what takes long

    return stream.drawn(seed, stream.NOISE, 0, rows, columns)


def _define(library: torch.library.Library) -> None:
    library.define("noise(Tensor seed, SymInt rows, SymInt columns) -> Tensor")
    library.impl("noise", _draw, "CompositeExplicitAutograd")
    torch.library.register_fake(
        "nalu_kernels::noise",
        lambda seed, rows, columns: torch.empty(*seed.shape, rows, columns, device=seed.device),
        lib=library,
    )
    torch.library.register_vmap(
        "nalu_kernels::noise",
        lambda info, dims, seed, rows, columns: (_draw(seed.movedim(dims[0], 0), rows, columns), 0),
        lib=library,
    )


once("nalu_kernels", "FRAGMENT", "noise", _define)
