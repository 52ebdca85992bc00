"""The layers after NALU of other implementations: those that stand for themselves, and those of
AndreasMadsen/stable-nalu and bmistry4/nalm-benchmark, whose networks ask more of them."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from nalu_kernels import convert

PHI = (1 + math.sqrt(5)) / 2


def fill(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


class OfOne(nn.Module):
    """A module whose parameters have the shapes that its class is made with."""

    _shapes: ClassVar[dict[str, tuple[int, ...]]]

    def __init_subclass__(cls, **shapes: tuple[int, ...]) -> None:
        if shapes:
            cls._shapes = shapes

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in (shapes or self._shapes).items():
            self.register_parameter(name, fill(*shape))


class Sums(OfOne, W=(3, 4)):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.W.clamp(-1, 1))


class TurnedSums(OfOne, weight=(4, 3)):
    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.clamp(self.weight, -1.0, 1.0)


def products(x: Tensor, W: Tensor) -> Tensor:
    return (1 - W + W * x.unsqueeze(-2)).prod(-1)


class Products(OfOne, W=(3, 4)):
    def forward(self, x: Tensor) -> Tensor:
        return products(x, self.W)


def both(
    x: Tensor, own: Any, sign: Callable[[Tensor], Tensor], omega: float, eps: Any = 1e-7
) -> Tensor:
    """What an iNALU computes, of weights by the names in nalm-benchmark."""
    added = torch.tanh(own.W_a_hat) * torch.sigmoid(own.M_a_hat)
    multiplied = torch.tanh(own.W_m_hat) * torch.sigmoid(own.M_m_hat)
    exponent = torch.log(torch.maximum(x.abs(), torch.as_tensor(eps).to(x))) @ multiplied
    part = sign(multiplied.abs())
    product = exponent.clamp(max=omega).exp() * products(x.sign(), part)
    gate = own.g.sigmoid()
    return gate * (x @ added) + (1 - gate) * product


FOUR = {name: (4, 3) for name in ("W_a_hat", "M_a_hat", "W_m_hat", "M_m_hat")}


class Improved(OfOne, **FOUR, g=(3,)):
    def forward(self, x: Tensor) -> Tensor:
        return both(x, self, lambda W: W.t(), 20.0)


class OfAFloat32(Improved):
    """Whose ε is a tensor, as in nalm-benchmark."""

    def forward(self, x: Tensor) -> Tensor:
        return both(x, self, lambda W: W.t(), 20.0, torch.tensor(1e-7, dtype=torch.float32))


class Reshaped(Improved):
    """The authors' sign, whose weights are not turned."""

    def forward(self, x: Tensor) -> Tensor:
        return both(x, self, lambda W: W.reshape(3, 4), 20.0)


class CutOffEarlier(Improved):
    def forward(self, x: Tensor) -> Tensor:
        return both(x, self, lambda W: W.t(), 15.0)


def powers(x: Tensor, W: Tensor, imaginary: Tensor | None, gate: Tensor, eps: float) -> Tensor:
    sizes = (gate * (x.abs() + eps) + (1 - gate)).log()
    angles = math.pi * gate * (x < 0)
    if imaginary is None:
        return (sizes @ W).exp() * (angles @ W).cos()
    return (sizes @ W - angles @ imaginary).exp() * (angles @ W + sizes @ imaginary).cos()


class Powers(OfOne, W_real=(4, 3), W_im=(4, 3), g=(4,)):
    def forward(self, x: Tensor) -> Tensor:
        return powers(x, self.W_real, self.W_im, self.g.clamp(0, 1), 2**-23)


class RealPowers(OfOne, W_real=(4, 3), g=(4,)):
    def forward(self, x: Tensor) -> Tensor:
        return powers(x, self.W_real, None, self.g.clamp(0, 1), 2**-23)


class StraightThrough(RealPowers):
    def forward(self, x: Tensor) -> Tensor:
        gate = self.g + (self.g.clamp(0, 1) - self.g).detach()
        return powers(x, self.W_real, None, gate, 2**-23)


def smallest(x: Tensor) -> float:
    return 2**-52 if x.element_size() == 8 else 2**-23


class OfTheDtype(RealPowers):
    """Whose ε no single number is."""

    def forward(self, x: Tensor) -> Tensor:
        return powers(x, self.W_real, None, self.g.clamp(0, 1), smallest(x))


