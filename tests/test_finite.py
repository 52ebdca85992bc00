"""check_finite: the first module whose output is not finite, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from nalu_kernels import (
    NAC,
    NALU,
    NMRU,
    NMU,
    NRU,
    SNMU,
    NACCell,
    NALUCell,
    check_finite,
    reference,
)

NAN, INF = math.nan, math.inf
Change = Callable[[Tensor], object]


class Changed(nn.Module):
    """Its input, with something done to it, or with ``wrap`` around it."""

    def __init__(self, change: Change = lambda x: x) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> object:
        return self.change(x)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def error(model: nn.Module, *args: object, limit: float = INF, **kwargs: object) -> str:
    """The words; and no hook is left."""
    with pytest.raises(FloatingPointError) as caught, check_finite(model, limit=limit):
        model(*args, **kwargs)
    assert hooks(model) == 0
    return str(caught.value)


def numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    assert found, text
    return [float(group) for group in found.groups()]


def set_weights(layer: NAC | NALU, W: Tensor, suffix: str = "") -> None:
    """W, by W_hat where the sigmoid is 1."""
    with torch.no_grad():
        getattr(layer, f"W_hat{suffix}").copy_(torch.atanh(W))
        getattr(layer, f"M_hat{suffix}").fill_(50)


def test_finite_models_pass_and_keep_nothing(rng: Generator) -> None:
    model = nn.Sequential(nn.Linear(3, 4), NALU(4, 2), NAC(2, 1, log_space=True))
    x = 1 + torch.rand(5, 3, generator=rng)
    expected = model(x)
    with check_finite(model) as check:
        assert torch.equal(model(x), expected)
        model(x).sum().backward()
    assert hooks(model) == 0
    check.remove()


def test_as_a_handle() -> None:
    model = nn.Sequential(NAC(2, 2), NAC(2, 1))
    check = check_finite(model)
    for _ in range(2):  # it goes on after an error
        with pytest.raises(FloatingPointError, match=r"^0, NAC\(in_features=2"):
            model(torch.full((1, 2), NAN))
    check.remove()
    assert hooks(model) == 0 and model(torch.full((1, 2), NAN)).isnan().all()


def test_two_checks_at_once_are_two() -> None:
    model = Changed(lambda x: x)
    with check_finite(model), check_finite(model, limit=2.0):
        with pytest.raises(FloatingPointError, match="1 of size 2 or more"):
            model(torch.tensor([1.0, -2.0]))
        model(torch.tensor([1.0, 1.5]))
    assert hooks(model) == 0


def test_any_error_in_the_block_ends_the_check() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(KeyError), check_finite(model):
        raise KeyError
    assert hooks(model) == 0


@pytest.mark.parametrize("mode", ["training", "kept W"])
def test_zeros_and_negative_weights(mode: str, rng: Generator) -> None:
    """The product, its largest factor and the zeros' share, against the formula in float64."""
    layer = NALU(5, 2)
    W = torch.rand(2, 5, generator=rng) * 0.6 + 0.3
    W[1, [0, 2, 4]] *= -1
    set_weights(layer, W)
    model = nn.Sequential(nn.ReLU(), layer).train(mode == "training")
    x = torch.rand(7, 5, generator=rng) + 0.5
    x[3, [0, 2]] = -1  # zeros after the ReLU
    with torch.set_grad_enabled(mode == "training"):
        text = error(model, x, limit=100.0)
    assert text.startswith(
        "1, NALU(in_features=5, out_features=2, eps=1e-07): of 14 outputs (float32) 0 are NaN, "
        "0 infinite, 1 of size 100 or more. The product of row 3, output 1 is exp("
    )
    logarithms = torch.log(x.clamp(min=0).double() + 1e-7)
    with torch.no_grad():
        terms = logarithms[3] * reference.weight(layer.W_hat.double(), layer.M_hat.double())[1]
    (product,) = numbers(r"of row 3, output 1 is exp\(([-.\de+]+)\)", text)
    power, weight, factor, place = numbers(
        r"\(\|0\| \+ (1e-07)\) \*\* ([-.\d]+) = ([.\de+]+), of input (\d)\.", text
    )
    (zeros,) = numbers(r"2 of its 5 inputs are 0 and .* make exp\(([.\de+]+)\)", text)
    assert product == pytest.approx(float(terms.sum()), rel=1e-3)
    assert place == int(terms.argmax()) and factor == pytest.approx(
        math.exp(float(terms.max())), rel=1e-2
    )
    assert power**weight == pytest.approx(factor, rel=2e-2)
    assert zeros == pytest.approx(float(terms[0] + terms[2]), rel=1e-3)


