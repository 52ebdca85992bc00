"""Every layer has torch.nn.Linear's habits, begins as published, and trains as published."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import nalu_kernels
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
    INALUCell,
    NACSigma,
    NAUCell,
    NMUCell,
    Ramp,
    RealNPU,
    RealNPUCell,
    Stairs,
    functional,
    published,
    sparsity_error,
    sweep,
)
from nalu_kernels.layers.base import Layer
from nalu_kernels.layers.initialize import nau_range

PAIR = {"W_hat": (3, 5), "M_hat": (3, 5)}
MUL = {"W_hat_mul": (3, 5), "M_hat_mul": (3, 5)}
LAYERS: dict[str, tuple[type[Layer], dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "NAC": (NAC, {}, PAIR),
    "NACSigma": (NACSigma, {}, {"W_hat": (3, 5)}),
    "NACNMU": (NACNMU, {"eps": 1e-3}, {"W": (3, 5)}),
    "NALU": (NALU, {}, {**PAIR, "G": (3, 5)}),
    "NAU": (NAU, {}, {"W": (3, 5)}),
    "NMU": (NMU, {}, {"W": (3, 5)}),
    "SNMU": (SNMU, {}, {"W": (3, 5)}),
    "SNMU-batch": (SNMU, {"noise": "batch"}, {"W": (3, 5)}),
    "INALU": (INALU, {}, {**PAIR, "g": (3,), **MUL}),
    "INALU-matrix": (INALU, {"gate": "matrix", "eps": 1e-3}, {**PAIR, "g": (3, 5), **MUL}),
    "INALU-vector": (
        INALU,
        {"gate": "vector", "tied": True, "omega": 10.0},
        {**PAIR, "g": (1, 5)},
    ),
    "GNALU": (GNALU, {"eps": 1e-3}, {**PAIR, "G": (3, 5)}),
    "NPU": (NPU, {}, {"W_re": (3, 5), "g": (5,), "W_im": (3, 5)}),
    "NPU-clamped": (
        NPU,
        {"gate_gradient": "clamped", "eps": 1e-3},
        {"W_re": (3, 5), "g": (5,), "W_im": (3, 5)},
    ),
    "RealNPU": (RealNPU, {}, {"W_re": (3, 5), "g": (5,)}),
    "RealNPU-modified": (RealNPU, {"modified": True}, {"W_re": (3, 5), "g": (5,)}),
    "NRU": (NRU, {}, {"W": (3, 5)}),
    "NMRU": (NMRU, {}, {"W": (3, 10)}),
}
BOUNDS = {
    "NAU": {"W": (-1, 1)},
    "NRU": {"W": (-1, 1)},
    "NMU": {"W": (0, 1)},
    "NACNMU": {"W": (0, 1)},
    "SNMU": {"W": (0, 1)},
    "SNMU-batch": {"W": (0, 1)},
    "NMRU": {"W": (0, 1)},
    "RealNPU-modified": {"W_re": (-1, 1), "g": (0, 1)},
}
Factory = Callable[..., Any]


@pytest.fixture(params=LAYERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(name: str) -> Factory:
    kind, options, _ = LAYERS[name]
    return lambda *args, **more: kind(*args, **options, **more)


def inputs(rng: Generator, *shape: int) -> Tensor:
    """Of both signs, away from 0."""
    return (0.5 + torch.rand(shape, generator=rng)) * torch.randn(shape, generator=rng).sign()


def test_every_layer_is_tried() -> None:
    public = {getattr(nalu_kernels, name) for name in nalu_kernels.__all__}
    layers = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Layer)}
    assert layers == {kind for kind, _, _ in LAYERS.values()}


def test_sizes_and_parameters(name: str, make: Factory) -> None:
    layer = make(5, 3)
    assert (layer.in_features, layer.out_features) == (5, 3)
    shapes = {own: tuple(parameter.shape) for own, parameter in layer.named_parameters()}
    assert shapes == LAYERS[name][2]
    assert list(layer.state_dict()) == list(shapes)


def test_repr_makes_the_layer_again(make: Factory) -> None:
    layer = make(5, 3)
    again = eval(repr(layer), vars(nalu_kernels))
    assert type(again) is type(layer) and repr(again) == repr(layer)
    again.load_state_dict(layer.state_dict())


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,), (2, 0, 3)], ids=str)
def test_leading_dimensions(make: Factory, leading: tuple[int, ...], rng: Generator) -> None:
    layer, x = make(5, 3).eval(), inputs(rng, *leading, 5)
    y = layer(x)
    assert y.shape == (*leading, 3)
    torch.testing.assert_close(y.reshape(-1, 3), layer(x.reshape(-1, 5)))


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_no_features(make: Factory, size: tuple[int, int]) -> None:
    layer = make(*size).eval()
    (layer(torch.ones(2, size[0])).sum() + layer.regularizer()).backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in layer.parameters())
    layer.clamp_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_dtype(make: Factory, dtype: torch.dtype, rng: Generator) -> None:
    x = inputs(rng, 4, 5).to(dtype)
    for layer in (make(5, 3, dtype=dtype), make(5, 3).to(x)):
        assert layer(x).dtype == dtype
        assert all(parameter.dtype == dtype for parameter in layer.parameters())
        assert layer.regularizer().dtype in (torch.float32, dtype)
        layer.clamp_()


def test_wrong_dtype(make: Factory) -> None:
    with pytest.raises(TypeError, match="dtype: expected float32, float64"):
        make(5, 3, dtype=torch.int64)


def test_meta_device(make: Factory) -> None:
    layer = make(5, 3, device="meta").eval()
    assert layer(torch.ones(2, 4, 5, device="meta")).shape == (2, 4, 3)
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert all(parameter.isfinite().all() for parameter in layer.parameters())


def copied(layer: nn.Module, make: Factory) -> list[nn.Module]:
    loaded, file = make(5, 3), io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    return [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded]


def test_copies(make: Factory, rng: Generator) -> None:
    layer, x = make(5, 3).eval(), inputs(rng, 4, 5)
    for other in copied(layer, make):
        assert repr(other) == repr(layer)
        assert torch.equal(other.eval()(x), layer(x))
        with torch.no_grad():
            next(other.parameters()).fill_(2)
        assert not torch.equal(other(x), layer(x))
        assert other.clamp_() is other


def test_reset_parameters(make: Factory) -> None:
    layer = make(5, 3)
    before = {own: parameter.clone() for own, parameter in layer.named_parameters()}
    layer.reset_parameters()
    fixed = {own for own, old in before.items() if torch.equal(getattr(layer, own), old)}
    assert fixed == ({"g", "W_im"} & set(before) if isinstance(layer, (NPU, RealNPU)) else set())


def test_a_small_step_downhill_lowers_the_loss(make: Factory, rng: Generator) -> None:
    layer = make(5, 3).eval()
    x, target = inputs(rng, 64, 5), inputs(rng, 64, 3)

    def loss() -> Tensor:
        return (layer(x) - target).square().mean()

    before = loss()
    before.backward()
    size = max(parameter.grad.abs().max().item() for parameter in layer.parameters())
    torch.optim.SGD(layer.parameters(), lr=1e-3 / max(size, 1)).step()
    assert loss() < before


def test_forward_is_the_function(rng: Generator) -> None:
    x = inputs(rng, 4, 5)
    for kind, options, call in [
        (NAU, {}, lambda p: functional.nau(x, **p)),
        (NMU, {}, lambda p: functional.nmu(x, **p)),
        (SNMU, {}, lambda p: functional.nmu(x, **p)),
        (INALU, {"omega": 1.0}, lambda p: functional.inalu(x, **p, omega=1.0)),
        (GNALU, {"eps": 0.1}, lambda p: functional.gnalu(x, **p, eps=0.1)),
        (NPU, {"eps": 0.1}, lambda p: functional.npu(x, **p, eps=0.1)),
        (RealNPU, {"eps": 0.1}, lambda p: functional.real_npu(x, **p, eps=0.1)),
        (NRU, {}, lambda p: functional.nru(x, **p)),
        (NMRU, {}, lambda p: functional.nmru(x, **p)),
    ]:
        layer: Any = kind(5, 3, **options).eval()
        assert torch.equal(layer(x), call(dict(layer.named_parameters())))


def test_forms_of_training(rng: Generator) -> None:
    x, zeros = inputs(rng, 4, 5), torch.zeros(1, 5)
    nru, nmru, snmu = NRU(5, 3), NMRU(5, 3), SNMU(5, 3)
    assert torch.equal(nru(x), functional.nru(x, nru.W, training=True))
    assert torch.equal(nmru(x), functional.nmru(x, nmru.W, eps=2.0**-23))
    assert nmru(zeros).isfinite().all() and nmru.eval()(zeros).isinf().all()
    assert not torch.equal(snmu(x), snmu(x))
    assert torch.equal(snmu.eval()(x), functional.nmu(x, snmu.W))
    with torch.no_grad():
        snmu.W.round_()
    torch.testing.assert_close(snmu.train()(x), functional.nmu(x, snmu.W))


@pytest.mark.parametrize(
    ("gate_gradient", "expected"), [("straight-through", True), ("clamped", False)]
)
@pytest.mark.parametrize("kind", [NPU, RealNPU])
def test_a_gate_outside_its_bounds(
    kind: Any, gate_gradient: str, expected: bool, rng: Generator
) -> None:
    layer = kind(5, 3, gate_gradient=gate_gradient)
    with torch.no_grad():
        layer.g.fill_(1.5)
    layer(inputs(rng, 4, 5)).sum().backward()
    assert bool(layer.g.grad.any()) is expected


def values(make: Factory, parameter: str, count: int = 40) -> Tensor:
    return torch.cat([getattr(make(20, 30), parameter).detach().flatten() for _ in range(count)])


@pytest.mark.parametrize(
    ("kind", "parameter", "low", "high"),
    [
        (NAU, "W", -math.sqrt(6 / 50), math.sqrt(6 / 50)),
        (NRU, "W", -math.sqrt(6 / 50), math.sqrt(6 / 50)),
        (NMU, "W", 0.25, 0.75),
        (NACNMU, "W", 0.25, 0.75),
        (SNMU, "W", 0.25, 0.75),
        (NMRU, "W", 0.25, 0.75),
        (NPU, "W_re", -math.sqrt(6 / 50), math.sqrt(6 / 50)),
        (RealNPU, "W_re", -math.sqrt(6 / 50), math.sqrt(6 / 50)),
        (GNALU, "G", -math.sqrt(6 / 50), math.sqrt(6 / 50)),
    ],
)
def test_uniform_starts(kind: Any, parameter: str, low: float, high: float) -> None:
    drawn = (values(kind, parameter) - low) / (high - low)
    assert drawn.min() >= -1e-6 and drawn.max() <= 1 + 1e-6
    counts, expected = torch.histc(drawn, 10, 0, 1), len(drawn) / 10
    assert (counts - expected).abs().max() < 6 * math.sqrt(expected)


@pytest.mark.parametrize(
    ("kind", "parameter", "mean", "std"),
    [
        (INALU, "W_hat", 1, 0.1),
        (INALU, "M_hat", -1, 0.1),
        (INALU, "W_hat_mul", 1, 0.1),
        (INALU, "M_hat_mul", -1, 0.1),
        (INALU, "g", 0, 0.1),
        (NACSigma, "W_hat", 0, math.sqrt(2 / 50)),
    ],
)
def test_normal_starts(kind: Any, parameter: str, mean: float, std: float) -> None:
    drawn = values(kind, parameter)
    assert abs(drawn.mean() - mean) < 6 * std / math.sqrt(len(drawn))
    assert abs(drawn.std() - std) < 6 * std / math.sqrt(2 * len(drawn))


def test_other_starts() -> None:
    assert nau_range(2, 1) == 0.5 and nau_range(100, 2) == math.sqrt(6 / 102)
    layer = RealNPU(1, 1, modified=True)
    drawn = torch.stack([RealNPU(1, 1, modified=True).W_re.detach() for _ in range(200)])
    assert drawn.abs().max() <= 0.5  # without it up to √3
    for layer in (NPU(5, 3), RealNPU(5, 3)):
        assert (layer.g == 0.5).all()
    assert not NPU(5, 3).W_im.any()


def test_effective_weights(rng: Generator) -> None:
    inalu, gnalu = INALU(5, 3), GNALU(5, 3)
    weight = nalu_kernels.reference.weight
    assert torch.equal(inalu.W, weight(inalu.W_hat, inalu.M_hat))
    assert torch.equal(inalu.W_mul, weight(inalu.W_hat_mul, inalu.M_hat_mul))
    tied = INALU(5, 3, tied=True)
    assert torch.equal(tied.W_mul, tied.W)
    sigma = NACSigma(5, 3)
    assert torch.equal(sigma.W, torch.sigmoid(sigma.W_hat))
    c = math.log((1 + math.sqrt(5)) / 2)
    assert torch.equal(gnalu.W, weight(c * gnalu.W_hat, c * gnalu.M_hat))
    with pytest.raises(AttributeError):
        gnalu.W = torch.ones(3, 5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: SNMU(2, 1, noise="other"), ValueError, "noise: expected"),
        (lambda: SNMU(2, 1, noise=(1.0, True)), TypeError, r"noise\[1\]: expected a positive"),
        (lambda: SNMU(2, 1, noise=(5.0, 1.0)), ValueError, "noise: expected .* 0 < a <= b"),
        (lambda: INALU(2, 1, gate="sample"), ValueError, "gate: expected 'independent'"),
        (lambda: INALU(2, 1, gate=["matrix"]), ValueError, r"gate: .* got \['matrix'\]"),
        (lambda: Ramp("a", "b"), TypeError, "start: expected a number, got str"),
        (lambda: Ramp(0, "1"), TypeError, "stop: expected a number, got str"),
        (lambda: Ramp(0, 1, "x"), TypeError, "scale: expected a number, got str"),
        (lambda: Stairs("a", "b"), TypeError, "first: expected a number, got str"),
        (lambda: INALU(2, 1, omega="20"), TypeError, "omega: expected a positive finite float"),
        (lambda: INALU(2, 1, omega=0), ValueError, "omega: expected a positive finite float"),
        (lambda: INALU(2, 1, tied=1), TypeError, "tied: expected a bool"),
        (lambda: NPU(2, 1, eps=0.0), ValueError, "eps: expected"),
        (lambda: NPU(2, 1, gate_gradient="no"), ValueError, "gate_gradient: expected"),
        (lambda: RealNPU(2, 1, modified=1), TypeError, "modified: expected a bool"),
        (lambda: NPU(2, 1).regularizer("l2"), ValueError, "term: expected 'l1'"),
        (lambda: NAU(-1, 1), ValueError, "in_features: expected"),
        (lambda: Ramp(5, 4), ValueError, "stop: expected a step not before start = 5, got 4"),
        (lambda: Ramp(0, math.nan), ValueError, "stop: expected a step not before start"),
        (lambda: Ramp(-math.inf, 5), ValueError, "start: expected a finite step, got -inf"),
        (
            lambda: Ramp(0, math.inf)(math.inf),
            ValueError,
            "step: expected a finite number, got inf",
        ),
        (lambda: Ramp(0, 5)("3"), TypeError, "step: expected a number, got str"),
        (lambda: Stairs(math.inf, math.inf), ValueError, "first: expected a finite 0 < first"),
        (lambda: Stairs(1, 2)(math.inf), ValueError, "step: expected a finite .*, got inf"),
        (lambda: Stairs(1, 2)(math.nan), ValueError, "step: expected a finite number, got nan"),
        (lambda: NMU(2, 1).input_regularizer("q"), TypeError, "input: expected a torch.Tensor"),
        (
            lambda: NMU(2, 1).input_regularizer(torch.rand(3, 4)),
            ValueError,
            r"input: expected a last dimension of in_features = 2 .*, got shape \(3, 4\)",
        ),
        (
            lambda: NACNMU(2, 1).input_regularizer(torch.rand(0, 2)),
            ValueError,
            r"input: expected at least one row, got shape \(0, 2\)",
        ),
        (lambda: Stairs(2.0, 1.0), ValueError, "first: expected a finite 0 < first"),
        (lambda: Stairs(1.0, 2.0, every=0), ValueError, "every: expected"),
        (lambda: Stairs(1.0, 2.0, factor=1.0), ValueError, "factor: expected"),
        (lambda: nalu_kernels.regularizer(nn.Linear(1, 1)), ValueError, "model: expected a layer"),
        (lambda: nalu_kernels.regularizer(NPU(2, 1), "gate"), ValueError, "'l1', got 'gate'"),
        (lambda: nalu_kernels.clamp_(torch.ones(1)), TypeError, "model: expected a torch.nn.Mod"),
        (lambda: nalu_kernels.input_regularizer(NRU(2, 1)), ValueError, "model: expected an NAU"),
        (
            lambda: nalu_kernels.clamp_after_step(NMU(2, 1), NMU(2, 1)),
            TypeError,
            "optimizer: expected a torch.optim.Optimizer, got NMU",
        ),
        (
            lambda: nalu_kernels.clamp_after_step(
                torch.optim.SGD(NMU(2, 1).parameters()), NMU(2, 1)
            ),
            ValueError,
            "optimizer: expected one that holds parameters of model, it holds none",
        ),
        (lambda: published.settings("Linear"), ValueError, "stack: expected one of .*'NAU, NMU'"),
        (lambda: published.settings("NACSigma"), ValueError, "one of .*'NAC, NACSigma'.*, got 'NA"),
        (lambda: published.setting("NAU,NMU", "a / b"), ValueError, "no setting of .* has 'a / b'"),
        (
            lambda: published.setting("NMU", "10", "x"),
            ValueError,
            "has '10' and 'x', .*have 'a · b",
        ),
        (lambda: published.setting("NMU", 2), TypeError, "stack, words: expected str, got int"),
        (lambda: Ramp(0, 10, math.nan), ValueError, "scale: expected a finite number.* got nan"),
        (lambda: Ramp(0, 10, -1), ValueError, "scale: expected .* at least 0, got -1"),
    ],
)
def test_words(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_an_output_may_be_changed_in_place(make: Factory) -> None:
    """All but a NACSigma's, which as a NAC in log space keeps it for the backward."""
    layer = make(5, 3)
    for training in (True, False):
        loss = layer.train(training)(torch.linspace(0.5, 1.5, 20).view(4, 5)).add_(1).sum()
        if isinstance(layer, NACSigma):
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()
        else:
            loss.backward()


