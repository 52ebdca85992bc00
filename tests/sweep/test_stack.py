"""What a sweep reads off a template, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from nalu_kernels import NAC, NACNMU, NALU, NMU, NACSigma, sparsity_error
from nalu_kernels.layers.initialize import init_range, xavier_std
from nalu_kernels.sweep.stack import Stack


def everything() -> nn.Sequential:
    return nn.Sequential(
        NALU(5, 4, tied=False, gate="sample", gate_bias=True),
        nn.ReLU6(),
        nn.Sequential(nn.Linear(4, 3), nn.Identity(), nn.ReLU()),
        NAC(3, 2),
        NALU(2, 2, eps=1e-3),
        nn.Linear(2, 2, bias=False),
        NAC(2, 1, log_space=True, eps=1e-5),
    )


def test_the_program() -> None:
    stack = Stack(everything())
    assert stack.program.tolist() == [
        [2, 5, 4, 1, 1, 1, 0, 0],
        [5, 4, 4, 0, 0, 0, 0, 0],
        [3, 4, 3, 0, 1, 0, 0, 0],
        [4, 3, 3, 0, 0, 0, 0, 0],
        [0, 3, 2, 0, 0, 0, 0, 0],
        [2, 2, 2, 2, 0, 0, 0, 0],
        [3, 2, 2, 0, 0, 0, 0, 0],
        [1, 2, 1, 0, 0, 0, 0, 0],
    ]
    assert stack.constants[:, 0].tolist() == [1e-7, 0, 0, 0, 1e-7, 1e-3, 0, 1e-5]
    assert (stack.in_features, stack.out_features) == (5, 1)
    named = dict(everything().named_parameters())
    assert [parameter.name for parameter in stack.parameters] == list(named)
    assert stack.size == sum(value.numel() for value in named.values())


def test_a_single_layer_is_a_stack() -> None:
    stack = Stack(NALU(2, 1))
    assert [parameter.name for parameter in stack.parameters] == ["W_hat", "M_hat", "G"]
    row = stack.draw(torch.tensor([3]), torch.float64)[0]
    assert type(stack.module(row)) is NALU


@pytest.mark.parametrize(
    "template",
    [everything(), NALU(2, 1), NALU(2, 1, eps=1e-300, dtype=torch.float64)],
    ids=["Sequential", "layer", "small eps"],
)
def test_a_stack_is_described_and_made_again(template: nn.Module) -> None:
    stack = Stack(template)
    again = Stack.of(stack.describe())
    assert again.describe() == stack.describe()
    assert repr(again.template) == repr(template)
    assert again.program.equal(stack.program) and again.parameters == stack.parameters


def test_rows_and_states_are_the_same_numbers() -> None:
    stack = Stack(everything())
    rows = stack.draw(torch.arange(3), torch.float32)
    modules = [stack.module(row) for row in rows]
    stacked, _ = torch.func.stack_module_state(modules)
    assert stack.state(rows).keys() == stacked.keys()
    assert all(value.equal(stacked[name]) for name, value in stack.state(rows).items())
    assert stack.flatten(stacked, 3, torch.float32).equal(rows)


def test_initial_weights_are_drawn_as_the_layers_do() -> None:
    template = nn.Sequential(NALU(100, 8, gate_bias=True), nn.Linear(8, 30))
    stack = Stack(template)
    state = stack.state(stack.draw(torch.arange(200), torch.float64))
    r = init_range(100, 8)
    reach = {
        "0.W_hat": r,
        "0.M_hat": r,
        "0.G": (6 / 108) ** 0.5,
        "1.weight": 8**-0.5,
        "1.bias": 8**-0.5,
    }
    for name, bound in reach.items():
        values = state[name]
        own = dict(template.named_parameters())[name]
        assert 0.5 * bound < float(own.detach().abs().max()) <= bound * (1 + 1e-6)
        assert 0.99 * bound < float(values.abs().max()) <= bound
        assert abs(float(values.mean())) < 0.05 * bound
    assert state["0.gate_bias"].eq(0).all()
    positive = Stack(nn.Sequential(NACSigma(30, 20), NACNMU(20, 10)))
    drawn = positive.state(positive.draw(torch.arange(200), torch.float64))
    W_hat, W = drawn["0.W_hat"], drawn["1.W"]
    assert float(W_hat.std()) == pytest.approx(xavier_std(30, 20), rel=0.01)
    assert 0.25 <= float(W.min()) < 0.26 and 0.74 < float(W.max()) <= 0.75


def test_the_sparsity_is_that_of_each_network() -> None:
    both = nn.Sequential(NALU(5, 4, tied=False), NAC(4, 1))
    for template in (both, NACSigma(4, 1), NACNMU(4, 1)):
        stack = Stack(template)
        rows = stack.draw(torch.arange(6), torch.float64) * 5
        found = stack.sparsity(rows)
        expected = [sparsity_error(stack.module(row)) for row in rows]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    linear = Stack(nn.Linear(2, 1, bias=False))
    assert linear.sparsity(torch.tensor([[0.25, 1.75]])).tolist() == [0.75]


def test_the_template_is_left_as_it_was() -> None:
    template = everything()
    before = copy.deepcopy(template.state_dict())
    stack = Stack(template)
    stack.module(stack.draw(torch.tensor([1]), torch.float64)[0])
    assert all(value.equal(before[name]) for name, value in template.state_dict().items())


def shared() -> nn.Module:
    layer = NAC(2, 2)
    return nn.Sequential(layer, layer)


def hooked() -> nn.Module:
    layer = NAC(2, 1)
    layer.register_forward_hook(lambda *given: None)
    return nn.Sequential(layer)


def frozen() -> nn.Module:
    return nn.Sequential(NAC(2, 1).requires_grad_(False))


def normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 1)))


class Own(NAC):
    pass


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: nn.Sequential(NAC(2, 3), nn.Tanh()), TypeError, r"layer 1 \(Tanh\) .*NAC, NALU"),
        (lambda: nn.Sequential(Own(2, 1)), TypeError, r"layer 0 \(Own\)"),
        (normed, TypeError, r"layer 0 \(ParametrizedLinear\)"),
        (hooked, TypeError, r"layer 0 \(NAC\) has hooks"),
        (lambda: nn.Sequential(NAC(2, 3), NAC(2, 1)), ValueError, "expects 2 inputs, and gets 3"),
        (shared, ValueError, "stands in two places, also at 0"),
        (frozen, ValueError, "frozen"),
        (
            lambda: NALU.stack([NALU(2, 1), NALU(2, 1)]),
            ValueError,
            "the NALU is of stacked units; a sweep makes its own: give a single layer",
        ),
        (
            lambda: nn.Sequential(nn.Sequential(NMU.stack([NMU(2, 1)]))),
            ValueError,
            r"layer 0.0 \(NMU\) is of stacked units",
        ),
        (lambda: nn.Sequential(nn.ReLU()), ValueError, "found none"),
        (lambda: nn.Sequential(), ValueError, "found none"),
        (lambda: NAC(0, 1), ValueError, "no inputs or no outputs"),
        (lambda: "NAC", TypeError, "expected a torch.nn.Module, got str"),
    ],
)
def test_what_is_no_stack_is_refused_by_name(
    make: Callable[[], nn.Module], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Stack(make())


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (NAC(513, 1), "513 inputs, the kernels take at most 512"),
        (nn.Sequential(NAC(2, 65), NAC(65, 1)), "65 outputs, the kernels take at most 64"),
        (nn.Sequential(*[NAC(2, 2) for _ in range(17)]), "17 layers, the kernels take at most 16"),
    ],
)
def test_a_limit_of_the_kernels_is_named(template: nn.Module, words: str) -> None:
    assert words in str(Stack(template).beyond_kernels())


def test_the_limits_themselves_are_within() -> None:
    widest = nn.Sequential(NAC(512, 64), *[NAC(64, 64) for _ in range(15)])
    assert Stack(widest).beyond_kernels() is None


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ([1, 2], TypeError, "expected a dict"),
        ({"W_hat": torch.zeros(3, 1, 2)}, ValueError, "expected the names"),
        (
            {"W_hat": torch.zeros(3, 1, 2), "M_hat": torch.zeros(1, 2)},
            ValueError,
            r"initial\['M_hat'\]: expected shape \(3, 1, 2\), got \(1, 2\)",
        ),
        (
            {
                "W_hat": torch.full((3, 1, 2), 1e300, dtype=torch.float64),
                "M_hat": torch.zeros(3, 1, 2),
            },
            ValueError,
            r"initial\['W_hat'\]: has numbers beyond the range of float32",
        ),
    ],
)
def test_initial_states_of_other_shapes_are_refused(
    state: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Stack(NAC(2, 1)).flatten(state, 3, torch.float32)  # type: ignore[arg-type]
