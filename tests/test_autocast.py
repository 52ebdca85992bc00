"""Under autocast: the dtype of a Linear, the accuracy of float32, and parameters that stay as they
are."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import NAC, NALU
from selection import pairs

pytestmark = pairs

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_half = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)


def autocast(device: str, half: torch.dtype) -> torch.autocast:
    return torch.autocast(device, half)


@pytest.fixture
def layer(kind: Kind, backend: Backend, rng: Generator) -> Layer:
    return draw(rng, kind, (5, 4, 3), device=backend.device)


@by_kind
@by_half
def test_computed_in_float32_and_rounded_once(
    layer: Layer, backend: Backend, half: torch.dtype
) -> None:
    """The output is that without autocast, rounded; so are the gradients' inputs."""
    narrow = layer.grad_output.to(half)
    expected = outcome(nalu_kernels, layer.with_(grad_output=narrow.float()))
    leaves = layer.map(lambda tensor: tensor.requires_grad_()).tensors
    with autocast(backend.device, half):
        output = layer.call(nalu_kernels)
    assert output.dtype == half
    assert torch.equal(output, expected.pop("output").to(half))
    found = torch.autograd.grad(output, list(leaves.values()), narrow)
    for name, gradient in zip(leaves, found, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=0, equal_nan=True)


@by_half
def test_dtypes_are_those_of_linear(backend: Backend, half: torch.dtype) -> None:
    layers = [NALU(4, 3), NAC(4, 3), NAC(4, 3, log_space=True)]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.ones(2, 4, dtype=dtype, device=backend.device, requires_grad=True)
        linear = nn.Linear(4, 3, device=backend.device)
        with autocast(backend.device, half):
            expected = linear(x)
            for layer in layers:
                found = layer.to(backend.device)(x)
                assert found.dtype == expected.dtype == half
                (gradient,) = torch.autograd.grad(found.sum(), x)
                assert gradient.dtype == dtype
    wide = NALU(4, 3, dtype=torch.float64, device=backend.device)
    with autocast(backend.device, half):
        assert wide(torch.ones(2, 4).to(wide.G)).dtype == torch.float64


@by_half
def test_half_precision_parameters(backend: Backend, half: torch.dtype) -> None:
    """They are widened too, and get gradients of their own dtype."""
    layer = NALU(4, 3, dtype=half, device=backend.device)
    with autocast(backend.device, half):
        layer(torch.ones(2, 4, device=backend.device)).sum().backward()
    assert layer.W_hat.grad is not None and layer.W_hat.grad.dtype == half


def test_a_product_of_six_keeps_its_accuracy(backend: Backend, rng: Generator) -> None:
    """Plain formulas under autocast are off by several percent; a bfloat16 ends after 0.4."""
    x = torch.rand(200, 6, generator=rng, dtype=torch.float64) * 9 + 1
    layer = NAC(6, 1, log_space=True)
    with torch.no_grad():
        layer.W_hat.fill_(20)
        layer.M_hat.fill_(20)
    exact = x.prod(1, keepdim=True)
    layer, given = layer.to(backend.device), x.float().to(backend.device)
    with autocast(backend.device, torch.bfloat16):
        found = layer(given).double().cpu()
        weight = torch.tanh(layer.W_hat) * torch.sigmoid(layer.M_hat)
        plain = nn.functional.linear((given + layer.eps).log(), weight).exp().double().cpu()
    assert ((found - exact) / exact).abs().max() < 2**-8 + 1e-5
    assert ((plain - exact) / exact).abs().max() > 0.02


def test_inside_a_model(backend: Backend, rng: Generator) -> None:
    """Linear gives bfloat16, NALU takes it; compiled and not, and in one graph."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), NALU(4, 3), nn.Linear(3, 2)).to(backend.device)
    x = torch.rand(6, 5, generator=rng).to(backend.device)

    def gradients(call: nn.Module) -> list[Tensor]:
        model.zero_grad()
        with autocast(backend.device, torch.bfloat16):
            output = call(x)
        assert output.dtype == torch.bfloat16
        output.float().square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients(model)
    assert all(grad.dtype == torch.float32 for grad in expected)
    found = gradients(torch.compile(model, backend="aot_eager", fullgraph=True))
    for gradient, wanted in zip(found, expected, strict=True):
        assert (gradient - wanted).norm() <= 0.1 * wanted.norm()  # bfloat16 between


def test_transforms_and_reference_have_the_same_policy(backend: Backend, rng: Generator) -> None:
    layer = NALU(4, 3, device=backend.device)
    x = torch.rand(5, 4, generator=rng).to(backend.device)
    with autocast(backend.device, torch.bfloat16):
        plain = layer(x)
        mapped = torch.func.vmap(layer)(x)
        with nalu_kernels.use_backend("reference"):
            reference = layer(x)
    for other in (mapped, reference):
        assert other.dtype == torch.bfloat16
        torch.testing.assert_close(other, plain)


@pytest.mark.filterwarnings("ignore:CUDA is not available or torch_xla")
def test_of_another_device_changes_nothing(backend: Backend) -> None:
    other = "cuda" if backend.device == "cpu" else "cpu"
    x = torch.ones(2, 4, device=backend.device)
    with torch.autocast(other, torch.bfloat16):
        assert NALU(4, 3, device=backend.device)(x).dtype == torch.float32


def test_devices_without_autocast() -> None:
    with torch.autocast("cpu"):
        assert NALU(4, 3, device="meta")(torch.ones(2, 4, device="meta")).dtype == torch.float32


def test_wrong_arguments_are_named(backend: Backend) -> None:
    layer = NALU(4, 3, device=backend.device)
    x = torch.ones(2, 4, device=backend.device)
    with torch.autocast(backend.device, torch.bfloat16):
        with pytest.raises(TypeError, match=r"W_hat: expected the dtype of input, torch\.float64"):
            layer(x.double())
        with pytest.raises(TypeError, match="input: expected a tensor of dtype"):
            layer(x.int())
        with pytest.raises(TypeError, match=r"input: expected a torch\.Tensor, got list"):
            layer([1.0])
        with pytest.raises(TypeError, match=r"M_hat: expected a torch\.Tensor, got NoneType"):
            nalu_kernels.nac(x, layer.W_hat, None)


@pytest.mark.parametrize("kind", [BY_NAME["nac"], FULLEST], ids=lambda kind: kind.name)
def test_grad_scaler(layer: Layer, backend: Backend) -> None:
    """Scaled losses come out unscaled; an overflow is found, and its step skipped."""
    parameter = layer.tensors["W_hat"].clone().requires_grad_()
    optimizer = torch.optim.SGD([parameter], 0.1)
    scaler = torch.amp.GradScaler(backend.device, init_scale=2.0**4)

    def step(factor: float) -> None:
        optimizer.zero_grad()
        with autocast(backend.device, torch.float16):
            loss = (layer.call(nalu_kernels, W_hat=parameter) * factor).float().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    leaf = parameter.detach().clone().requires_grad_()
    layer.call(nalu_kernels, W_hat=leaf).mean().backward()
    expected = leaf.detach() - 0.1 * leaf.grad
    step(1.0)
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-2, atol=1e-3)
    before = parameter.detach().clone()
    step(1e6)
    assert torch.equal(parameter, before)
    assert scaler.get_scale() < 2.0**4
