"""Answers are those of the parameters as they are, unless W is kept by keep_weights: the same bits,
in one block, whose one rule is watched."""

from __future__ import annotations

import copy
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
from nalu_kernels import NAC, NALU, NALUCell, keep_weights
from nalu_kernels.layers import keep

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
    with torch.no_grad():
        return copy.deepcopy(layer)(x)


def kept(layer: nn.Module) -> list[Tensor]:
    found = keep._layers.get(layer)
    return [weight.W for weight in found.weights.values()] if found else []


@torch.no_grad()
def test_same_bits(layer: nn.Module, x: Tensor) -> None:
    for dtype in (torch.float32, torch.float64):
        layer, given = layer.to(dtype), x.to(dtype)
        expected = usual(layer, given)
        views = (given.T.contiguous().T, given[0].expand(4, -1))
        inputs = (given[:0], given.reshape(2, 3, -1), *views)
        with keep_weights(layer):
            for _ in range(3):
                assert torch.equal(layer(given), expected)
            assert kept(layer)
            for other in inputs:
                assert torch.equal(layer(other), usual(layer, other))
        assert not kept(layer)


@torch.no_grad()
def test_w_is_made_once(layer: nn.Module, x: Tensor) -> None:
    with keep_weights(layer):
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


def _average(layer: Any) -> None:
    """As packages for moving averages of weights put them in, and take them out again."""
    for parameter in layer.parameters():
        parameter.data.copy_(parameter.data + 0.5)


def _from_numpy(layer: Any) -> None:
    layer.W_hat.detach().numpy()[:] += 0.5


def _from_dlpack(layer: Any) -> None:
    torch.from_dlpack(layer.W_hat.detach()).add_(0.5)


def _storage(layer: Any) -> None:
    other = torch.randn_like(layer.W_hat)
    layer.W_hat.untyped_storage().copy_(other.untyped_storage())


def _swap(layer: Any) -> None:
    torch.utils.swap_tensors(layer.W_hat, nn.Parameter(torch.randn_like(layer.W_hat)))


