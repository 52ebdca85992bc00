"""Other implementations' modules: recognised, checked, replaced, and given back."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from nalu_kernels import NAC, NALU, convert


def fill(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


class Nac(nn.Module):
    """Parameters W_hat and M_hat, or by other names, or transposed."""

    def __init__(
        self,
        ins: int,
        outs: int,
        names: tuple[str, str] = ("W_hat", "M_hat"),
        transposed: bool = False,
        log_space: float = 0.0,
    ) -> None:
        super().__init__()
        self.names, self.transposed, self.log_space = names, transposed, log_space
        self.register_parameter("bias", None)
        for name in names:
            self.register_parameter(name, fill(ins, outs) if transposed else fill(outs, ins))

    def forward(self, x: Tensor) -> Tensor:
        W, M = (getattr(self, name) for name in self.names)
        weight = torch.tanh(W) * torch.sigmoid(M)
        x = torch.log(torch.abs(x) + self.log_space) if self.log_space else x
        y = x @ weight if self.transposed else linear(x, weight)
        return torch.exp(y) if self.log_space else y


class NestedNalu(nn.Module):
    """One NAC for both paths in a child ``nac``, a gate G; epsilon a literal or an attribute."""

    def __init__(self, ins: int, outs: int, eps: float = 1e-10, gates: int | None = None) -> None:
        super().__init__()
        self.nac = Nac(ins, outs)
        self.G = fill(gates or outs, ins)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        a, g = self.nac(x), torch.sigmoid(linear(x, self.G))
        m = torch.exp(self.nac(torch.log(torch.abs(x) + self.eps)))
        return g * a + (1 - g) * m


class LiteralNalu(nn.Module):
    """All in one, by names with an underscore; epsilon only in the code."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.W_, self.M_, self.G = fill(outs, ins), fill(outs, ins), fill(outs, ins)

    def forward(self, x: Tensor) -> Tensor:
        W = torch.tanh(self.W_) * torch.sigmoid(self.M_)
        g = torch.sigmoid(linear(x, self.G))
        return g * linear(x, W) + (1 - g) * torch.exp(linear(torch.log(x.abs() + 1e-6), W))


class Matrices(Nac):
    """Takes no other inputs."""

    def forward(self, x: Tensor) -> Tensor:
        W, M = (getattr(self, name) for name in self.names)
        return torch.mm(x, (torch.tanh(W) * torch.sigmoid(M)).t())