def test_an_npu_on_positive_inputs_is_trained_as_a_real_npu() -> None:
    x = torch.linspace(0.5, 1.5, 8).view(4, 2)
    layer, real = NPU(2, 1), RealNPU(2, 1)
    real.load_state_dict({"W_re": layer.W_re, "g": layer.g})
    y = layer(x)
    y.square().sum().backward()
    assert torch.equal(layer.W_im.grad, torch.zeros(1, 2))
    torch.testing.assert_close(y, real(x))


def test_script_is_refused(make: Factory) -> None:
    with pytest.raises(RuntimeError, match=r"torch\.jit\.script cannot compile an? \w+"):
        torch.jit.script(make(5, 3))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_sparsity_error(make: Factory) -> None:
    layer = make(5, 3)
    assert 0 <= sparsity_error(layer) <= 0.75
    with torch.no_grad():
        for own, parameter in layer.named_parameters():
            parameter.fill_(100 if "hat" in own else 1)
    assert sparsity_error(layer) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        next(layer.parameters()).fill_(0.3)
    assert sparsity_error(layer) > 0.1


def test_sparsity_error_of_a_clamped_weight() -> None:
    layer = NAU(2, 1)
    with torch.no_grad():
        layer.W.fill_(1.4)
    assert sparsity_error(layer) == 0


