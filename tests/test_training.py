"""What training loops do around a layer: checkpoints, hooks, modes, freezing, anomalies, views."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import NAC, NALU, use_backend

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
some_kinds = pytest.mark.parametrize(
    "kind", [BY_NAME["nac"], BY_NAME["nac_log_space"], FULLEST], ids=lambda kind: kind.name
)


@pytest.fixture
def layer(kind: Kind, backend: Backend, rng: Generator) -> Layer:
    return draw(rng, kind, (5, 4, 3), torch.float64, backend.device)


@pytest.fixture
def model(backend: Backend) -> nn.Sequential:
    layers = NALU(4, 3, tied=False, gate_bias=True), NAC(3, 3), NAC(3, 2, log_space=True)
    return nn.Sequential(*layers).to(backend.device, torch.float64)


@pytest.fixture
def x(backend: Backend, rng: Generator) -> Tensor:
    return torch.rand(6, 4, generator=rng, dtype=torch.float64).to(backend.device) + 0.1


def gradients(model: nn.Module, output: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output.square().sum(), list(model.parameters())))


def referred(function: Callable[[], Any]) -> Any:
    """What the plain formulas make of it."""
    with use_backend("reference"):
        return function()


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
def test_checkpoint(model: nn.Sequential, x: Tensor, reentrant: bool) -> None:
    x.requires_grad_()
    every = [x, *model.parameters()]

    def run(call: Callable[[Tensor], Tensor]) -> list[Tensor]:
        for leaf in every:
            leaf.grad = None
        call(x).square().sum().backward()
        return [leaf.grad.clone() for leaf in every]

    expected = run(model)
    for call in (
        lambda x: checkpoint(model, x, use_reentrant=reentrant),
        lambda x: checkpoint_sequential(model, 2, x, use_reentrant=reentrant),
    ):
        for found, gradient in zip(run(call), expected, strict=True):
            assert torch.equal(found, gradient)


def test_a_checkpoint_keeps_the_input_alone(model: nn.Sequential, x: Tensor) -> None:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = checkpoint(model, x, use_reentrant=False)
        assert sum(tensor.numel() for tensor in kept) <= x.numel()
        gradients(model, output)


@some_kinds
def test_saved_tensors_may_be_stored_elsewhere(layer: Layer) -> None:
    """As torch.autograd.graph.save_on_cpu does."""
    expected = outcome(nalu_kernels, layer)
    with saved_tensors_hooks(lambda tensor: tensor.clone().numpy(force=True), torch.from_numpy):
        if layer.grad_output.device.type == "cpu":
            found = outcome(nalu_kernels, layer)
            assert all(torch.equal(found[name], expected[name]) for name in expected)
    with torch.autograd.graph.save_on_cpu():
        found = outcome(nalu_kernels, layer)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_module_hooks(model: nn.Sequential, x: Tensor) -> None:
    """All four kinds are called in order, and what they return counts."""
    called: list[str] = []
    layer = model[0]
    layer.register_forward_pre_hook(lambda _, given: called.append("pre") or (2 * given[0],))
    layer.register_forward_hook(lambda *given: called.append("forward") or 3 * given[2])
    layer.register_full_backward_pre_hook(
        lambda _, grad: called.append("backward pre") or (5 * grad[0],)
    )
    layer.register_full_backward_hook(
        lambda *given: called.append("backward") or (7 * given[1][0],)
    )
    leaf = x.clone().requires_grad_()
    layer(leaf).sum().backward()
    assert called == ["pre", "forward", "backward pre", "backward"]
    plain = (2 * x).requires_grad_()
    output = layer.forward(plain)
    (expected,) = torch.autograd.grad(output, plain, torch.full_like(output, 3 * 5))
    torch.testing.assert_close(leaf.grad, 2 * 7 * expected)


def test_tensor_hooks(model: nn.Sequential, x: Tensor) -> None:
    weight = model[0].W_hat
    (expected, *_) = gradients(model, model(x))
    seen: list[Tensor] = []
    handle = weight.register_hook(lambda grad: 2 * grad)
    weight.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.clone()))
    model(x).square().sum().backward()
    handle.remove()
    assert torch.equal(seen[0], 2 * expected)
    assert torch.equal(weight.grad, seen[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@some_kinds
def test_modes_without_gradients(layer: Layer, mode: Any) -> None:
    expected = layer.call(nalu_kernels)
    leaves = layer.map(lambda tensor: tensor.clone().requires_grad_())
    with mode():
        found = leaves.call(nalu_kernels)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert found.is_inference() == (mode is torch.inference_mode)


@some_kinds
def test_inference_tensors(layer: Layer, backend: Backend) -> None:
    """Given to a layer that records gradients: torch's own refusal, as of Linear."""
    if backend.name == "reference":
        pytest.skip("plain PyTorch saves what it likes")
    with torch.inference_mode():
        made = layer.map(lambda tensor: tensor.clone())
        expected = layer.call(nalu_kernels)
        assert torch.equal(made.call(nalu_kernels), expected)
    assert torch.equal(made.call(nalu_kernels), expected)  # nobody needs a gradient
    parameter = layer.tensors["W_hat"].clone().requires_grad_()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        made.call(nalu_kernels, W_hat=parameter)


