"""Nothing is printed that the rounded module does not compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from torch import Tensor, nn

from nalu_kernels import (
    GNALU,
    INALU,
    NAC,
    NACNMU,
    NALU,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    SNMU,
    NACSigma,
    RealNPU,
    formula,
)

KINDS: list[Callable[[int, int], nn.Module]] = [
    NAC,
    lambda i, o: NAC(i, o, log_space=True),
    NACSigma,
    NACNMU,
    NALU,
    lambda i, o: NALU(i, o, tied=False, gate="sample", gate_bias=True),
    GNALU,
    INALU,
    lambda i, o: INALU(i, o, gate="matrix", tied=True),
    lambda i, o: INALU(i, o, gate="vector"),
    NAU,
    NMU,
    SNMU,
    NPU,
    RealNPU,
    NRU,
    NMRU,
    nn.Linear,
]
STATES = ("near", "half", "untrained")


def uniform(low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, dtype=torch.float64)


def whole(low: int, *shape: int) -> Tensor:
    return torch.randint(low, 2, shape).double()


def put(layer: nn.Module, state: str) -> None:
    """Weights as training leaves them: all but there, on their way, or not yet trained."""
    if state == "untrained":
        return
    off = 1e-3 if state == "near" else 0.4
    for name, parameter in layer.named_parameters():
        shape = tuple(parameter.shape)
        if name.startswith(("W_hat", "M_hat")):
            size = 8.0 if state == "near" else 0.7
            value = size * (whole(-1, *shape) if name.startswith("W") else torch.ones(shape))
            value = value + uniform(0.02, 0.1, *shape)  # a half-trained one is no small fraction
        elif name in ("G", "g", "gate_bias") and not isinstance(layer, (NPU, RealNPU)):
            sides = torch.where(torch.rand(shape[:1]) < 0.5, -1.0, 1.0).double()
            value = (9.0 if state == "near" else 0.5) * sides.view(-1, *[1] * (len(shape) - 1))
        else:
            low = -1 if name in ("W_re", "W_im", "weight", "bias") else 0
            if isinstance(layer, (NAU, NRU)):
                low = -1
            value = whole(low, *shape)
            value = value + torch.where(value > 0, -1, 1) * uniform(off / 2, off, *shape)
        parameter.data.copy_(value)


def stacks() -> list[Any]:
    drawn = []
    for number in range(3 * len(KINDS)):
        state = STATES[number % 3]
        kinds = [number // 3, (5 * number + 1) % len(KINDS), (7 * number) % len(KINDS)]
        drawn.append(pytest.param(number, kinds[: 1 + number % 3], state, id=f"{number}-{state}"))
    return drawn


def stack_of(number: int, kinds: list[int], state: str) -> nn.Sequential:
    torch.manual_seed(number)
    widths = [3, *torch.randint(1, 4, (len(kinds),)).tolist()]
    layers = [
        KINDS[kind](ins, outs) for kind, ins, outs in zip(kinds, widths, widths[1:], strict=False)
    ]
    for layer in layers:
        put(layer, state)
    return nn.Sequential(*layers).double().eval()


def rows(number: int) -> Tensor:
    """Of both signs, positive, or positive and negative by column."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    return (
        x
        if number % 2
        else x.abs() + 0.1
        if number % 4
        else (x.abs() + 0.1) * torch.tensor([1, -1, 1])
    )


def by_sympy(expression: sympy.Expr, names: list[str], x: Tensor) -> Tensor:
    function = sympy.lambdify(names, expression, "numpy")
    with np.errstate(all="ignore"):
        return torch.as_tensor(function(*x.numpy().T), dtype=torch.float64).expand(len(x))


@pytest.mark.parametrize(("number", "kinds", "state"), stacks())
def test_the_printed_formula_is_the_rounded_module(
    number: int, kinds: list[int], state: str
) -> None:
    model, x, names = stack_of(number, kinds, state), rows(number), ["a", "b", "c"]
    with torch.no_grad():
        y = model(x)
        if not bool(y.isfinite().all()):
            y = torch.zeros_like(y)
        found = formula(model, names, inside=(x, y))
        computed = found.module()(x)
    expressions = found.sympy()
    expressions = expressions if isinstance(expressions, list) else [expressions]
    printed = [line.partition(" = ")[2] for line in found.text.splitlines()]
    for expression, text, column in zip(expressions, printed, computed.T, strict=True):
        fits = column.isfinite()
        size = column.abs()[fits].clamp(min=1e-290)
        for of in (expression, sympy.sympify(text)):
            values = by_sympy(of, names, x)[fits]
            off = (values - column[fits]).abs() / size
            assert bool((off <= 1e-9).all()), f"{off.max()} at {off.argmax()}: {str(of)[:500]}"
    assert found.agreement <= 1e-9
    if state == "half" and any(KINDS[kind] is not nn.Linear for kind in kinds):
        assert found.verdict == "not a formula"