def test_regularizer_of_a_model() -> None:
    layers = [NAU(4, 3), NMU(3, 2), NAC(2, 2), INALU(2, 2), RealNPU(2, 1)]
    model = nn.Sequential(*layers[:2], nn.ReLU(), nn.Sequential(*layers[2:]))
    total = nalu_kernels.regularizer(model)
    torch.testing.assert_close(total, torch.stack([each.regularizer() for each in layers]).sum())
    total.backward()
    assert layers[0].W.grad.any() and layers[2].W_hat.grad is None
    assert NALU(2, 1).regularizer() == 0


def test_the_terms_of_npus() -> None:
    """By the names, and with the meaning, that sweeps and published settings have."""
    plain, modified, before = RealNPU(3, 2), RealNPU(3, 2, modified=True), NAU(4, 3)
    assert plain.regularizer() == 0 and NPU(2, 1).regularizer() == 0
    both = modified.regularizer("weights") + modified.regularizer("gate")
    assert modified.regularizer() == nalu_kernels.regularizer(modified) == both > 0
    found = nalu_kernels.regularizer(nn.Sequential(before, plain), "l1")
    torch.testing.assert_close(found, plain.regularizer("l1") + before.W.abs().sum())
    untied = NALU(2, 1, tied=False)
    wanted = torch.stack([parameter.abs().sum() for parameter in untied.parameters()]).sum()
    torch.testing.assert_close(nalu_kernels.regularizer(untied, "l1"), wanted)


