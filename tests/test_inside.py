"""What a layer shows of itself: W, W_mul, its gate, and how far its weights are from whole ones."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, nn
from torch.nn.utils import parametrize

import nalu_kernels
from conftest import Backend
from nalu_kernels import NAC, NALU, NACCell, NALUCell, reference, sparsity_error

OPTIONS = [{}, {"tied": False}, {"gate": "sample"}, {"gate_bias": True, "tied": False}]


def nalu(rng: Generator, dtype: torch.dtype = torch.float32, **options: object) -> NALU:
    layer = NALU(5, 3, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(2 * torch.randn(parameter.shape, generator=rng))
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_layer_is_what_it_shows(options: dict, dtype: torch.dtype, rng: Generator) -> None:
    """y of W, W_mul and the gate is the layer's, up to their rounding."""
    layer = nalu(rng, dtype, **options)
    x = (torch.rand(7, 5, generator=rng) + 0.5).to(dtype)
    W, W_mul, g = layer.W.double(), layer.W_mul.double(), layer.gate(x).double()
    assert layer.W.dtype == layer.W_mul.dtype == layer.gate(x).dtype == dtype
    assert g.shape == (7, 1 if options.get("gate") == "sample" else 3)
    a = x.double() @ W.T
    m = torch.exp(torch.log(x.double() + layer.eps) @ W_mul.T)
    rounding = 20 * torch.finfo(dtype).eps
    expected = g * a + (1 - g) * m
    torch.testing.assert_close(layer(x).double(), expected, rtol=rounding, atol=10 * rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(dtype: torch.dtype, rng: Generator) -> None:
    layer = nalu(rng, dtype, gate_bias=True)
    wide = {name: p.detach().float() for name, p in layer.named_parameters()}
    x = torch.randn(7, 5, generator=rng).to(dtype)
    assert torch.equal(layer.W, reference.weight(wide["W_hat"], wide["M_hat"]).to(dtype))
    g = reference.gate(x.float(), wide["G"], wide["gate_bias"])
    assert torch.equal(layer.gate(x), g.to(dtype))


def test_a_linear_nac_is_its_W(backend: Backend, rng: Generator) -> None:
    layer = NAC(5, 3, device=backend.device)
    torch.testing.assert_close(layer(torch.eye(5, device=backend.device)).T, layer.W)


def test_tied_weights_are_one() -> None:
    layer = NALU(2, 2)
    assert torch.equal(layer.W, layer.W_mul)
    assert not torch.equal(*(getattr(NALU(2, 2, tied=False), name) for name in ("W", "W_mul")))


def test_what_is_shown_follows_the_parameters() -> None:
    for layer in (NAC(2, 1), NALU(2, 1).eval(), NACCell(1, 1).nac, NALUCell(1, 1).nalu):
        with torch.no_grad():
            before = layer.W
            layer.W_hat.data.add_(1)
            assert not torch.equal(layer.W, before)


def test_it_is_differentiable() -> None:
    layer = NALU(3, 2, tied=False, gate_bias=True)
    (layer.W.sum() + layer.W_mul.sum() + layer.gate(torch.ones(4, 3)).sum()).backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("name", ["W", "W_mul"])
def test_it_is_read_only(name: str) -> None:
    layer = NALU(2, 1)
    with pytest.raises(AttributeError):
        setattr(layer, name, torch.zeros(1, 2))
    with pytest.raises(KeyError, match=f"attribute '{name}' already exists"):
        setattr(layer, name, nn.Parameter(torch.zeros(1, 2)))
    assert name not in layer.state_dict()


class Whole(nn.Module):
    def forward(self, W_hat: torch.Tensor) -> torch.Tensor:
        return 20 * W_hat.sign()


def test_parametrizations_are_seen(rng: Generator) -> None:
    layer = nalu(rng)
    parametrize.register_parametrization(layer, "W_hat", Whole())
    parametrize.register_parametrization(layer, "G", Whole())
    assert torch.equal(layer.W.abs(), torch.sigmoid(layer.M_hat))
    x = torch.ones(1, 5)
    assert torch.equal(layer.gate(x), reference.gate(x, layer.G))
    assert torch.isin(layer.G, torch.tensor([-20.0, 20.0])).all()


def test_the_gate_under_autocast_has_the_outputs_dtype(rng: Generator) -> None:
    layer, x = nalu(rng), torch.randn(7, 5, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        found, output = layer.gate(x), layer(x)
        of_half = layer.gate(x.bfloat16())
    assert found.dtype == of_half.dtype == output.dtype == torch.bfloat16
    assert torch.equal(found, layer.gate(x).bfloat16())


@pytest.mark.parametrize(
    ("input", "error", "words"),
    [
        ([1.0], TypeError, "input: expected a torch.Tensor, got list"),
        (torch.ones(2, 4), ValueError, "input: expected a last dimension of in_features = 5"),
        (torch.ones(2, 5, dtype=torch.int64), TypeError, "input: expected a tensor of dtype"),
        (torch.ones(2, 5).double(), TypeError, "W_hat: expected the dtype of input"),
    ],
    ids=["list", "features", "integers", "dtype"],
)
def test_the_gate_refuses_what_the_layer_refuses(
    input: object, error: type[Exception], words: str
) -> None:
    layer = NALU(5, 3)
    for call in (layer, layer.gate):
        with pytest.raises(error, match=words):
            call(input)


def set_weight(layer: NAC | NALU, W: float, suffix: str = "") -> None:
    with torch.no_grad():
        getattr(layer, "W_hat" + suffix).fill_(torch.atanh(torch.tensor(W)))
        getattr(layer, "M_hat" + suffix).fill_(100)


def test_sparsity_error_is_the_largest_distance() -> None:
    first, second = NAC(3, 2), NALU(2, 1, tied=False)
    model = nn.ModuleDict({"a": first, "b": nn.Sequential(nn.Linear(2, 2), second)})
    for layer in (first, second):
        set_weight(layer, 1.0)
    set_weight(second, 0.0, "_mul")
    assert sparsity_error(model) == 0
    set_weight(second, -0.9, "_mul")
    assert sparsity_error(model) == pytest.approx(0.1, abs=1e-6)
    with torch.no_grad():
        first.W_hat[1, 2] = torch.atanh(torch.tensor(0.4))
    assert sparsity_error(model) == pytest.approx(0.4, abs=1e-6)
    with torch.no_grad():
        first.W_hat[0, 0] = torch.nan
    assert sparsity_error(model) != sparsity_error(model)  # NaN


def test_sparsity_error_of_cells_and_of_single_layers() -> None:
    cell = NALUCell(2, 3)
    assert sparsity_error(cell) == sparsity_error(cell.nalu)
    size = cell.nalu.W.abs()
    assert sparsity_error(cell) == torch.minimum(size, 1 - size).max().item()


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(), NAC(0, 3)], ids=str)
def test_sparsity_error_needs_weights(model: nn.Module) -> None:
    with pytest.raises(
        ValueError, match="model: expected a layer of this library with weights in it"
    ):
        sparsity_error(model)


def test_sparsity_error_refuses_what_is_no_module() -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got Tensor"):
        nalu_kernels.sparsity_error(torch.ones(2))