@pytest.mark.parametrize("kind", ["log NAC", "untied"])
def test_overflow_is_of_the_weights_that_multiply(kind: str) -> None:
    W = torch.full((1, 12), -0.9)
    if kind == "untied":
        layer: NAC | NALU = NALU(12, 1, tied=False)
        set_weights(layer, -W)
        set_weights(layer, W, "_mul")
    else:
        layer = NAC(12, 1, log_space=True)
        set_weights(layer, W)
    text = error(layer, torch.zeros(2, 12))
    assert text.startswith("the model itself, ") and "** -0.9 =" in text
    assert "12 of its 12 inputs are 0 and have a negative weight" in text
    assert f"exp({12 * 0.9 * -math.log(1e-7):.4g})" in text


def test_products_of_large_numbers() -> None:
    """No zeros: the factor is enough."""
    layer = NAC(3, 1, log_space=True)
    set_weights(layer, torch.full((1, 3), 0.99))
    text = error(layer, torch.tensor([[1e20, 1e30, 2.0]]))
    assert "(|1e+30| + 1e-07) ** 0.99" in text and "of input 1." in text and "are 0" not in text


def test_sums_that_overflow() -> None:
    layer = NALU(2, 1, dtype=torch.float16, eps=0.01)
    set_weights(layer, torch.tensor([[0.9, -0.9]]))
    with torch.no_grad():
        layer.G.copy_(torch.tensor([[1.0, 0.0]]))
    text = error(layer, torch.tensor([[6e4, -6e4]], dtype=torch.float16))
    assert "(float16) 0 are NaN, 1 infinite" in text
    assert "All that it starts from is finite: inputs at most 6e+04, parameters at most 50" in text


@pytest.mark.parametrize("name", ["W_hat", "M_hat", "G", "gate_bias"])
def test_parameters(name: str) -> None:
    layer = NALU(2, 2, gate_bias=True)
    model = nn.Sequential(nn.ReLU(), nn.Sequential(layer))
    parameter = layer.get_parameter(name)
    parameter.data.fill_(NAN)
    text = error(model, torch.ones(1, 2))
    assert text.startswith("1.0, NALU(")
    assert f"Numbers in its parameter {name} that are not finite: {parameter.numel()}." in text


def test_infinite_parameters_are_no_fault_where_the_output_is_finite() -> None:
    """tanh and sigmoid of an infinity are 1."""
    layer = NAC(2, 1)
    layer.M_hat.data.fill_(INF)
    with check_finite(layer):
        layer(torch.ones(1, 2))


def test_what_comes_before_is_named_first() -> None:
    model = nn.Sequential(nn.Identity(), Changed(lambda x: x / 0), NAC(2, 1))
    assert error(model, torch.ones(1, 2)).startswith("1, Changed(): of 2 outputs (float32) 0 are")
    text = error(model, torch.tensor([[1.0, NAN]]))
    assert text.startswith("0, Identity") and "not finite: 1. The cause comes before it." in text


def test_what_a_module_does_itself_is_named_after_it() -> None:
    class Inverse(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).log()

    text = error(nn.Sequential(Inverse(nn.ReLU())), -torch.ones(3))
    assert text.startswith("0, Inverse: of 3 outputs (float32) 0 are NaN, 3 infinite. All that")


@pytest.mark.parametrize("cell", [NACCell, NALUCell])
def test_cells(cell: type[NACCell] | type[NALUCell]) -> None:
    model = nn.ModuleList([cell(2, 3)])
    with check_finite(model):
        state = model[0](torch.ones(4, 2))
        with pytest.raises(FloatingPointError, match=r"^0\.(nac, NAC|nalu, NALU)\(in_features=5"):
            model[0](torch.ones(4, 2), state * NAN)
    assert hooks(model) == 0


