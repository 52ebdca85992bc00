"""The kernels' scalar functions against torch's, in float64: everywhere, to a few units u."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

pytest.importorskip("triton", reason="triton is not installed")

import triton
import triton.language as tl

from nalu_kernels.triton import maths

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
COUNT = 1 << 14
pytestmark = [pytest.mark.gpu] if ON_GPU else []
by_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@triton.jit
def kernel(a, b, result, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + at)
    if FUNCTION == "exp":
        y = maths.exp(x)
    elif FUNCTION == "tanh":
        y = maths.tanh(x)
    elif FUNCTION == "sigmoid":
        y = maths.sigmoid(x)
    elif FUNCTION == "log_abs":
        y = maths.log_abs(x, tl.load(b + at))
    elif FUNCTION == "grad_log_abs":
        y = maths.grad_log_abs(tl.load(b + at), x, 1e-30)
    tl.store(result + at, y)


def ours(function: str, a: Tensor, b: Tensor | None = None) -> Tensor:
    a = a.to(DEVICE)
    result = torch.empty_like(a)
    block = min(len(a), 1024) if ON_GPU else len(a)
    kernel[(len(a) // block,)](a, a if b is None else b.to(DEVICE), result, function, block)
    return result.cpu()


def everywhere(rng: Generator, dtype: torch.dtype, largest: float) -> Tensor:
    """Numbers of both signs and of all sizes up to ``largest``, and the special ones."""
    low, high = torch.finfo(dtype).smallest_normal, largest
    scale = torch.rand(COUNT, generator=rng, dtype=torch.float64)
    size = low * (high / low) ** scale if dtype == torch.float32 else 10 ** (310 * scale - 308)
    sign = torch.randn(COUNT, generator=rng, dtype=torch.float64).sign()
    numbers = (size.clamp(max=largest) * sign).to(dtype)
    tiny = torch.finfo(dtype).smallest_normal
    special = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, tiny, -tiny, tiny / 8, 1.0, -1.0]
    numbers[: len(special)] = torch.tensor(special, dtype=dtype)
    return numbers


def assert_close(found: Tensor, true: Callable[..., Tensor], units: float, *args: Tensor) -> None:
    """Within so many u of the truth, or of the least that the dtype tells apart; the same NaN and
    infinities as torch in that dtype."""
    expected, info = true(*args), torch.finfo(found.dtype)
    for what in (torch.isnan, torch.isposinf, torch.isneginf):
        wrong = what(found) != what(expected)
        assert not wrong.any(), [(arg[wrong][:3], found[wrong][:3]) for arg in args]
    exact = true(*(arg.double() for arg in args))
    u, least = info.eps / 2, info.smallest_normal * info.eps
    error = (found.double() - exact).abs() / (exact.abs() * u).clamp(min=least)
    # torch's own float64 functions are off by an ulp.
    units += 2 if found.dtype == torch.float64 else 0
    finite = expected.isfinite()
    assert error[finite].max() <= units, args[0][finite][error[finite].argmax()]


@by_dtype
@pytest.mark.parametrize("function, units", [("exp", 2.5), ("tanh", 4.0), ("sigmoid", 4.0)])
def test_functions(function: str, units: float, dtype: torch.dtype, rng: Generator) -> None:
    true = getattr(torch, function)
    for largest in (1e3, 80.0, 1.0):
        a = everywhere(rng, dtype, largest)
        assert_close(ours(function, a), true, units, a)
    a = torch.linspace(-90, 90, COUNT, dtype=dtype)
    assert_close(ours(function, a), true, units, a)


@by_dtype
def test_logarithm(dtype: torch.dtype, rng: Generator) -> None:
    a = everywhere(rng, dtype, torch.finfo(dtype).max / 4)
    eps = torch.full_like(a, 1e-30)
    assert_close(ours("log_abs", a, eps), lambda a: (a.abs() + 1e-30).log(), 4.0, a)


@by_dtype
def test_quotient_of_its_gradient(dtype: torch.dtype, rng: Generator) -> None:
    """Of numbers of any size: a hardware's quick quotient is 0 or NaN for the largest."""

    def true(grad: Tensor, a: Tensor) -> Tensor:
        return grad / (a.abs() + 1e-30) * a.sign()

    a = everywhere(rng, dtype, torch.finfo(dtype).max / 4)
    grad = everywhere(rng, dtype, torch.finfo(dtype).max / 4)[torch.randperm(COUNT, generator=rng)]
    assert_close(ours("grad_log_abs", a, grad), true, 4.0, grad, a)