class Golden(OfOne, W_hat=(3, 4), M_hat=(3, 4), G=(3, 4)):
    def forward(self, x: Tensor) -> Tensor:
        c = math.log(PHI)
        W = torch.tanh(c * self.W_hat) * torch.sigmoid(c * self.M_hat)
        g = torch.sigmoid(c * linear(x, self.G))
        return g * linear(x, W) + (1 - g) * linear((x.abs() + 1e-7).log(), W).exp()


CLAMPED = "eps=1.19209e-07, gate_gradient='clamped')"
ALIKE: dict[type[OfOne], str] = {
    Sums: "NAU(in_features=4, out_features=3)",
    TurnedSums: "NAU(in_features=4, out_features=3)",
    Products: "NMU(in_features=4, out_features=3)",
    Improved: "INALU(in_features=4, out_features=3, eps=1e-07, omega=20)",
    Powers: f"NPU(in_features=4, out_features=3, {CLAMPED}",
    OfAFloat32: "INALU(in_features=4, out_features=3, eps=1e-07, omega=20)",
    RealPowers: f"RealNPU(in_features=4, out_features=3, {CLAMPED}",
    StraightThrough: "RealNPU(in_features=4, out_features=3, eps=1.19209e-07)",
    Golden: "GNALU(in_features=4, out_features=3, eps=1e-07)",
}


@pytest.mark.parametrize("kind", ALIKE)
def test_replaced_by_the_layer_that_it_is(kind: type[OfOne], rng: Generator) -> None:
    torch.manual_seed(0)
    module = kind()
    model, x = nn.Sequential(module), torch.randn(6, 4, generator=rng)
    state, expected = copy.deepcopy(model.state_dict()), model(x)
    report = convert(model)
    assert repr(model[0]) == ALIKE[kind] and not report.left
    torch.testing.assert_close(model(x), expected)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(state)
    torch.testing.assert_close(model(x), expected)
    assert report.revert()[0] is module
    torch.testing.assert_close(model(x), expected)


def test_the_eps_that_does_best_is_taken() -> None:
    """Not one at the edge of what counts as the same."""
    torch.manual_seed(0)
    report = convert(nn.Sequential(OfAFloat32()))
    (replaced,) = report.replaced
    assert replaced.layer.eps == torch.tensor(1e-7, dtype=torch.float32).item()
    assert replaced.difference < 1e-10


class Unbounded(Sums):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.W)


class BiasedNau(Sums, W=(3, 4), bias=(3,)):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.bias


class Bounded(Products):
    def forward(self, x: Tensor) -> Tensor:
        return products(x, self.W.clamp(0, 1))


class NoisyNmu(Products):
    def forward(self, x: Tensor) -> Tensor:
        noise = 1 + 4 * torch.rand_like(x) if self.training else torch.ones_like(x)
        return products(x * noise, self.W) / products(noise, self.W)


class Nru(Sums):
    """As its authors have it: an input of 0 makes it NaN."""

    def forward(self, x: Tensor) -> Tensor:
        W = self.W
        part = torch.tanh(1000 * W) ** 2 if self.training else W.abs()
        x = x.unsqueeze(-2)
        return (part * x.sign() * x.abs() ** W + 1 - part).prod(-1)


