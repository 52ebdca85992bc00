"""The rule of parity.py catches small faults, and passes what is right in another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from error_bound import error_bounds
from layers import BY_NAME, KINDS, Kind, draw, outcome
from nalu_kernels import reference
from parity import SLACK, Judge
from selection import pairs
from test_functional import random_shape

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def with_gradient(
    forward: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """A function of one tensor whose derivative is what ``slope`` says."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grad * slope(x)

    return Function.apply


def short(x: Tensor) -> Tensor:
    """Rounded to the 10 bits of TF32."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


class Implementation:
    """reference.py with some of its parts replaced."""

    tanh = staticmethod(torch.tanh)
    sigmoid = staticmethod(torch.sigmoid)
    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    abs = staticmethod(torch.abs)
    linear = staticmethod(torch.nn.functional.linear)
    mix = staticmethod(lambda g, a, m: g * a + (1 - g) * m)

    def __init__(self, **replaced: Callable[..., Tensor]) -> None:
        vars(self).update(replaced)

    def product(self, x: Tensor, W: Tensor, eps: float) -> Tensor:
        return self.exp(self.linear(self.log(self.abs(x) + eps), W))

    def weight(self, W_hat: Tensor, M_hat: Tensor) -> Tensor:
        return self.tanh(W_hat) * self.sigmoid(M_hat)

    def nac(
        self, input: Tensor, W_hat: Tensor, M_hat: Tensor, *, log_space: bool, eps: float
    ) -> Tensor:
        W = self.weight(W_hat, M_hat)
        return self.product(input, W, eps) if log_space else self.linear(input, W)

    def nalu(
        self,
        input: Tensor,
        W_hat: Tensor,
        M_hat: Tensor,
        G: Tensor,
        *,
        gate_bias: Tensor | None = None,
        W_hat_mul: Tensor | None = None,
        M_hat_mul: Tensor | None = None,
        eps: float,
    ) -> Tensor:
        W = self.weight(W_hat, M_hat)
        W_mul = W if W_hat_mul is None else self.weight(W_hat_mul, M_hat_mul)
        z = self.linear(input, G)
        g = self.sigmoid(z if gate_bias is None else z + gate_bias)
        return self.mix(g, self.linear(input, W), self.product(input, W_mul, eps))


class GradientThroughTF32(torch.autograd.Function):
    """The identity, whose incoming gradient is rounded to 10 bits."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return short(grad)


linear = torch.nn.functional.linear
through_short = with_gradient(short, torch.ones_like)
EVERYWHERE = {
    "tf32_weights": Implementation(linear=lambda x, W: linear(x, through_short(W))),
    "tf32_inputs": Implementation(linear=lambda x, W: linear(through_short(x), W)),
    "tf32_gradients": Implementation(linear=lambda x, W: GradientThroughTF32.apply(linear(x, W))),
    "tanh_without_slope": Implementation(tanh=with_gradient(torch.tanh, torch.ones_like)),
    "tanh_off_by_1e-5": Implementation(tanh=lambda v: torch.tanh(v) * (1 + 1e-5)),
    "sigmoid_with_a_wrong_slope": Implementation(
        sigmoid=with_gradient(torch.sigmoid, torch.sigmoid)
    ),
    "bfloat16_weights": Implementation(linear=lambda x, W: linear(x, W.bfloat16().float())),
}
LOG_SPACE = {
    "exp_off_by_1e-4": Implementation(exp=lambda v: torch.exp(v) * (1 + 1e-4)),
    "log_off_by_1e-5": Implementation(log=lambda v: torch.log(v) + 1e-5),
    "sign_of_0_is_1": Implementation(
        abs=with_gradient(torch.abs, lambda x: torch.where(x < 0, -1.0, 1.0))
    ),
    "clamp_for_eps": Implementation(abs=lambda x: x.abs().clamp(min=1e-6)),
}
GATED = {
    "gate_the_wrong_way": Implementation(mix=lambda g, a, m: (1 - g) * a + g * m),
    "gate_off_by_1e-5": Implementation(mix=lambda g, a, m: (g + 1e-5) * a + (1 - g) * m),
}