CHANGES: dict[str, Callable[[Any], object]] = {
    "in place": lambda layer: layer.W_hat.add_(0.5),
    "a view in place": lambda layer: layer.W_hat[0].zero_(),
    "load_state_dict": lambda layer: layer.load_state_dict(
        {name: tensor + 0.5 for name, tensor in layer.state_dict().items()}
    ),
    "load_state_dict, assigned": _assign,
    "another parameter": lambda layer: setattr(
        layer, "W_hat", nn.Parameter(torch.randn_like(layer.W_hat))
    ),
    ".data replaced": lambda layer: setattr(layer.W_hat, "data", torch.randn_like(layer.W_hat)),
    ".data in place": _average,
    ".data clipped": lambda layer: layer.W_hat.data.clamp_(-0.1, 0.1),
    "NumPy": _from_numpy,
    "DLPack": _from_dlpack,
    "storage": _storage,
    "swapped": _swap,
    "Adam": _step,
    "fused Adam": lambda layer: _step(layer, fused=True),
    "vector_to_parameters": lambda layer: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(layer.parameters()) + 0.5, layer.parameters()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_eval_answers_with_the_weights_as_they_are(
    layer: nn.Module, x: Tensor, change: str
) -> None:
    before = layer.eval()(x)
    CHANGES[change](layer)
    found = layer(x)
    assert torch.equal(found, usual(layer, x))
    assert not torch.equal(found, before)


# What puts another parameter in its place, whose W the block has not made.
REPLACED = ("load_state_dict, assigned", "another parameter")


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_the_block_says_that_its_rule_was_broken(layer: nn.Module, x: Tensor, change: str) -> None:
    model = nn.Sequential(nn.Identity(), layer)
    if change in REPLACED:
        with keep_weights(model):
            model(x)
            CHANGES[change](layer)
            assert torch.equal(model(x), usual(layer, x))
    else:
        with (
            pytest.raises(RuntimeError, match="keep_weights: the parameters of 1 have changed"),
            keep_weights(model),
        ):
            model(x)
            CHANGES[change](layer)
    assert torch.equal(model(x), usual(layer, x))


@torch.no_grad()
def test_a_moved_layer_has_changed(rng: Generator) -> None:
    layer, x = NALU(4, 3), torch.randn(5, 4, generator=rng)
    with pytest.raises(RuntimeError, match="of the model itself"), keep_weights(layer):
        layer(x)
        layer.double()
    assert torch.equal(layer(x.double()), usual(layer, x.double()))


@torch.no_grad()
def test_nan_weights_have_not_changed(rng: Generator) -> None:
    layer, x = NALU(4, 3), torch.randn(5, 4, generator=rng)
    layer.W_hat[0, 0] = torch.nan
    with keep_weights(layer):
        assert layer(x).isnan().any()


def test_calls_with_gradients_are_as_outside(layer: nn.Module, x: Tensor) -> None:
    with keep_weights(layer):
        layer(x).sum().backward()
        assert not kept(layer)
    assert layer.W_hat.grad is not None


@torch.no_grad()
def test_an_error_in_the_block_is_its_own_and_ends_it(layer: nn.Module, x: Tensor) -> None:
    with pytest.raises(ZeroDivisionError), keep_weights(layer):
        layer(x)
        layer.W_hat.add_(1)
        raise ZeroDivisionError
    assert not keep._layers and not keep.active
    assert torch.equal(layer(x), usual(layer, x))


@torch.no_grad()
def test_blocks_in_blocks(layer: nn.Module, x: Tensor) -> None:
    model = nn.Sequential(layer)
    with keep_weights(model):
        with keep_weights(layer):
            model(x)
        assert kept(layer)
    assert not keep.active


@torch.inference_mode()
def test_inference_mode(layer: nn.Module, x: Tensor) -> None:
    expected = usual(layer, x)
    with keep_weights(layer):
        assert torch.equal(layer(x), expected)
        assert kept(layer)


@torch.no_grad()
def test_cells_keep_theirs(rng: Generator) -> None:
    cell, x = NALUCell(3, 2), torch.randn(5, 3, generator=rng)
    with keep_weights(cell):
        assert torch.equal(cell(x), usual(cell, x))
        assert kept(cell.nalu)


@torch.no_grad()
def test_copies_and_pickles_know_nothing_of_it(layer: nn.Module, x: Tensor) -> None:
    expected = layer(x)
    with keep_weights(layer):
        layer(x)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        for twin in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
            assert torch.equal(twin(x), expected)
            twin.W_hat.zero_()
            assert not torch.equal(twin(x), expected) and not kept(twin)
        assert torch.equal(layer(x), expected)


@torch.no_grad()
def test_parametrized_and_swapped_parameters(rng: Generator) -> None:
    class Double(nn.Module):
        factor = 2.0

        def forward(self, tensor: Tensor) -> Tensor:
            return self.factor * tensor

    x = torch.randn(5, 4, generator=rng)
    layer = NAC(4, 3)
    nn.utils.parametrize.register_parametrization(layer, "W_hat", Double())
    with keep_weights(layer):
        for factor in (2.0, 3.0):
            layer.parametrizations.W_hat[0].factor = factor
            assert torch.equal(layer(x), nalu_kernels.nac(x, layer.W_hat, layer.M_hat))
    other = NAC(4, 3)
    with keep_weights(other):
        first = other(x)
        for wrap in (lambda tensor: tensor, nn.Parameter):
            swapped = {name: wrap(tensor + 1) for name, tensor in other.state_dict().items()}
            assert torch.equal(
                torch.func.functional_call(other, swapped, (x,)), nalu_kernels.nac(x, **swapped)
            )
        assert torch.equal(other(x), first)


@torch.no_grad()
def test_every_back_end_gives_its_own_answer(backend: Backend, rng: Generator) -> None:
    layer = NALU(7, 5).to(backend.device)
    x = torch.randn(6, 7, generator=rng).to(backend.device)
    expected = nalu_kernels.nalu(x, layer.W_hat, layer.M_hat, layer.G)
    with keep_weights(layer):
        assert torch.equal(layer(x), expected)
        assert bool(kept(layer)) == (backend.name == "cpu")


@torch.no_grad()
def test_autocast_and_half_precision_go_the_usual_way(rng: Generator) -> None:
    layer, x = NALU(7, 5), torch.randn(6, 7, generator=rng)
    with keep_weights(layer), torch.autocast("cpu"):
        assert layer(x).dtype == torch.bfloat16
        assert not kept(layer)
    layer.bfloat16()
    with keep_weights(layer):
        assert torch.equal(layer(x.bfloat16()), usual(layer, x.bfloat16()))
        assert not kept(layer)


@torch.no_grad()
def test_compiled_models(rng: Generator) -> None:
    layer, x = NALU(7, 5), torch.randn(6, 7, generator=rng)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.equal(compiled(x), layer(x))
        with keep_weights(layer):
            assert torch.equal(compiled(x), layer(x))


def test_what_is_no_module_is_refused() -> None:
    words = r"model: expected a torch\.nn\.Module, got Tensor"
    with pytest.raises(TypeError, match=words), keep_weights(torch.ones(2)):
        pass
    with keep_weights(nn.Linear(2, 2)):
        assert not keep.active


@torch.no_grad()
def test_wrong_inputs_are_named() -> None:
    layer = NALU(4, 3)
    with keep_weights(layer):
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
    layer, x = NALU(64, 64), torch.randn(3, 64, generator=rng)
    expected, found = layer(x), []

    def call() -> None:
        with torch.no_grad():
            found.extend(layer(x) for _ in range(50))

    threads = [threading.Thread(target=call) for _ in range(4)]
    with keep_weights(layer):
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
        "with torch.no_grad(), nalu_kernels.keep_weights(layer):\n"
        "    assert torch.equal(layer(x), layer(x))\n"
        "torch.compile(layer, backend='eager', fullgraph=True)(x)\n"
        "print(nalu_kernels.which_backend(x)[0])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", code]
    printed = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert printed.strip() == "reference"
