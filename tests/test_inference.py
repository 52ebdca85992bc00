"""W, kept between calls in eval() without gradients: the same bits, and every change noticed."""

from __future__ import annotations

import copy
import gc
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import nalu_kernels
from conftest import Backend
from nalu_kernels import NAC, NALU, inference

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "nac": lambda **given: NAC(7, 5, **given),
    "nac_log_space": lambda **given: NAC(7, 5, log_space=True, **given),
    "nalu": lambda **given: NALU(7, 5, **given),
    "nalu_untied": lambda **given: NALU(7, 5, tied=False, gate_bias=True, **given),
    "nalu_sample": lambda **given: NALU(7, 5, gate="sample", **given),
    "nalu_large": lambda **given: NALU(130, 100, tied=False, **given),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> nn.Module:
    return LAYERS[request.param]().eval()


@pytest.fixture
def x(layer: Any, rng: Generator) -> Tensor:
    return torch.randn(6, layer.in_features, generator=rng)


def usual(layer: Any, x: Tensor) -> Tensor:
    """What the layer returns with W made on the way."""
    training = copy.deepcopy(layer).train()
    with torch.no_grad():
        return training(x)


def kept(layer: nn.Module) -> list[Tensor]:
    return [entry.W for entry in inference._kept.get(layer, {}).values()]


@torch.no_grad()
def test_same_bits(layer: nn.Module, x: Tensor) -> None:
    for dtype in (torch.float32, torch.float64):
        layer, given = layer.to(dtype), x.to(dtype)
        expected = usual(layer, given)
        for _ in range(3):
            assert torch.equal(layer(given), expected)
        assert kept(layer)
    inputs = (given[:0], given.reshape(2, 3, -1), given.T.contiguous().T, given[0].expand(4, -1))
    for other in inputs:
        assert torch.equal(layer(other), usual(layer, other))


@torch.no_grad()
def test_w_is_made_once(layer: nn.Module, x: Tensor) -> None:
    layer(x)
    first = kept(layer)
    layer(x + 1)
    assert first and all(a is b for a, b in zip(first, kept(layer), strict=True))


def _assign(layer: Any) -> None:
    state = {name: tensor + 0.5 for name, tensor in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)


def _step(layer: Any, **options: Any) -> None:
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam(layer.parameters(), 0.1, **options).step()


def _hidden_step(layer: Any) -> None:
    """A fused kernel of somebody's own, after a backward: nothing counts what it changes."""
    with torch.enable_grad():
        layer(torch.ones(1, layer.in_features)).sum().backward()
    layer.W_hat.data.add_(0.5)


def _replace_twice(layer: Any) -> None:
    """So that the second may get the address of the first."""
    for _ in range(2):
        layer.W_hat.data = torch.randn_like(layer.W_hat)
        gc.collect()