@some_kinds
def test_anomaly_mode_names_the_function_and_the_line(layer: Layer) -> None:
    if nalu_kernels.which_backend(layer.grad_output)[0] == "reference":
        pytest.skip("the functions of plain PyTorch are torch's own")
    weight = layer.tensors["W_hat"].requires_grad_()
    name = f"{'NAC' if layer.function == 'nac' else 'NALU'}FunctionBackward"
    with (
        pytest.warns(UserWarning, match=rf"(?s){name}.*test_training\.py.*the_users_line"),
        torch.autograd.detect_anomaly(check_nan=True),
    ):
        output = the_users_line(layer)
        assert type(output.grad_fn).__name__ == name
        with pytest.raises(RuntimeError, match=f"Function '{name}' returned nan values"):
            torch.autograd.grad(output, weight, torch.full_like(output, float("nan")))


def the_users_line(layer: Layer) -> Tensor:
    return layer.call(nalu_kernels)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "slice": lambda base: base[1:6],
    "transposed": lambda base: base[:4, :5].T,
    "every other": lambda base: base[::2, :4],
    "expanded": lambda base: base[:1, :4].expand(5, 4),
    "flipped": lambda base: base[:5, :4].flip(0),
    "unfolded": lambda base: base.flatten()[:20].view(5, 4),
    "diagonal": lambda base: base.diagonal()[:4].expand(5, 4),
}


@pytest.mark.parametrize("view", VIEWS)
@some_kinds
def test_gradient_of_a_view(layer: Layer, view: str, rng: Generator) -> None:
    """It reaches the tensor that is looked at; where it is read more than once, as a sum."""
    base = torch.randn(10, 10, generator=rng, dtype=torch.float64).to(layer.grad_output.device)
    base.requires_grad_()

    def run() -> Tensor:
        shape = VIEWS[view](base)
        rows = shape if shape.shape[-1] == 4 else shape[:, :4]
        output = layer.call(nalu_kernels, input=rows)
        upstream = layer.grad_output[: len(output)]
        return torch.autograd.grad(output, base, upstream)[0]

    torch.testing.assert_close(run(), referred(run))


@some_kinds
def test_gradient_through_a_view_of_the_output(layer: Layer) -> None:
    leaf = layer.tensors["input"].requires_grad_()

    def run() -> Tensor:
        output = layer.call(nalu_kernels)
        parts = output[1:3].T.sum() + 2 * output.view(-1)[::2].sum() + output[0].expand(3, -1).sum()
        return torch.autograd.grad(parts, leaf)[0]

    torch.testing.assert_close(run(), referred(run))


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda y: y.add_(1),
    "mul": lambda y: y.mul_(2),
    "relu": lambda y: y.relu_(),
    "a part": lambda y: y[0].zero_(),
    "copy": lambda y: y.copy_(torch.ones_like(y)),
}