def test_ties_are_split_and_zero_has_no_slope() -> None:
    layer = NMU(3, 1).double()
    with torch.no_grad():
        layer.W.copy_(torch.tensor([[0.5, 0.0, 1.0]]))
    layer.regularizer().backward()
    assert layer.W.grad.tolist() == [[0.0, 0.0, 0.0]]
    with torch.no_grad():
        layer.W.copy_(torch.tensor([[0.25, 0.75, -0.5]]))
    layer.W.grad = None
    layer.regularizer().backward()
    torch.testing.assert_close(3 * layer.W.grad, torch.tensor([[1.0, -1.0, -1.0]]).double())


def test_input_regularizer_sees_all_calls_of_a_step(rng: Generator) -> None:
    made, nau, nmu = nn.Linear(3, 2), NAU(2, 2), NMU(2, 1)
    model = nn.Sequential(made, nau, nmu)
    first, second = inputs(rng, 6, 3), inputs(rng, 2, 5, 3)
    rows = torch.cat((first, second.reshape(-1, 3)))
    with nalu_kernels.input_regularizer(model) as watched:
        assert watched() == 0
        model(first)
        model(input=second)
        model.eval()(100 * first)
        found = watched()
        expected = nau.input_regularizer(made(rows)) + nmu.input_regularizer(nau(made(rows)))
        torch.testing.assert_close(found, expected)
        found.backward()
        assert made.weight.grad.any()
        for wrong, error in ((torch.rand(3, 4), ValueError), ("q", TypeError), (None, TypeError)):
            with pytest.raises(error, match="input: expected"):
                nau(wrong)
        assert watched() == 0
    model.train()(first)
    assert watched() == 0


@pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
def test_clamp_after_each_step(name: str, make: Factory, cell: bool, rng: Generator) -> None:
    layer = make(5, 3)
    model = nn.ModuleDict({"inner": nn.Sequential(layer)}) if cell else layer
    optimizer = torch.optim.Adam(model.parameters(), lr=10.0)
    handle = nalu_kernels.clamp_after_step(optimizer, model)

    def step() -> dict[str, tuple[float, float]]:
        optimizer.zero_grad()
        sum(parameter.sum() for parameter in model.parameters()).backward()
        optimizer.step()
        return {
            own: (parameter.min().item(), parameter.max().item())
            for own, parameter in layer.named_parameters()
        }

    bounds = BOUNDS.get(name, {})
    for own, (low, high) in step().items():
        least = bounds[own][0] if own in bounds else None
        assert (low, high) == (least, least) if own in bounds else low < -5
    handle.remove()
    assert all(low < -5 for low, _ in step().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nacs_of_weights_from_0_to_1_are_the_formula(dtype: torch.dtype, rng: Generator) -> None:
    x = inputs(rng, 4, 5).to(dtype).index_fill(1, torch.tensor(2), 0).requires_grad_()
    for layer in (NACSigma(5, 3, eps=1e-3, dtype=dtype), NACNMU(5, 3, eps=1e-3, dtype=dtype)):
        parameters = list(layer.parameters())
        found, expected = layer(x), torch.exp(torch.log(x.abs() + 1e-3) @ layer.W.T)
        torch.testing.assert_close(found, expected)
        grads = (torch.autograd.grad(y.sum(), [x, *parameters]) for y in (found, expected))
        torch.testing.assert_close(*grads)


def test_noise_of_a_batch_without_deviation_is_nan_as_the_page_says() -> None:
    layer, x = SNMU(2, 1, noise="batch"), torch.full((4, 2), 3.0)
    assert layer(x).isnan().all() and layer.eval()(x).isfinite().all()


def test_a_nac_nmu_is_told_of_its_input_and_its_w() -> None:
    layer = NACNMU(3, 2)
    for input, error, words in (
        ([1, 2, 3], TypeError, "input: expected a torch.Tensor, got list"),
        (torch.ones(3, dtype=torch.int64), TypeError, "input: expected a tensor of dtype"),
        (torch.ones(4), ValueError, r"input: .* of in_features = 3 \(W is \(2, 3\)\), got .*4"),
        (torch.ones(3, dtype=torch.float64), TypeError, "^W: expected the dtype of input"),
    ):
        with pytest.raises(error, match=words):
            layer(input)
    assert NACNMU(3, 0)(torch.ones(2, 3)).shape == (2, 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_hook_stays_out_of_saved_optimizers() -> None:
    model = NMU(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    nalu_kernels.clamp_after_step(optimizer, model)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    copy.deepcopy(optimizer)


def test_clamp_of_a_parametrized_weight() -> None:
    layer = NMU(2, 1)
    nn.utils.parametrize.register_parametrization(layer, "W", nn.Sigmoid())
    with pytest.raises(RuntimeError, match="NMU whose W is its own parameter"):
        layer.clamp_()
    assert layer.regularizer() > 0 and sparsity_error(layer) > 0


def test_ramp() -> None:
    ramp = Ramp(20_000, 35_000, scale=10.0)
    assert [ramp(step) for step in (0, 20_000, 27_500, 35_000, 10**7)] == [0, 0, 5, 10, 10]
    assert Ramp(0, 4)(1) == 0.25
    at_once = Ramp(100, 100, scale=0.05)
    assert [at_once(step) for step in (0, 99, 100, 101, 1e9)] == [0, 0, 0, 0.05, 0.05]


def test_stairs() -> None:
    stairs = Stairs(1e-9, 1e-7)
    assert [stairs(step) for step in (0, 9_999)] == [1e-9, 1e-9]
    assert stairs(10_000) == pytest.approx(1e-8)
    assert [stairs(step) for step in (20_000, 5_000_000)] == [1e-7, 1e-7]


def test_a_schedule_takes_a_step_that_is_a_float() -> None:
    assert Stairs(1e-9, 1e-7)(10_000.5) == pytest.approx(1e-8)
    assert Ramp(0, 4)(1.5) == 0.375 and Ramp(0, math.inf)(1) == 0


@pytest.mark.parametrize("row", published.SETTINGS, ids=lambda row: f"{row.layer}: {row.task}")
def test_published_settings_can_be_used(row: published.Setting) -> None:
    layers = [getattr(nalu_kernels, name)(2, 2) for name in row.layer.split(", ")]
    assert issubclass(getattr(torch.optim, row.optimizer), torch.optim.Optimizer)
    assert 0 < row.lr <= 1 and row.batch > 1 and "arXiv" in row.source
    for term, weight in row.regularizer.items():
        last = next(layers[-1].children(), layers[-1])
        if term == "inputs":
            assert last.input_regularizer(torch.ones(3, last.in_features)).isfinite()
        else:
            assert nalu_kernels.regularizer(nn.Sequential(*layers), term).isfinite()
        if isinstance(weight, Ramp) and row.steps is not None:
            assert 0 < weight.start < weight.stop <= row.steps
        if isinstance(weight, Stairs) and row.steps is not None:
            assert weight(row.steps) == weight.last


def test_published_settings_by_layer() -> None:
    assert {row.layer for row in published.settings("NMU")} == {"NMU"}
    for stack in ("NAU, NMU", "NAU,NMU"):
        (row,) = published.settings(stack)
        assert published.setting(stack) is row and row.layer == "NAU, NMU"
    assert len(published.settings("RealNPU", "modified")) == 2
    named = {name for row in published.SETTINGS for name in row.layer.split(", ")}
    assert {kind.__name__ for kind, _, _ in LAYERS.values()} <= named


def test_a_published_setting_as_columns_of_a_sweep() -> None:
    row = published.setting("RealNPU", "a / b", "2 inputs", "modified")
    ramp = {"regularizer": 1.0, "ramp_start": 40_000, "ramp_stop": 50_000}
    stairs = {"l1": 1e-9, "l1_last": 1e-7, "l1_every": 10_000}
    assert row.columns() == {"lr": 5e-3, **stairs, **ramp}
    sums = published.setting("NAU", "a ± b", "10 or 100")
    assert sums.steps == 100_000 and sums.columns()["ramp_stop"] == 75_000
    with pytest.raises(ValueError, match="no setting of 'NMU' has 'a / b'"):
        published.setting("NMU", "a / b")


@pytest.mark.parametrize(
    "terms",
    [
        {"l1": Stairs(1e-9, 1e-7, factor=2.0)},
        {"l1": Ramp(0, 10)},
        {"regularizer": Stairs(1e-9, 1e-7)},
        {"gate": 1.0},
        {"inputs": 1.0},
    ],
    ids=str,
)
def test_terms_that_a_sweep_has_no_columns_for(terms: dict[str, Any]) -> None:
    row = published.setting("NMU")._replace(regularizer=terms)
    with pytest.raises(ValueError, match=r"regularizer: expected of a sweep .* got '"):
        row.columns()
    cell = published.setting("NAUCell")
    with pytest.raises(ValueError, match=r"got 'inputs' with 1\.0"):
        cell.columns()


def test_an_inalus_columns_are_all_that_a_sweep_has_for_it() -> None:
    of_its_authors = published.setting("INALU", "64,000 samples").columns()
    assert of_its_authors == {
        **{"lr": 1e-3, "clip_value": 0.1},
        **{"saturation": 0.05, "saturation_start": 10_999, "saturation_below": 1},
        **{"weight_steps": 8, "gate_steps": 2, "restart_above": 1, "restart_after": 9_999},
    }
    ported = published.setting("INALU", "one layer, 2 inputs").columns()
    assert ported["clip_value"] == 0.1 and ported["regularizer_below"] == 1
    assert ported["ramp_start"] == ported["ramp_stop"] == 10_000
    task = sweep.Arithmetic("a * b", in_features=2)
    for columns in (of_its_authors, ported):
        runs = sweep.grid(seed=[0], **columns)
        assert sweep.run(INALU(2, 1), task, runs, steps=2).columns()


@pytest.mark.parametrize("row", published.settings("NMRU"), ids=lambda row: row.task)
def test_an_nmrus_columns_clip_its_gradients(row: published.Setting) -> None:
    assert row.columns()["clip_norm"] == 1 and "clip_norm 1" in published.table()


def test_the_modified_real_npus_note_says_how_its_gates_are_trained() -> None:
    for row in published.settings("RealNPU"):
        assert 'gate_gradient="clamped", eps=2⁻²³' in row.notes


@pytest.mark.parametrize("kind", [NAUCell, NMUCell, INALUCell, RealNPUCell])
def test_cells(kind: Any, rng: Generator) -> None:
    cell = kind(3, 2)
    x, h = inputs(rng, 4, 3), torch.ones(4, 2)
    layer = getattr(cell, kind._name)
    assert torch.equal(cell(x, h), layer(torch.cat((x, h), dim=1)))
    assert nalu_kernels.regularizer(cell) == layer.regularizer()
    assert cell(x).shape == (4, 2)


def test_a_product_over_time_is_kept() -> None:
    cell = NMUCell(1, 1)
    with torch.no_grad():
        cell.nmu.W.fill_(1)
    state = torch.ones(1, 1)
    for factor in (2.0, -3.0, 7.0):
        state = cell(torch.tensor([[factor]]), state)
    assert state.item() == -42
