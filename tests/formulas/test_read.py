"""nalu_kernels.formula: what is rounded, dropped and refused, and the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

from nalu_kernels import (
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
from nalu_kernels.formulas import read
from nalu_kernels.formulas.whole import near

NAMES = ["a", "b", "c"]


def layer_of(layer: nn.Module, **parameters: Any) -> Any:
    with torch.no_grad():
        for name, value in parameters.items():
            getattr(layer, name).copy_(torch.as_tensor(value))
    return layer


def rows(f: Callable[..., Tensor], low: float, high: float, count: int = 50) -> Any:
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return x, f(*x.T)


def positive(f: Callable[..., Tensor]) -> dict[str, Any]:
    return {"names": NAMES, "inside": rows(f, 1, 2), "outside": rows(f, 2, 6)}


def signed(f: Callable[..., Tensor]) -> dict[str, Any]:
    return {"names": NAMES, "inside": rows(f, -2, 2), "outside": rows(f, -6, 6)}


W = [[1.0, -1.0, 0.0]]
PRODUCT = [[1.0, 1.0, 0.0]]
BIG = [[30.0, -30.0, 0.0]]
FOUND = [
    (layer_of(NAC(3, 1), W_hat=BIG, M_hat=[[30.0] * 3]), signed(lambda a, b, c: a - b), "a - b"),
    (
        layer_of(NAC(3, 1, log_space=True), W_hat=BIG, M_hat=[[30.0] * 3]),
        positive(lambda a, b, c: a / b),
        "a/b",
    ),
    (
        layer_of(NAC(3, 1, log_space=True), W_hat=[[math.atanh(0.5), 0, 0]], M_hat=[[30.0] * 3]),
        positive(lambda a, b, c: a.sqrt()),
        "sqrt(a)",
    ),
    (
        layer_of(NAC(3, 1, log_space=True), W_hat=BIG, M_hat=[[30.0] * 3]),
        signed(lambda a, b, c: a.abs() / b.abs()),
        "Abs(a)/Abs(b)",
    ),
    (layer_of(NACSigma(3, 1), W_hat=[[9.0, 9.0, -9]]), positive(lambda a, b, c: a * b), "a*b"),
    (layer_of(NAU(3, 1), W=W), signed(lambda a, b, c: a - b), "a - b"),
    (layer_of(NMU(3, 1), W=PRODUCT), signed(lambda a, b, c: a * b), "a*b"),
    (layer_of(SNMU(3, 1), W=PRODUCT), signed(lambda a, b, c: a * b), "a*b"),
    (layer_of(NRU(3, 1), W=W), signed(lambda a, b, c: a / b), "a/b"),
    (
        layer_of(NMRU(3, 1), W=[[1.0, 0, 0, 0, 1, 0]]),
        signed(lambda a, b, c: a / b),
        "a/b",
    ),
    (
        layer_of(RealNPU(3, 1), W_re=[[2.0, -1, 0.3]], g=[1.0, 1, 0]),
        signed(lambda a, b, c: a**2 / b),
        "a**2/b",
    ),
    (
        layer_of(NPU(3, 1), W_re=[[1.0, 1, 0]], W_im=[[0.0] * 3], g=[1.0, 1, 0.4]),
        signed(lambda a, b, c: a * b),
        "a*b",
    ),
    (
        layer_of(NALU(3, 1), W_hat=BIG, M_hat=[[30.0] * 3], G=[[9.0] * 3]),
        positive(lambda a, b, c: a - b),
        "a - b",
    ),
    (
        layer_of(NALU(3, 1), W_hat=BIG, M_hat=[[30.0] * 3], G=[[-9.0] * 3]),
        positive(lambda a, b, c: a / b),
        "a/b",
    ),
    (
        layer_of(
            INALU(3, 1),
            W_hat=[[0.1] * 3],  # of the sum, which the gate leaves out
            M_hat=[[0.1] * 3],
            W_hat_mul=BIG,
            M_hat_mul=[[30.0] * 3],
            g=[-9.0],
        ),
        signed(lambda a, b, c: a / b),
        "a/b",
    ),
    (
        layer_of(
            INALU(3, 1, gate="matrix", tied=True),
            W_hat=[[30.0, 30, 0]],
            M_hat=[[30.0] * 3],
            g=[[-9.0] * 3],
        ),
        positive(lambda a, b, c: a * b),
        "a*b",
    ),
    (
        nn.Sequential(
            layer_of(NAU(3, 2), W=[[1.0, 1, 0], [0, 1, -1]]), layer_of(NMU(2, 1), W=[[1.0, 1]])
        ),
        signed(lambda a, b, c: (a + b) * (b - c)),
        "(a + b)*(b - c)",
    ),
    (
        # A hidden unit that the last layer does not take may be anything.
        nn.Sequential(
            layer_of(RealNPU(3, 2), W_re=[[1.0, -1, 0], [0.37, 0.1, -0.2]], g=[1.0, 1, 1]),
            layer_of(NAU(2, 1), W=[[1.0, 0]]),
        ),
        signed(lambda a, b, c: a / b),
        "a/b",
    ),
    (
        nn.Sequential(
            layer_of(NMU(3, 1), W=PRODUCT),
            layer_of(nn.Linear(1, 1), weight=[[0.50001]], bias=[2.0]),
        ),
        signed(lambda a, b, c: a * b / 2 + 2),
        "a*b/2 + 2",
    ),
    (
        nn.Sequential(layer_of(NAU(3, 1), W=W), nn.ReLU(), nn.Identity()),
        signed(lambda a, b, c: (a - b).relu()),
        "Max(0, a - b)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "given", "expected"), FOUND, ids=lambda of: str(of)[:20])
def test_what_is_found(model: nn.Module, given: dict[str, Any], expected: str) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = formula(model, **given)
    assert (found.text, found.verdict) == (f"y = {expected}", "exact")
    assert found.inside.rounded.largest < 1e-12
    assert found.sympy() == sympy.sympify(expected)
    x, y = given["outside"]
    assert torch.allclose(found.module()(x)[:, 0], y, rtol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_are_rounded_within_the_tolerance_alone() -> None:
    given = signed(lambda a, b, c: a - b)
    model = layer_of(NAU(3, 1), W=[[0.995, -0.98, 0.004]])
    found = formula(model, **given)
    assert found.verdict == "not a formula" and found.far == 1
    assert found.text == f"y = a - {0.9800000190734863}*b"
    assert formula(model, **given, tolerance=0.03).verdict == "exact"
    (weights,) = found.weights
    assert weights.distance == pytest.approx(0.02, abs=1e-6)
    assert weights.values.shape == weights.rounded.shape == (1, 3)


def test_a_whole_number_that_is_wrong_is_not_exact() -> None:
    found = formula(layer_of(NAU(3, 1), W=W), **signed(lambda a, b, c: a - b + 0.001 * c))
    assert found.verdict == "approximate"
    found = formula(layer_of(NAU(3, 1), W=W), **signed(lambda a, b, c: a + b))
    assert found.verdict == "not a formula"


def test_right_inside_and_wrong_outside() -> None:
    given = positive(lambda a, b, c: a - b)
    x, _ = given["outside"]
    found = formula(layer_of(NAU(3, 1), W=W), NAMES, inside=given["inside"], outside=(x, x.sum(1)))
    assert found.verdict == "not a formula"
    assert found.inside.rounded.largest == 0 and found.outside is not None
    assert found.outside.rounded.largest > 0.1
    assert formula(layer_of(NAU(3, 1), W=W), inside=given["inside"]).verdict == "exact"


def test_a_gate_is_dropped_only_if_it_is_shut_on_all_rows() -> None:
    model = layer_of(NALU(3, 1), W_hat=BIG, M_hat=[[30.0] * 3], G=[[9.0, 0, 0]])
    found = formula(model, **signed(lambda a, b, c: a - b))
    assert found.verdict == "not a formula"
    (of,) = found.gates
    assert (of.gate.dropped, of.gate.path) == (False, "both")
    assert "exp(-9*a)" in found.text
    found = formula(model, **positive(lambda a, b, c: a - b))
    (of,) = found.gates
    assert (of.gate.dropped, of.gate.path, of.gate.proven) == (True, "sum", True)
    assert of.gate.margin > 9


def test_a_gate_that_samples_shut_and_bounds_do_not() -> None:
    """a - b is above 1/2 on all rows, but not on their whole box."""
    x = torch.tensor([[1.0, 0.0, 1.0], [2.0, 1.0, 1.0], [3.0, 2.0, 1.0]], dtype=torch.float64)
    model = layer_of(NALU(3, 1), W_hat=BIG, M_hat=[[30.0] * 3], G=[[9.0, -9, 0]])
    found = formula(model, inside=(x, x[:, 0] - x[:, 1]))
    (of,) = found.gates
    assert of.gate.dropped and not of.gate.proven and of.gate.margin == pytest.approx(9)
    assert "0 proven" in str(found)


def test_eps_stays_where_it_matters() -> None:
    x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 2.0, 1.0], [2.0, 1.0, 1.0]], dtype=torch.float64)
    model = layer_of(NAC(3, 1, log_space=True), W_hat=[[-30.0, 0, 0]], M_hat=[[30.0] * 3])
    found = formula(model, NAMES, inside=(x, model.double()(x)[:, 0]))
    assert found.text == "y = 1/(a + 1.0e-7)"
    assert found.verdict == "exact"


def test_omega_stays_where_it_matters() -> None:
    model = layer_of(
        INALU(3, 1, tied=True, omega=1.0),
        W_hat=[[30.0, 30, 0]],
        M_hat=[[30.0] * 3],
        g=[-9.0],
    )
    found = formula(model, **positive(lambda a, b, c: (a * b).clamp(max=math.e)))
    assert found.text == "y = Min(E, a*b)" and found.verdict == "exact"


def test_inputs_of_0() -> None:
    """Where the formula is 0 and the rounded module all but 0."""
    x = torch.randint(0, 4, (200, 2)).double()
    for layer in (NACNMU(2, 1), RealNPU(2, 1), NAC(2, 1, log_space=True)):
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                parameter.fill_(30.0 if name.endswith("_hat") else 1.0)
        found = formula(layer, inside=(x, x.prod(1)))
        assert (found.text, found.verdict) == ("y = x0*x1", "exact"), layer


def test_a_large_offset_makes_nothing_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 2, generator=generator, dtype=torch.float64)
    last = layer_of(nn.Linear(2, 1), weight=[[0.1, 0.1]], bias=[1e6])
    assert formula(last, inside=(x, 1e6 + x.sum(1))).verdict == "not a formula"
    shifted = x + torch.tensor([1e6, 0.0])
    found = formula(layer_of(NAU(2, 1), W=[[1.0, 0]]), inside=(shifted, shifted.sum(1)))
    assert found.inside.rounded.largest < 1e-5 and found.verdict == "not a formula"


def test_numbers_of_a_linear_are_constants_in_the_last_layer_alone() -> None:
    x = torch.randn(50, 2, dtype=torch.float64)
    first = layer_of(nn.Linear(2, 1, bias=False), weight=[[0.37, 1.0]]).double()
    assert formula(first, inside=(x, first(x))).verdict == "exact"
    model = nn.Sequential(first, layer_of(NAU(1, 1), W=[[1.0]])).double()
    assert formula(model, inside=(x, model(x))).verdict == "not a formula"
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    assert formula(model, inside=(x, model(x))).verdict == "not a formula"


def test_large_numbers_of_a_linear_are_not_made_plain() -> None:
    x = torch.randn(50, 1, dtype=torch.float64)
    model = layer_of(nn.Linear(1, 1), weight=[[1e6 + 0.31]], bias=[5e-5]).double()
    found = formula(model, inside=(x, model(x)))
    assert found.module()[0].weight.item() == model.weight.item()
    assert found.module()[0].bias.item() == model.bias.item()
    model = layer_of(nn.Linear(1, 1), weight=[[2.0]], bias=[3e-16]).double()
    assert formula(model, inside=(x, 2 * x)).text == "y = 2*x0"


def test_an_open_gate_is_no_formula_though_the_numbers_are_right() -> None:
    """Sum and product of one input are the same."""
    x = torch.rand(50, 1, dtype=torch.float64) + 1
    model = layer_of(NALU(1, 1, eps=1e-40), W_hat=[[30.0]], M_hat=[[30.0]], G=[[1.0]])
    found = formula(model, inside=(x, x))
    assert found.inside.rounded.largest < 1e-12 and found.verdict == "not a formula"


@pytest.mark.parametrize("slope", [3.0, 5.5])
def test_a_gate_is_dropped_within_the_tolerance_alone(slope: float) -> None:
    """sigmoid(3) is 0.047 from 1, and sigmoid(5.5) 0.004."""
    model = layer_of(NALU(1, 1), W_hat=[[30.0]], M_hat=[[30.0]], G=[[slope]])
    x = torch.ones(20, 1, dtype=torch.float64)
    (of,) = formula(model, inside=(x, x)).gates
    assert of.gate.dropped == of.gate.proven == (slope == 5.5)


def test_a_gate_on_two_sides_is_open() -> None:
    model = layer_of(NALU(1, 1), W_hat=[[30.0]], M_hat=[[30.0]], G=[[9.0]])
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    (of,) = formula(model, inside=(x, x)).gates
    assert not of.gate.dropped


def test_a_side_that_is_kept_is_no_proof() -> None:
    """The gate is 0.53 at a corner of the box that no row is near."""
    x = torch.linspace(0.02, 2, 100, dtype=torch.float64)
    x = torch.stack((x, 2.02 - x), 1)
    model = layer_of(NALU(2, 1), W_hat=[[20.0] * 2], M_hat=[[20.0] * 2], G=[[3.0] * 2])
    found = formula(model, inside=(x, x.sum(1)))
    (of,) = found.gates
    assert found.verdict == "exact" and of.gate.dropped and not of.gate.proven


def test_a_sign_that_few_rows_have_stays() -> None:
    x = torch.tensor([[-1e-4], [1.0], [2.0]], dtype=torch.float64)
    model = layer_of(NAC(1, 1, log_space=True), W_hat=[[30.0]], M_hat=[[30.0]])
    assert formula(model, inside=(x, x.abs())).text == "y = Abs(x0)"


def test_an_eps_that_changes_a_hundredth_stays() -> None:
    x = torch.tensor([[1e-5], [1.0], [2.0]], dtype=torch.float64)
    model = layer_of(NAC(1, 1, log_space=True), W_hat=[[-30.0]], M_hat=[[30.0]])
    assert "1.0e-7" in formula(model, inside=(x, 1 / x)).text


def test_a_formula_that_is_not_the_module_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "simplified", lambda of, columns: of + sympy.Rational(1, 10**6))
    found = formula(layer_of(NAU(3, 1), W=W), **signed(lambda a, b, c: a - b))
    assert found.verdict == "not a formula" and "differ by" in str(found)


def test_a_simplification_that_is_wrong_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sympy, "factor", lambda of: sympy.S.Zero)
    found = formula(layer_of(NAU(3, 1), W=W), **signed(lambda a, b, c: a - b))
    assert found.text == "y = a - b"


def test_the_rows_box_is_printed() -> None:
    found = formula(layer_of(NAU(3, 1), W=W), **signed(lambda a, b, c: a - b))
    assert set(found.box) == {"a", "b", "c"} and -6 <= found.box["a"][0] < found.box["a"][1] <= 6
    assert str(found).splitlines()[-1].startswith("  rows: a from -")
    assert " c " not in str(found)


def test_several_outputs() -> None:
    x = torch.randn(20, 3, dtype=torch.float64)
    y = torch.stack((x[:, 0] - x[:, 1], x[:, 2]), 1)
    found = formula(layer_of(NAU(3, 2), W=[[1.0, -1, 0], [0, 0, 1]]), NAMES, inside=(x, y))
    assert found.text == "y0 = a - b\ny1 = c"
    assert found.sympy() == list(sympy.sympify(["a - b", "c"]))
    assert found.latex() == "y_{0} = a - b\ny_{1} = c"


def test_names_that_are_no_identifiers() -> None:
    x, y = rows(lambda a, b, c: a * b, 1, 2)
    found = formula(layer_of(NMU(3, 1), W=PRODUCT), ["mass (kg)", "50 %", "c"], inside=(x, y))
    assert found.names == ("mass (kg)", "50 %", "c")
    assert found.text == "y = `50 %`*`mass (kg)`"
    assert "\\text{mass (kg)}" in found.latex() and "\\%" in found.latex()
    found = formula(layer_of(NMU(3, 1), W=PRODUCT), ["a+b", "lambda", "y"], inside=(x, y))
    assert found.text == "y_ = `a+b`*`lambda`"
    assert formula(layer_of(NAU(3, 1), W=W), ["a\nb", "\\x", "c"], inside=(x, y)).text == (
        "y = -`\\x` + `a\\nb`"
    )


def test_json_has_all_of_it() -> None:
    model = layer_of(NALU(3, 1), W_hat=BIG, M_hat=[[30.0] * 3], G=[[9.0] * 3])
    found = formula(model, **positive(lambda a, b, c: a - b))
    content = json.loads(found.to_json())
    assert content["formula"] == ["a - b"] and content["verdict"] == "exact"
    assert content["weights"][0]["values"] == model.double().W.tolist()
    assert content["gates"][0]["path"] == "sum" and content["gates"][0]["logits"] == [9.0] * 3
    assert content["outside"]["rounded"]["largest"] == found.outside.rounded.largest


def test_a_gate_that_is_no_number_is_null_in_json() -> None:
    x = torch.tensor([[1e308, 1e308], [1.0, 2.0]], dtype=torch.float64)
    model = layer_of(NALU(2, 1), W_hat=[[30.0] * 2], M_hat=[[30.0] * 2], G=[[9.0, -9.0]])
    content = json.loads(formula(model, inside=(x, x[:, 0])).to_json())
    assert content["gates"][0]["margin"] is None


def test_an_infinite_error_is_null_in_json() -> None:
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = formula(layer_of(NRU(1, 1), W=[[-1.0]]), inside=(x, x))
    assert found.inside.rounded.largest == math.inf and found.verdict == "not a formula"
    assert json.loads(found.to_json())["inside"]["rounded"]["largest"] is None


def of(x: Any, y: Any = None) -> tuple[Tensor, Tensor]:
    return torch.full((4, 3), 1.0) if x is None else x, torch.full((4,), 1.0) if y is None else y


ROWS = of(None)
WIDE = nn.Sequential(NAC(30, 30), NAC(30, 30), NAC(30, 30))
REFUSED: list[tuple[type[Exception], str, Any, dict[str, Any]]] = [
    (TypeError, "model: expected", 3, {}),
    (TypeError, "0 (Tanh)", nn.Sequential(nn.Tanh()), {}),
    (ValueError, "layer with weights", nn.ReLU(), {}),
    (ValueError, "stacked units", NAU.stack([NAU(3, 1)]), {}),
    (ValueError, "that is not finite", layer_of(NAU(3, 1), W=[[math.nan] * 3]), {}),
    (ValueError, "expects 2 inputs", nn.Sequential(NAU(3, 1), NMU(2, 1)), {}),
    (ValueError, "expected inputs and outputs", NAU(3, 0), {}),
    (ValueError, "names: expected 3", NAU(3, 1), {"names": ["a", "a", "b"]}),
    (TypeError, "names: expected", NAU(3, 1), {"names": "abc"}),
    (ValueError, "tolerance: expected", NAU(3, 1), {"tolerance": 0.5}),
    (TypeError, "tolerance: expected", NAU(3, 1), {"tolerance": "small"}),
    (TypeError, "inside: expected a pair", NAU(3, 1), {"inside": ROWS[0]}),
    (TypeError, "inside: expected tensors", NAU(3, 1), {"inside": ([1.0], [1.0])}),
    (ValueError, "inside: expected inputs", NAU(2, 1), {}),
    (ValueError, "inside: expected inputs", NAU(3, 1), {"inside": of(ROWS[0][:0], ROWS[1][:0])}),
    (ValueError, "outside: expected targets", NAU(3, 1), {"outside": of(None, ROWS[1][:3])}),
    (ValueError, "finite numbers", NAU(3, 1), {"inside": of(None, ROWS[1] / 0)}),
    (ValueError, "terms", WIDE, {"inside": of(torch.ones(4, 30), torch.ones(4, 30))}),
]


@pytest.mark.parametrize(
    ("kind", "words", "model", "given"), REFUSED, ids=[words for _, words, _, _ in REFUSED]
)
def test_what_is_refused(
    kind: type[Exception], words: str, model: Any, given: dict[str, Any]
) -> None:
    with pytest.raises(kind) as raised:
        formula(model, **{"inside": ROWS, **given})
    assert words in str(raised.value)


def test_a_layer_with_hooks_is_refused() -> None:
    layer = NAU(3, 1)
    layer.register_forward_hook(lambda *of: None)
    with pytest.raises(TypeError, match="hooks"):
        formula(layer, inside=ROWS)


def test_a_layer_that_stands_twice_counts_twice() -> None:
    layer = layer_of(NAU(1, 1), W=[[-1.0]])
    x = torch.randn(20, 1, dtype=torch.float64)
    found = formula(nn.Sequential(layer, layer), inside=(x, x))
    assert (found.text, found.verdict) == ("y = x0", "exact")


def test_near() -> None:
    rounded = near(torch.tensor([0.009, 0.011, -0.995, 3.0]).double(), (-1.0, 0.0, 1.0), 0.01)
    assert rounded.values.tolist() == pytest.approx([0, 0.011, -1, 3], abs=1e-9)
    assert rounded.whole.tolist() == [True, False, True, False]
