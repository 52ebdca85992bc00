"""NAC and NALU have torch.nn.Linear's habits, and start from the right distributions."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nalu_kernels
from conftest import Backend
from nalu_kernels import NAC, NALU, nac, nalu
from nalu_kernels.layers.initialize import init_range
from selection import pairs

pytestmark = pairs

Factory = Callable[..., nn.Module]
OPTIONS: dict[str, tuple[type[nn.Module], dict[str, object]]] = {
    "NAC": (NAC, {}),
    "NAC-log_space": (NAC, {"log_space": True, "eps": 1e-3}),
    "NALU": (NALU, {}),
    "NALU-untied": (NALU, {"tied": False}),
    "NALU-sample": (NALU, {"gate": "sample"}),
    "NALU-all": (NALU, {"eps": 1e-3, "tied": False, "gate": "sample", "gate_bias": True}),
}


@pytest.fixture(params=OPTIONS)
def make(request: pytest.FixtureRequest) -> Factory:
    kind, options = OPTIONS[request.param]
    return lambda *args, **more: kind(*args, **options, **more)


def test_positional_sizes(make: Factory) -> None:
    layer = make(5, 3)
    assert (layer.in_features, layer.out_features) == (5, 3)
    assert layer.W_hat.shape == layer.M_hat.shape == (3, 5)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (NAC(5, 3), {"W_hat": (3, 5), "M_hat": (3, 5)}),
        (NALU(5, 3), {"W_hat": (3, 5), "M_hat": (3, 5), "G": (3, 5)}),
        (
            NALU(5, 3, tied=False, gate="sample", gate_bias=True),
            {
                "W_hat": (3, 5),
                "M_hat": (3, 5),
                "G": (1, 5),
                "gate_bias": (1,),
                "W_hat_mul": (3, 5),
                "M_hat_mul": (3, 5),
            },
        ),
        (
            NALU(5, 3, gate_bias=True),
            {"W_hat": (3, 5), "M_hat": (3, 5), "G": (3, 5), "gate_bias": (3,)},
        ),
    ],
    ids=repr,
)
def test_parameters(layer: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == shapes
    assert list(layer.state_dict()) == list(shapes)
    assert all(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,), (2, 0, 3)], ids=str)
def test_leading_dimensions(make: Factory, leading: tuple[int, ...], backend: Backend) -> None:
    layer = make(5, 3, device=backend.device)
    x = torch.randn(*leading, 5, device=backend.device)
    y = layer(x)
    assert y.shape == (*leading, 3)
    torch.testing.assert_close(y.reshape(-1, 3), layer(x.reshape(-1, 5)))


def test_forward_is_the_function(backend: Backend) -> None:
    x = torch.randn(4, 5, device=backend.device)
    for log_space in (False, True):
        layer = NAC(5, 3, log_space=log_space, eps=1e-3, device=backend.device)
        expected = nac(x, layer.W_hat, layer.M_hat, log_space=log_space, eps=1e-3)
        assert torch.equal(layer(x), expected)
    layer = NALU(5, 3, eps=1e-3, tied=False, gate_bias=True, device=backend.device)
    tensors = {**dict(layer.named_parameters()), "input": x}
    assert torch.equal(layer(x), nalu(**tensors, eps=1e-3))


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_no_features(make: Factory, size: tuple[int, int], backend: Backend) -> None:
    layer = make(*size, device=backend.device)
    layer(torch.ones(2, size[0], device=backend.device)).sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad.shape == parameter.shape


def test_a_small_step_downhill_lowers_the_loss(make: Factory, backend: Backend) -> None:
    layer = make(5, 3, device=backend.device)
    x, target = torch.rand(64, 5, device=backend.device), torch.rand(64, 3, device=backend.device)

    def loss() -> Tensor:
        return (layer(x) - target).square().mean()

    before = loss()
    before.backward()
    torch.optim.SGD(layer.parameters(), lr=1e-3).step()
    assert loss() < before


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_dtype(make: Factory, dtype: torch.dtype, backend: Backend) -> None:
    x = torch.randn(4, 5, dtype=dtype, device=backend.device)
    made, moved = make(5, 3, dtype=dtype, device=backend.device), make(5, 3).to(x)
    for layer in (made, moved):
        assert all(p.dtype == dtype and p.device == x.device for p in layer.parameters())
        y = layer(x)
        assert y.dtype == dtype
        y.sum().backward()
        assert all(parameter.grad.dtype == dtype for parameter in layer.parameters())


def test_default_dtype_and_device(make: Factory) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            layer = make(5, 3)
    finally:
        torch.set_default_dtype(before)
    assert all(p.dtype == torch.float64 and p.is_meta for p in layer.parameters())


def test_meta_device(make: Factory) -> None:
    layer = make(5, 3, device="meta")
    assert layer(torch.ones(2, 4, 5, device="meta")).shape == (2, 4, 3)
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert all(parameter.isfinite().all() for parameter in layer.parameters())


def same_function(one: nn.Module, other: nn.Module) -> bool:
    x = torch.randn(4, 5)
    return torch.equal(one(x), other(x)) and repr(one) == repr(other)


def test_state_dict(make: Factory) -> None:
    layer, other = make(5, 3), make(5, 3)
    assert not same_function(layer, other)
    other.load_state_dict(layer.state_dict())
    assert same_function(layer, other)
    with pytest.raises(RuntimeError, match="size mismatch"):
        make(6, 3).load_state_dict(layer.state_dict())


def test_saved_and_loaded(make: Factory) -> None:
    layer, file = make(5, 3), io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = make(5, 3)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same_function(layer, other)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["copy", "pickle"],
)
def test_copies(make: Factory, copied: Callable[[nn.Module], nn.Module]) -> None:
    layer = make(5, 3)
    other = copied(layer)
    assert type(other) is type(layer) and same_function(layer, other)
    with torch.no_grad():
        other.W_hat.add_(1)
    assert not same_function(layer, other)


def test_reset_parameters(make: Factory) -> None:
    layer = make(5, 3)
    before = [parameter.clone() for parameter in layer.parameters()]
    layer.reset_parameters()
    for (name, parameter), old in zip(layer.named_parameters(), before, strict=True):
        assert torch.equal(parameter, old) == (name == "gate_bias")


def test_parametrization(make: Factory) -> None:
    class Rounded(nn.Module):
        def forward(self, W_hat: Tensor) -> Tensor:
            return W_hat + (W_hat.round() - W_hat).detach()

    layer, plain = make(5, 3), make(5, 3)
    plain.load_state_dict(layer.state_dict())
    nn.utils.parametrize.register_parametrization(layer, "W_hat", Rounded())
    with torch.no_grad():
        plain.W_hat.round_()
    x = torch.randn(4, 5)
    for each in (layer, plain):
        each(x).sum().backward()
    assert torch.equal(layer(x), plain(x))
    assert torch.equal(layer.parametrizations.W_hat.original.grad, plain.W_hat.grad)


def test_frozen_parameters(make: Factory, backend: Backend) -> None:
    layer = make(5, 3, device=backend.device).requires_grad_(False)
    x = torch.randn(4, 5, device=backend.device)
    assert not layer(x).requires_grad
    layer.M_hat.requires_grad_()
    layer(x).sum().backward()
    assert layer.M_hat.grad is not None and layer.W_hat.grad is None


def test_hooks_and_sequential(make: Factory) -> None:
    seen: list[Tensor] = []
    model = nn.Sequential(make(5, 3), nn.Linear(3, 2))
    model[0].register_forward_hook(lambda layer, args, output: seen.append(output))
    y = model(torch.randn(4, 5))
    assert y.shape == (4, 2) and torch.equal(model[1](seen[0]), y)


def test_functional_call(make: Factory) -> None:
    layer = make(5, 3)
    x = torch.randn(4, 5)
    zeros = {name: torch.zeros_like(p) for name, p in layer.named_parameters()}
    found = torch.func.functional_call(layer, zeros, x)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    assert torch.equal(found, layer(x))


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (NAC(5, 3), "NAC(in_features=5, out_features=3)"),
        (
            NAC(5, 3, log_space=True),
            "NAC(in_features=5, out_features=3, log_space=True, eps=1e-07)",
        ),
        (NALU(5, 3), "NALU(in_features=5, out_features=3, eps=1e-07)"),
        (
            NALU(5, 3, eps=0.001, tied=False, gate="sample", gate_bias=True),
            "NALU(in_features=5, out_features=3, eps=0.001, tied=False, gate='sample', "
            "gate_bias=True)",
        ),
    ],
    ids=repr,
)
def test_repr(layer: nn.Module, text: str) -> None:
    assert repr(layer) == text


@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (3, 3), (100, 100), (512, 1024)], ids=str)
def test_init_range_gives_the_variance(sizes: tuple[int, int]) -> None:
    """Var(tanh(w) sigmoid(m)) for w, m uniform on (-r, r), by Gauss-Legendre quadrature; the mean
    is 0 because tanh is odd."""
    r = init_range(*sizes)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    mean_square_tanh = np.sum(weights * np.tanh(r * nodes) ** 2) / 2
    mean_square_sigmoid = np.sum(weights / (1 + np.exp(-r * nodes)) ** 2) / 2
    found = mean_square_tanh * mean_square_sigmoid
    assert found == pytest.approx(2 / max(sum(sizes), 5), rel=1e-6)


@pytest.mark.parametrize("sizes", [(1, 1), (100, 200), (300, 300)], ids=str)
def test_initial_weights_are_uniform(sizes: tuple[int, int]) -> None:
    r = init_range(*sizes)
    layers = [
        NALU(*sizes, tied=False, gate_bias=True) for _ in range(9_000 // math.prod(sizes) + 1)
    ]
    for name in ("W_hat", "M_hat", "W_hat_mul", "M_hat_mul"):
        values = torch.cat([getattr(layer, name).detach().flatten() for layer in layers]) / r
        check_uniform(values)
    xavier = math.sqrt(6 / sum(sizes))
    check_uniform(torch.cat([layer.G.detach().flatten() for layer in layers]) / xavier)
    assert not any(layer.gate_bias.any() for layer in layers)


def check_uniform(values: Tensor) -> None:
    """On (-1, 1): within it, up to its ends, and as often in each tenth (6 standard deviations)."""
    assert values.abs().max() <= 1 and values.abs().max() > 0.99
    expected = len(values) / 10
    counts = torch.histc(values, 10, -1, 1)
    assert (counts - expected).abs().max() < 6 * math.sqrt(expected * 0.9)


def test_initial_weights_differ() -> None:
    layer = NALU(5, 3, tied=False)
    drawn = [layer.W_hat, layer.M_hat, layer.G, layer.W_hat_mul, layer.M_hat_mul]
    assert len({tuple(parameter.flatten().tolist()) for parameter in drawn}) == 5


def test_gate_of_one_sample_has_xavier_of_its_own_shape() -> None:
    G = torch.cat([NALU(99, 7, gate="sample").G.detach().flatten() for _ in range(300)])
    check_uniform(G / math.sqrt(6 / 100))


def test_public_names() -> None:
    for name in nalu_kernels.__all__:
        assert hasattr(nalu_kernels, name)