class FixedPlace(Products):
    """Which puts the outputs behind the first dimension, wherever the last is."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) * self.W + 1 - self.W).prod(-1)


MISSES: dict[type[OfOne], str] = {
    Reshaped: "none of 24 layers agrees with it; the closest is off by ",
    CutOffEarlier: "none of 24 layers agrees with it; the closest is off by ",
    OfTheDtype: "for an input of zeros its forward returns other numbers than a layer",
    FixedPlace: "for an input of shape (2, 3, 4) its forward returns shape (2, 1, 3) of float64",
    BiasedNau: "its parameters are not those of a layer: W (3, 4), bias (3,)",
    NoisyNmu: "its forward answers otherwise each time, as if by chance",
    Nru: "none of 2 layers agrees with it; the closest is off by ",
}


@pytest.mark.parametrize("kind", MISSES)
def test_near_misses_stay_with_a_reason(kind: type[OfOne]) -> None:
    torch.manual_seed(0)
    # A name by which it is worth a word.
    module = type(f"{kind.__name__}Npu", (kind,), {})()
    ((_, left, reason),) = convert(nn.Sequential(module)).left
    assert left is module and reason.startswith(MISSES[kind])


@pytest.mark.parametrize("kind", [Unbounded, Bounded])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2)])
def test_few_weights_that_happen_to_be_within_bounds(kind: Any, shape: tuple[int, int]) -> None:
    """Where clamping changes nothing a layer computes the same, until a weight leaves them."""
    for seed in range(12):
        torch.manual_seed(seed)
        model = nn.Sequential(kind(W=shape))
        nn.init.uniform_(model[0].W, 0.25, 0.75)
        assert not convert(model).replaced


# What follows has the interface of the two repositories' modules.


class Quiet:
    """A writer that writes nothing."""

    def add_histogram(self, name: str, values: Tensor) -> None:
        pass


class Loud(Quiet):
    written: ClassVar[list[str]] = []

    def add_histogram(self, name: str, values: Tensor) -> None:
        Loud.written.append(name)


class InputTerm:
    """A regulariser of inputs, which a forward hands to it."""

    def __init__(self, off: bool) -> None:
        self.off, self.inputs = off, list[Tensor]()

    def append_input(self, x: Tensor) -> None:
        if not self.off:
            self.inputs.append(x)


class ExtendedTorchModule(nn.Module):
    def __init__(self, writer: Quiet | None = None) -> None:
        super().__init__()
        self.writer = writer or Quiet()
        self.allow_random = True

    def regualizer(self) -> Any:
        return sum(each.regualizer() for each in self._inner())

    def optimize(self, loss: Tensor) -> None:
        for each in self._inner():
            each.optimize(loss)

    def stop_random(self) -> None:
        self.allow_random = False
        for each in self._inner():
            each.stop_random()

    def _inner(self) -> list[ExtendedTorchModule]:
        return [each for each in self.children() if isinstance(each, ExtendedTorchModule)]


class ReRegualizedLinearNACLayer(ExtendedTorchModule):
    def __init__(
        self, in_features: int, out_features: int, z: bool = False, writer: Quiet | None = None
    ) -> None:
        super().__init__(writer)
        self.in_features, self.out_features = in_features, out_features
        self._regualizer_nau_z = InputTerm(off=not z)
        self.W = fill(out_features, in_features)
        self.register_parameter("bias", None)

    def regualizer(self) -> Any:
        return torch.minimum(self.W.abs(), (1 - self.W.abs()).abs()).mean()

    def optimize(self, loss: Tensor) -> None:
        self.W.data.clamp_(-1.0, 1.0)

    def forward(self, x: Tensor, reuse: bool = False) -> Tensor:
        if self.allow_random:
            self._regualizer_nau_z.append_input(x)
        W = self.W.clamp(-1.0, 1.0)
        self.writer.add_histogram("W", W)
        return linear(x, W, self.bias)


class ReRegualizedLinearMNACLayer(ReRegualizedLinearNACLayer):
    def __init__(self, in_features: int, out_features: int, nac_oob: str = "clip") -> None:
        super().__init__(in_features, out_features)
        self.nac_oob = nac_oob

    def optimize(self, loss: Tensor) -> None:
        self.W.data.clamp_(0.0, 1.0)

    def forward(self, x: Tensor, reuse: bool = False) -> Tensor:
        W = self.W.clamp(0.0, 1.0) if self.nac_oob == "regualized" else self.W
        x, W = x.view(len(x), self.in_features, 1), W.t()
        return torch.prod(x * W + 1 - W, -2)


class RealNPULayer(ExtendedTorchModule):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.W_real, self.g = fill(in_features, out_features), fill(in_features)

    def regualizer(self) -> Any:
        return self.W_real.abs().sum()

    def forward(self, x: Tensor) -> Tensor:
        return powers(x, self.W_real, None, self.g.clamp(0, 1), 2**-23)


class NALULayer(ExtendedTorchModule):
    """Keeps its gate, of which its regulariser is."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.nac_add = Nac(in_features, out_features)
        self.G_add = fill(out_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        g = self.stored_gate = torch.sigmoid(linear(x, self.G_add))
        m = self.nac_add((x.abs() + 1e-7).log(), reuse=True).exp()
        return g * self.nac_add(x) + (1 - g) * m


class Nac(ExtendedTorchModule):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.W_hat, self.M_hat = (fill(out_features, in_features) for _ in range(2))

    def forward(self, x: Tensor, reuse: bool = False) -> Tensor:
        return linear(x, torch.tanh(self.W_hat) * torch.sigmoid(self.M_hat))


class Network(ExtendedTorchModule):
    def __init__(self, *layers: ExtendedTorchModule) -> None:
        super().__init__()
        for number, layer in enumerate(layers):
            self.add_module(f"layer_{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


def network() -> Network:
    torch.manual_seed(0)
    return Network(ReRegualizedLinearNACLayer(4, 3), ReRegualizedLinearMNACLayer(3, 2))


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules' own forwards."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("the module's own forward")

    for kind in (ReRegualizedLinearNACLayer, ReRegualizedLinearMNACLayer, RealNPULayer):
        monkeypatch.setattr(kind, "forward", forward)


def test_a_benchmark_network_trains_on_as_it_did(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its regulariser, its clamp after a step, its parameters and its optimizer."""
    x = torch.randn(16, 4, generator=rng)

    def train(model: Network, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(x).square().mean() + model.regualizer()
            loss.backward()
            optimizer.step()
            model.optimize(loss)
        return [each.detach() for each in model.parameters()]

    plain, model = network(), network()
    expected = train(plain, torch.optim.Adam(plain.parameters(), 0.1))
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    report = convert(model)
    assert [entry.path for entry in report.replaced] == ["layer_0", "layer_1"] and not report.left
    assert (
        str(report)
        .splitlines()[1]
        .startswith(
            "  layer_0: ReRegualizedLinearNACLayer stays, and NAU(in_features=4, out_features=3) "
            "computes its forward, largest difference "
        )
    )
    assert model.state_dict().keys() == plain.state_dict().keys()
    forbid(monkeypatch)
    torch.testing.assert_close(train(model, optimizer), expected)
    assert not convert(model).replaced


def test_weights_stored_the_other_way_round_are_not_copied(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, model = torch.randn(6, 4, generator=rng).double(), Network(RealNPULayer(4, 3)).double()
    before, expected = list(model.parameters()), model(x)
    assert convert(model).replaced
    forbid(monkeypatch)
    torch.testing.assert_close(model(x), expected)
    assert all(map(lambda one, other: one is other, model.parameters(), before))


def test_the_own_forward_answers_what_no_layer_was_compared_on(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another argument, rows in more dimensions, another dtype, autocast, a flag that has changed,
    and all once it has been given back."""
    x, model = torch.randn(6, 4, generator=rng), network()
    report = convert(model)
    forbid(monkeypatch)
    layer: Any = model.layer_0
    layer(x)
    for call in (
        lambda: layer(x, reuse=True),
        lambda: layer(x=x),
        lambda: layer(x.view(2, 3, 4)),
        lambda: layer(x.double()),
    ):
        with pytest.raises(AssertionError, match="own forward"):
            call()
    with torch.autocast("cpu"), pytest.raises(AssertionError, match="own forward"):
        layer(x)
    model.stop_random()
    with pytest.raises(AssertionError, match="own forward"):
        layer(x)
    layer.allow_random = True
    layer(x)
    assert report.revert() is model and type(layer) is ReRegualizedLinearNACLayer
    with pytest.raises(AssertionError, match="own forward"):
        layer(x)


def test_copies_and_pickles_of_a_network(rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, model = torch.randn(6, 4, generator=rng), network()
    convert(model)
    expected, file = model(x), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    forbid(monkeypatch)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert isinstance(twin.layer_0, ReRegualizedLinearNACLayer)
        torch.testing.assert_close(twin(x), expected)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: ReRegualizedLinearNACLayer(4, 3, z=True),
            "its forward changes _regualizer_nau_z, which would be lost",
        ),
        (
            lambda: ReRegualizedLinearNACLayer(4, 3, writer=Loud()),
            "its forward logs by Loud.add_histogram, which would be lost",
        ),
        (
            lambda: ReRegualizedLinearMNACLayer(4, 3, "regualized"),
            "none of 2 layers agrees with it; the closest is off by ",
        ),
    ],
)
def test_stays_where_its_forward_does_more(make: Callable[[], nn.Module], reason: str) -> None:
    torch.manual_seed(0)
    before = list(Loud.written)
    ((_, module, why),) = convert(nn.Sequential(make())).left
    assert why.startswith(reason)
    assert module(torch.ones(2, 4)).shape == (2, 3) and Loud.written[: len(before)] == before


def test_a_nalu_that_keeps_its_gate_stays_and_its_nac_is_converted() -> None:
    torch.manual_seed(0)
    report = convert(Network(NALULayer(4, 3)))
    ((path, _, reason),) = report.left
    assert path == "layer_0" and reason.startswith("its forward sets the attribute stored_gate")
    assert [entry.path for entry in report.replaced] == ["layer_0.nac_add"]