CHANGES: dict[str, Callable[[Any], object]] = {
    "in place": lambda layer: layer.W_hat.add_(0.5),
    "M_hat in place": lambda layer: layer.M_hat.mul_(2),
    "a view in place": lambda layer: layer.W_hat[0].zero_(),
    "detached": lambda layer: layer.W_hat.detach().fill_(0.1),
    "load_state_dict": lambda layer: layer.load_state_dict(
        {name: tensor + 0.5 for name, tensor in layer.state_dict().items()}
    ),
    "load_state_dict, assigned": _assign,
    "state_dict in place": lambda layer: layer.state_dict()["W_hat"].add_(1),
    "another parameter": lambda layer: setattr(
        layer, "W_hat", nn.Parameter(torch.randn_like(layer.W_hat))
    ),
    ".data replaced": lambda layer: setattr(layer.W_hat, "data", torch.randn_like(layer.W_hat)),
    ".data replaced twice": _replace_twice,
    "reset_parameters": lambda layer: layer.reset_parameters(),
    "Adam": _step,
    "fused Adam": lambda layer: _step(layer, fused=True),
    "uncounted, after a backward": _hidden_step,
    "foreach Adam": lambda layer: _step(layer, foreach=True),
    ".data in place, then eval()": lambda layer: (layer.W_hat.data.add_(0.5), layer.eval()),
    "vector_to_parameters": lambda layer: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(layer.parameters()) + 0.5, layer.parameters()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_changes_are_noticed(layer: nn.Module, x: Tensor, change: str) -> None:
    before = layer(x)
    CHANGES[change](layer)
    found = layer(x)
    assert torch.equal(found, usual(layer, x))
    assert not torch.equal(found, before)


@torch.no_grad()
def test_the_products_own_weights_are_watched_too(rng: Generator) -> None:
    layer, x = NALU(4, 3, tied=False).eval(), torch.randn(5, 4, generator=rng)
    for name in ("W_hat_mul", "M_hat_mul", "G"):
        before = layer(x)
        getattr(layer, name).add_(0.5)
        assert torch.equal(layer(x), usual(layer, x))
        assert not torch.equal(layer(x), before)


def test_only_in_eval_and_without_gradients(layer: nn.Module, x: Tensor) -> None:
    layer(x).sum().backward()
    assert layer.W_hat.grad is not None
    assert not kept(layer)
    with torch.no_grad():
        layer.train()(x)
        assert not kept(layer)
        layer.eval()(x)
        assert kept(layer)
        layer.train()
        assert not kept(layer)


@torch.inference_mode()
def test_inference_mode(layer: nn.Module, x: Tensor) -> None:
    assert torch.equal(layer(x), usual(layer, x))
    assert kept(layer)
    layer.W_hat.add_(0.5)
    assert torch.equal(layer(x), usual(layer, x))


@torch.no_grad()
def test_inference_tensors_as_parameters(rng: Generator) -> None:
    """They count no versions, so nothing is kept."""
    with torch.inference_mode():
        layer = NALU(4, 3).eval()
        x = torch.randn(5, 4, generator=rng)
        for _ in range(2):
            assert torch.equal(layer(x), nalu_kernels.nalu(x, layer.W_hat, layer.M_hat, layer.G))
            layer.W_hat.add_(1)
    assert not kept(layer)


@torch.no_grad()
def test_shared_memory_is_not_trusted(rng: Generator) -> None:
    layer, x = NALU(4, 3).share_memory().eval(), torch.randn(5, 4, generator=rng)
    assert torch.equal(layer(x), usual(layer, x))
    assert not kept(layer)


@torch.no_grad()
def test_copies_and_pickles_know_nothing_of_it(layer: nn.Module, x: Tensor) -> None:
    expected = layer(x)
    file = io.BytesIO()
    torch.save(layer, file)
    size = len(file.getvalue())
    file.seek(0)
    twins = [copy.deepcopy(layer), torch.load(file, weights_only=False)]
    for twin in twins:
        assert not kept(twin)
        assert torch.equal(twin(x), expected)
        twin.W_hat.zero_()
    assert torch.equal(layer(x), expected)
    file = io.BytesIO()
    torch.save(copy.deepcopy(layer).train(), file)
    assert len(file.getvalue()) == size


def test_it_ends_with_the_layer(rng: Generator) -> None:
    with torch.no_grad():
        layer = NALU(4, 3).eval()
        layer(torch.randn(5, 4, generator=rng))
    gc.collect()  # of other tests
    before = len(inference._kept)
    del layer
    gc.collect()
    assert len(inference._kept) == before - 1


@torch.no_grad()
def test_parametrized_and_swapped_parameters(rng: Generator) -> None:
    class Double(nn.Module):
        factor = 2.0

        def forward(self, tensor: Tensor) -> Tensor:
            return self.factor * tensor

    x = torch.randn(5, 4, generator=rng)
    layer = NAC(4, 3).eval()
    layer(x)
    nn.utils.parametrize.register_parametrization(layer, "W_hat", Double())
    for factor in (2.0, 3.0):
        layer.parametrizations.W_hat[0].factor = factor
        assert torch.equal(layer(x), nalu_kernels.nac(x, layer.W_hat, layer.M_hat))
    other = NAC(4, 3).eval()
    first = other(x)
    swapped = {name: tensor + 1 for name, tensor in other.state_dict().items()}
    assert not torch.equal(torch.func.functional_call(other, swapped, (x,)), first)
    assert torch.equal(other(x), first)


@torch.no_grad()
def test_every_back_end_gives_its_own_answer(backend: Backend, rng: Generator) -> None:
    layer = NALU(7, 5).to(backend.device).eval()
    x = torch.randn(6, 7, generator=rng).to(backend.device)
    expected = nalu_kernels.nalu(x, layer.W_hat, layer.M_hat, layer.G)
    assert torch.equal(layer(x), expected)
    assert bool(kept(layer)) == (backend.name == "cpu")


@torch.no_grad()
def test_autocast_and_half_precision_go_the_usual_way(rng: Generator) -> None:
    layer, x = NALU(7, 5).eval(), torch.randn(6, 7, generator=rng)
    with torch.autocast("cpu"):
        assert layer(x).dtype == torch.bfloat16
    assert torch.equal(layer.bfloat16()(x.bfloat16()), usual(layer, x.bfloat16()))
    assert not kept(layer)


@torch.no_grad()
def test_wrong_inputs_are_named() -> None:
    layer = NALU(4, 3).eval()
    layer(torch.ones(2, 4))
    with pytest.raises(ValueError, match="input: expected a last dimension of in_features = 4"):
        layer(torch.ones(2, 5))
    with pytest.raises(TypeError, match="W_hat: expected the dtype of input"):
        layer(torch.ones(2, 4).double())
    with pytest.raises(TypeError, match=r"input: expected a torch\.Tensor, got list"):
        layer([1.0])
    layer.eps = True
    with pytest.raises(TypeError, match="eps"):
        layer(torch.ones(2, 4))


@torch.no_grad()
def test_threads(rng: Generator) -> None:
    layer, x = NALU(64, 64).eval(), torch.randn(3, 64, generator=rng)
    expected, found = layer(x), []
    layer.eval()
    threads = [
        threading.Thread(target=lambda: found.extend(layer(x) for _ in range(50))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200
    assert all(torch.equal(output, expected) for output in found)


def test_without_the_compiled_kernels(tmp_path: Path) -> None:
    """There is nothing to keep, and the layers work: trained, evaluated and compiled."""
    package = Path(nalu_kernels.__file__).parent
    shutil.copytree(
        package, tmp_path / package.name, ignore=shutil.ignore_patterns("_cpu*", "_cuda*", "__pyc*")
    )
    code = (
        "import torch, nalu_kernels\n"
        "layer, x = nalu_kernels.NALU(3, 2), torch.rand(4, 3)\n"
        "layer(x).sum().backward()\n"
        "layer.eval()\n"
        "with torch.no_grad():\n"
        "    assert torch.equal(layer(x), layer(x))\n"
        "torch.compile(layer, backend='eager', fullgraph=True)(x)\n"
        "print(nalu_kernels.which_backend(x)[0])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", code]
    printed = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert printed.strip() == "reference"