@pytest.mark.parametrize("change", IN_PLACE)
@by_kind
def test_in_place_use_of_the_output(layer: Layer, change: str) -> None:
    """Right, or refused by torch as it is for exp, whose backward needs its output."""
    leaf = layer.tensors["W_hat"].requires_grad_()

    def run() -> Tensor:
        output = layer.call(nalu_kernels)
        IN_PLACE[change](output)
        return torch.autograd.grad(output, leaf, layer.grad_output)[0]

    if layer.options.get("log_space"):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            run()
    else:
        torch.testing.assert_close(run(), referred(run))


@pytest.mark.parametrize("name", ["input", "W_hat", "M_hat", "G"])
def test_a_change_before_the_backward_is_noticed(
    backend: Backend, rng: Generator, name: str
) -> None:
    if backend.name == "reference":
        pytest.skip("plain PyTorch saves what it likes")
    layer = draw(rng, BY_NAME["nalu_output_tied"], (5, 4, 3), device=backend.device)
    leaf = layer.tensors["W_hat" if name != "W_hat" else "G"].requires_grad_()
    output = layer.call(nalu_kernels)
    with torch.no_grad():
        layer.tensors[name].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(output.sum(), leaf)


@some_kinds
def test_a_second_backward_needs_a_kept_graph(layer: Layer) -> None:
    leaf = layer.tensors["W_hat"].requires_grad_()
    output = layer.call(nalu_kernels).sum()
    first = torch.autograd.grad(output, leaf, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(output, leaf)[0], first)
    with pytest.raises(RuntimeError, match=re.escape("backward through the graph a second time")):
        torch.autograd.grad(output, leaf)


def test_a_layer_used_twice(backend: Backend, rng: Generator) -> None:
    layer = NALU(3, 3, dtype=torch.float64, device=backend.device)
    x = torch.rand(5, 3, generator=rng, dtype=torch.float64).to(backend.device)

    def run() -> list[Tensor]:
        return gradients(layer, layer(layer(x)) + layer(x))

    torch.testing.assert_close(run(), referred(run))


class Recording:
    """A back end's operators, which note what they are asked for."""

    def __init__(self, operators: Any) -> None:
        self._operators = operators
        self.needed: list[int] = []

    def nalu_forward(self, *arguments: Any) -> Any:
        return self._operators.nalu_forward(*arguments)

    def nalu_backward(self, eps: float, needed: int, *rest: Any) -> Any:
        self.needed.append(needed)
        return self._operators.nalu_backward(eps, needed, *rest)


def test_frozen_tensors_are_not_asked_for(backend: Backend, rng: Generator) -> None:
    """The operator computes what it is asked for, and gives None for the rest."""
    operators = nalu_kernels.dispatch._load(backend.name)[0]
    if operators is None:
        pytest.skip("autograd itself sees to it in plain PyTorch")
    recording = Recording(operators)
    layer = draw(rng, BY_NAME["nalu_output_tied"], (5, 4, 3), device=backend.device)
    names = list(layer.tensors)
    for trained in ({"G"}, {"W_hat", "M_hat"}, {"input", "G"}, set(names)):
        tensors = [layer.tensors[name].clone().requires_grad_(name in trained) for name in names]
        output = nalu_kernels.autograd.apply_nalu(recording, 1e-7, *tensors)
        output.backward(layer.grad_output)
        assert recording.needed[-1] == sum(1 << names.index(name) for name in trained)
        wanted = [name in trained for name in names]
        assert [tensor.grad is not None for tensor in tensors] == wanted
        saved = operators.nalu_forward(1e-7, True, *(tensor.detach() for tensor in tensors))[1]
        found = operators.nalu_backward(
            1e-7, recording.needed[-1], layer.grad_output, saved, *(t.detach() for t in tensors)
        )
        assert [grad is not None for grad in found[:4]] == wanted