def mutants(kind: Kind) -> dict[str, Implementation]:
    return (
        EVERYWHERE
        | (LOG_SPACE if kind.log_space or kind.gates else {})
        | (GATED if kind.gates else {})
    )


@pairs
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in mutants(kind)], ids=str
)
def test_mutants_are_caught(kind: Kind, name: str, rng: Generator) -> None:
    """In four layers of five, of whatever shape: not all have an input of 0, or a gate that
    matters. Fewer than 7 of 20 are then a matter of one draw in half a million."""
    caught, mutant = 0, mutants(kind)[name]
    for _ in range(20):
        layer = draw(rng, kind, random_shape(rng))
        caught += bool(Judge(layer).faults(outcome(mutant, layer)))
    assert caught >= 7


def reversed_linear(x: Tensor, W: Tensor) -> Tensor:
    return linear(x.flip(-1), W.flip(-1))


def halved_linear(x: Tensor, W: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return linear(x[..., :half], W[:, :half]) + linear(x[..., half:], W[:, half:])


RIGHT = {
    "eager": Implementation(),
    "sums_backwards": Implementation(linear=reversed_linear),
    "sums_in_two_halves": Implementation(linear=halved_linear),
    "sums_by_broadcasting": Implementation(linear=lambda x, W: (x.unsqueeze(-2) * W).sum(-1)),
    "exp_within_an_ulp": Implementation(exp=lambda v: torch.exp2(v * 1.4426950408889634).float()),
}


@pairs
@pytest.mark.parametrize("name", RIGHT)
@by_kind
def test_what_is_right_passes(kind: Kind, name: str, rng: Generator) -> None:
    for _ in range(10):
        layer = draw(rng, kind, random_shape(rng))
        faults = Judge(layer).faults(outcome(RIGHT[name], layer))
        assert not faults, "\n".join(faults)


@by_kind
def test_bounds_are_of_the_right_formulas_and_hold(kind: Kind, rng: Generator) -> None:
    """float32 eager stays within them with less than the slack to spare, so that twice its error
    never hides much; nor are they much too wide."""
    widest = 0.0
    for _ in range(10):
        judge = Judge(draw(rng, kind, random_shape(rng)))
        for name, truth in judge.truth.items():
            bounded = judge.bounds[name]
            torch.testing.assert_close(bounded.value, truth, rtol=1e-9, atol=1e-9)
            used = (judge.eager[name].double() - truth).abs() / bounded.error
            widest = max(widest, used.max().item())
    assert 0.1 < widest < SLACK


@pytest.mark.parametrize("spoil", [torch.nan, torch.inf, -torch.inf])
def test_one_wrong_element_is_caught(spoil: float, rng: Generator) -> None:
    layer = draw(rng, KINDS[0], (7, 5, 3))
    judge, found = Judge(layer), outcome(reference, layer)
    assert not judge.faults(found)
    for name, tensor in found.items():
        spoilt = tensor.clone()
        spoilt.view(-1)[-1] = spoil
        assert judge.faults({name: spoilt})
        spoilt.view(-1)[-1] += 1e-3 * tensor.abs().max()
        assert judge.faults({name: spoilt})
        assert judge.faults({name: tensor[:-1]}) and judge.faults({name: tensor.double()})


def test_cliffs_are_seen() -> None:
    def near_cliff(x: float) -> bool:
        layer = draw(torch.Generator().manual_seed(0), BY_NAME["nac_log_space"], (1, 1, 1))
        # x to the power of sigmoid(40) tanh(40) = 1
        layer = layer.map(lambda tensor: torch.full_like(tensor, 40))
        return error_bounds(layer.with_(input=torch.full((1, 1), x), grad_output=torch.ones(1, 1)))[
            1
        ]

    assert near_cliff(2e38) and not near_cliff(1e35)