class TwoNacs(nn.Module):
    """A NAC for each path, of which the product's comes first, and a Linear for a gate."""

    def __init__(self, ins: int, outs: int, bias: bool = True, transposed: bool = False) -> None:
        super().__init__()
        names = ("w_hat", "m_hat")
        self.nac_mul, self.nac_add = (Nac(ins, outs, names, transposed) for _ in range(2))
        self.gate = nn.Linear(ins, outs, bias=bias)
        self.register_buffer("epsilon", torch.tensor(1e-5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        g = torch.sigmoid(self.gate(x))
        m = torch.exp(self.nac_mul(torch.log(torch.abs(x) + self.epsilon.to(x.dtype))))
        return g * self.nac_add(x) + (1 - g) * m


MODULES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "W_hat": (lambda: Nac(4, 3), "NAC(in_features=4, out_features=3)"),
    "square": (lambda: Nac(3, 3), "NAC(in_features=3, out_features=3)"),
    "w, m": (lambda: Nac(4, 3, ("w", "m")), "NAC(in_features=4, out_features=3)"),
    "of matrices": (lambda: Matrices(4, 3), "NAC(in_features=4, out_features=3)"),
    "one output": (lambda: Nac(2, 1), "NAC(in_features=2, out_features=1)"),
    "transposed": (
        lambda: Nac(4, 3, ("W", "M"), transposed=True),
        "NAC(in_features=4, out_features=3)",
    ),
    "transposed, same names": (
        lambda: Nac(4, 3, transposed=True),
        "NAC(in_features=4, out_features=3)",
    ),
    "transposed, square": (
        lambda: Nac(3, 3, ("W_", "M_"), transposed=True),
        "NAC(in_features=3, out_features=3)",
    ),
    "log space": (
        lambda: Nac(4, 3, log_space=1e-8),
        "NAC(in_features=4, out_features=3, log_space=True, eps=1e-08)",
    ),
    "nested": (lambda: NestedNalu(4, 3), "NALU(in_features=4, out_features=3, eps=1e-10)"),
    "an eps of its own": (
        lambda: NestedNalu(4, 3, eps=0.0321),
        "NALU(in_features=4, out_features=3, eps=0.0321)",
    ),
    "gate per sample": (
        lambda: NestedNalu(4, 3, gates=1),
        "NALU(in_features=4, out_features=3, eps=1e-10, gate='sample')",
    ),
    "literal": (lambda: LiteralNalu(4, 3), "NALU(in_features=4, out_features=3, eps=1e-06)"),
    "two NACs": (
        lambda: TwoNacs(4, 3),
        "NALU(in_features=4, out_features=3, eps=1e-05, tied=False, gate_bias=True)",
    ),
    "two NACs, no bias": (
        lambda: TwoNacs(4, 3, bias=False),
        "NALU(in_features=4, out_features=3, eps=1e-05, tied=False)",
    ),
    "two transposed NACs, a gate that is not": (
        lambda: TwoNacs(4, 3, transposed=True),
        "NALU(in_features=4, out_features=3, eps=1e-05, tied=False, gate_bias=True)",
    ),
}


@pytest.fixture(params=MODULES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, str]:
    torch.manual_seed(0)
    make, expected = MODULES[request.param]
    return make(), expected


@pytest.fixture
def model(case: tuple[nn.Module, str]) -> nn.Sequential:
    ins = 2 if "=2" in case[1] else 3 if "in_features=3" in case[1] else 4
    return nn.Sequential(nn.Linear(5, ins), case[0])


@pytest.fixture
def x(rng: Generator) -> Tensor:
    return torch.rand(6, 5, generator=rng) + 0.1


def test_replaced_by_the_layer_that_it_is(
    case: tuple[nn.Module, str], model: nn.Sequential, x: Tensor
) -> None:
    expected, module = model(x), case[0]
    report = convert(model)
    assert report.model is model and not report.left
    assert repr(model[1]) == case[1]
    assert [entry.module for entry in report.replaced] == [module]
    torch.testing.assert_close(model(x), expected)
    assert str(report).startswith("1 replaced, 0 left\n  1: ")
    assert report.replaced[0].difference <= 1e-8


def test_given_back(case: tuple[nn.Module, str], model: nn.Sequential, x: Tensor) -> None:
    """With what has been learnt."""
    report = convert(model)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    model(x).tanh().sum().backward()
    optimizer.step()
    model.eval()
    expected = model(x)
    assert report.revert() is model
    assert model[1] is case[0] and not report.replaced and not case[0].training
    torch.testing.assert_close(model(x), expected)


def test_parameters_stay_where_they_can(
    case: tuple[nn.Module, str], model: nn.Sequential, x: Tensor
) -> None:
    """An optimizer made before goes on; where weights had to be turned, the report says so."""
    before = set(model.parameters())
    report = convert(model)
    copied = ", its transposed weights copied" in str(report)
    assert copied == report.replaced[0].candidate.transposed
    assert (set(model.parameters()) == before) != copied
    for parameter in model.parameters():
        assert parameter.is_contiguous() and parameter.requires_grad


def test_checkpoints(case: tuple[nn.Module, str], model: nn.Sequential, x: Tensor) -> None:
    """Of the original model, and of the converted one; strict, and through a file."""
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model(x)
    convert(model)
    converted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for state in (original, converted):
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        kept = dict(state)
        model.load_state_dict(torch.load(file), strict=True)
        torch.testing.assert_close(model(x), expected)
        assert state.keys() == kept.keys()
    del original["0.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"0\.bias\"\."):
        model.load_state_dict(original)


def test_copies_and_pickles(model: nn.Sequential, x: Tensor) -> None:
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model(x)
    convert(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        twin.load_state_dict(original)
        torch.testing.assert_close(twin(x), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_and_modes_are_kept(case: tuple[nn.Module, str], dtype: torch.dtype) -> None:
    module = case[0].to(dtype).eval()
    frozen = next(module.parameters()).requires_grad_(False)
    layer = convert(nn.Sequential(module)).model[0]
    assert isinstance(layer, (NAC, NALU)) and not layer.training
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    assert sum(not parameter.requires_grad for parameter in layer.parameters()) == 1
    assert not frozen.requires_grad


def test_the_model_itself(rng: Generator) -> None:
    module, x = NestedNalu(4, 3), torch.rand(5, 4, generator=rng)
    report = convert(module)
    assert isinstance(report.model, NALU)
    torch.testing.assert_close(report.model(x), module(x))
    assert str(report).startswith("1 replaced, 0 left\n  (the model): NestedNalu -> NALU(")
    assert report.revert() is module and report.model is module


class Squashed(NestedNalu):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


class Clipped(NestedNalu):
    """The exponent is cut off where a product is e^20."""

    def forward(self, x: Tensor) -> Tensor:
        a, g = self.nac(x), torch.sigmoid(linear(x, self.G))
        logs = self.nac(torch.log(torch.abs(x) + self.eps))
        return g * a + (1 - g) * torch.exp(logs.clamp(max=20))


class Detached(NestedNalu):
    """The same output, another gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (self.G.detach() - self.G).sum()


class Thresholded(NestedNalu):
    def forward(self, x: Tensor) -> Tensor:
        a, g = self.nac(x), torch.sigmoid(linear(x, self.G))
        m = torch.exp(self.nac(torch.log(torch.clamp(torch.abs(x), min=self.eps))))
        return g * a + (1 - g) * m


class Noisy(NestedNalu):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-3 * torch.randn(())


class DropsInTraining(NestedNalu):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


class MixesRows(NestedNalu):
    """As it should on a matrix; not where rows have two dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - super().forward(x[0]) * (x.dim() > 2)


@pytest.mark.parametrize(
    "kind", [Squashed, Clipped, Detached, Thresholded, Noisy, DropsInTraining, MixesRows]
)
def test_near_misses_stay(kind: type[NestedNalu]) -> None:
    """But the NAC inside of one is replaced: that it is."""
    torch.manual_seed(1)
    model = nn.Sequential(kind(4, 3))
    report = convert(model)
    assert isinstance(model[0], kind) and isinstance(model[0].nac, NAC)
    ((path, module, reason),) = report.left
    assert (path, module) == ("0", model[0])
    by_chance = kind in (Noisy, DropsInTraining)
    assert reason.startswith("its forward answers otherwise each time" if by_chance else "none of ")
    assert f"0: {kind.__name__} stays: {reason}" in str(report)
    assert [entry.path for entry in report.replaced] == ["0.nac"]


def test_weights_that_hide_the_formula() -> None:
    """With zero weights all of these give the same; other weights are tried too."""
    model = nn.Sequential(Squashed(4, 3))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert len(convert(model).left) == 1


def test_others_are_not_looked_at() -> None:
    class TwoLinears(nn.Module):
        """The shapes of a NAC's parameters."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Linear(2, 2, bias=False) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(x)))

    model = nn.Sequential(nn.Linear(4, 3), NAC(3, 2), NALU(2, 2), TwoLinears(), nn.LSTM(2, 2))
    before = list(model)
    report = convert(model)
    assert list(model) == before
    assert not report.replaced and not report.left
    assert str(report) == "0 replaced, 0 left"


def test_what_cannot_be_tried_stays() -> None:
    class Pair(Nac):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x) + y

    hooked = Nac(4, 3)
    hooked.register_forward_hook(lambda *_: None)
    shared, square = Nac(4, 3, ("W", "M"), transposed=True), Nac(3, 3, transposed=True)
    other = nn.Linear(3, 4, bias=False)
    other.weight = shared.W
    counting = Nac(4, 3)
    counting.register_buffer("calls", torch.zeros(()))
    model = nn.ModuleDict(
        {
            "counting": counting,
            "pair": Pair(4, 3),
            "hooked": hooked,
            "meta": Nac(4, 3).to("meta"),
            "shared": shared,
            "other": other,
            "square": square,
        }
    )
    reasons = {path: reason for path, _, reason in convert(model).left}
    assert reasons["pair"].startswith("its forward fails on (rows, in_features): TypeError: ")
    assert reasons["hooked"] == "it has hooks, which would be lost"
    assert reasons["meta"] == "it is on the meta device, where there is nothing to compare"
    assert reasons["shared"] == "its transposed weights are shared with another module"
    assert "square and transposed" in reasons["square"]
    assert reasons["counting"] == "it has buffers, which would be lost"
    assert len(reasons) == 6


def test_modules_and_parameters_in_two_places(rng: Generator) -> None:
    twice, twin = Nac(4, 4), Nac(4, 4)
    twin.W_hat = twice.W_hat
    model = nn.Sequential(twice, nn.Sequential(twice, twin))
    x = torch.rand(3, 4, generator=rng)
    expected = model(x)
    report = convert(model)
    assert model[0] is model[1][0] is report.replaced[0].layer
    assert model[1][1].W_hat is model[0].W_hat
    torch.testing.assert_close(model(x), expected)
    report.revert()
    assert model[0] is model[1][0] is twice and model[1][1] is twin


def test_nothing_else_is_touched() -> None:
    model = nn.Sequential(NestedNalu(4, 3), Noisy(3, 2))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    parameters = {p: (p.detach().clone(), p._version) for p in model.parameters()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.no_grad():
        convert(model)
    assert torch.equal(torch.get_rng_state(), state)
    for parameter, (value, version) in parameters.items():
        assert torch.equal(parameter, value) and parameter._version == version
        assert torch.equal(parameter.grad, torch.ones_like(parameter))


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")]
)
def test_in_any_context(context: Callable[[], Any], rng: Generator) -> None:
    x = torch.rand(5, 4, generator=rng)
    model = nn.Sequential(NestedNalu(4, 3), nn.Linear(3, 2))
    expected = model(x)
    with context():
        assert len(convert(model).replaced) == 1
    torch.testing.assert_close(model(x), expected)


def test_an_optimizer_goes_on(rng: Generator) -> None:
    x = torch.rand(6, 4, generator=rng)
    plain = nn.Sequential(NestedNalu(4, 3), TwoNacs(3, 2))
    ours = copy.deepcopy(plain)
    optimizers = [torch.optim.Adam(model.parameters(), 1e-2) for model in (plain, ours)]
    for step in range(4):
        if step == 2:
            convert(ours)
        for model, optimizer in zip((plain, ours), optimizers, strict=True):
            optimizer.zero_grad()
            model(x).tanh().square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-3, atol=1e-4)


def test_not_a_module() -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got list"):
        convert([nn.Linear(2, 1)])