def test_shared_modules_are_watched_once_and_have_all_names() -> None:
    shared = nn.Identity()
    model = nn.Sequential(shared, nn.Sequential(shared))
    with check_finite(model):
        assert len(shared._forward_hooks) == 1
    assert error(model, torch.full((1,), INF)).startswith("0 and 1.0, Identity()")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (torch.ones(2), [None, x]),
        lambda x: {"a": 1, "b": x},
        lambda x: (x.to(torch.complex64), "words"),
        lambda x: x.bfloat16(),
        lambda x: x.double(),
    ],
    ids=["tuple", "dict", "complex", "bfloat16", "float64"],
)
def test_outputs_of_all_forms(wrap: Change) -> None:
    model = Changed(wrap)
    assert "of 2 outputs" in error(model, x=torch.tensor([1.0, INF]))
    assert "1 of size 100 or more" in error(model, torch.tensor([1.0, -100.0]), limit=100)
    with check_finite(model, limit=100):
        model(torch.tensor([1.0, -99.0]))


@pytest.mark.parametrize(
    "output",
    [
        torch.empty(0, 3),
        torch.tensor([2**40]),
        torch.eye(2).mul(INF).to_sparse(),
        None,
        (),
        "x",
    ],
    ids=["empty", "integers", "sparse", "None", "tuple", "words"],
)
def test_outputs_that_are_not_looked_at(output: object) -> None:
    model = Changed(lambda x: output)
    with check_finite(model, limit=1.0):
        assert model(torch.ones(1)) is output


def test_empty_layers() -> None:
    model = nn.Sequential(NALU(0, 2), NALU(2, 0))
    with check_finite(model):
        model(torch.ones(3, 0))
        model(torch.ones(0, 0))
    assert "starts from is finite: nothing" in error(
        Changed(lambda x: x.sum() + NAN), torch.ones(0)
    )


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (({}, 1.0), TypeError, "model: expected a torch.nn.Module, got dict"),
        ((nn.ReLU(), "1"), TypeError, "limit: expected a positive number, got str"),
        ((nn.ReLU(), True), TypeError, "limit: expected a positive number, got bool"),
        ((nn.ReLU(), 0), ValueError, "limit: expected a positive number, got 0"),
        ((nn.ReLU(), NAN), ValueError, "limit: expected a positive number, got nan"),
    ],
    ids=str,
)
def test_refusals(arguments: tuple[nn.Module, float], kind: type[Exception], words: str) -> None:
    model, limit = arguments
    with pytest.raises(kind, match=re.escape(words)):
        check_finite(model, limit=limit)


def test_a_product_of_many_inputs() -> None:
    for layer in (NMU(60, 2), SNMU(60, 2).eval()):
        with torch.no_grad():
            layer.W.fill_(0.5)[1, 7] = 0.75
        text = error(layer, torch.full((3, 60), 19.0).index_fill(0, torch.tensor([0]), 1.0))
        assert (
            "The product of row 1, output 0 is 10 to the power of 60 in size. Its largest factor "
            "is 10, of input 0: 19 with a weight of 0.5." in text
        )
    assert "All that it starts from is finite" in error(SNMU(60, 2), torch.full((3, 60), 1e4))


@pytest.mark.parametrize("kind", [NALU, NMU, NRU])
def test_a_layer_of_units(kind: Any) -> None:
    model = kind.stack([kind(2, 1), kind(2, 1)])
    assert "All that it starts from is finite" in error(model, torch.ones(2, 3, 2), limit=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_a_quotient_by_zero(training: bool) -> None:
    nru, nmru = NRU(2, 1).train(training), NMRU(2, 1).train(training)
    with torch.no_grad():
        nru.W.copy_(torch.tensor([[1.0, -0.5]]))
        nmru.W.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.5]]))
    x = torch.tensor([[2.0, 1.0], [3.0, 0.0]])
    text = error(nru, x)
    assert "Its largest factor is inf, of input 1: 0 with a weight of -0.5." in text
    assert "A quotient by 0 has no finite value" in text
    if training:
        assert nmru(x).isfinite().all()  # by its eps
    else:
        assert "of input 1: 1 / 0 with a weight of 0.5. A quotient by 0" in error(nmru, x)
