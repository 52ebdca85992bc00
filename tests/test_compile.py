"""torch.compile: one graph, the back end's own kernels in it, and no graph for each batch size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Generator, Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend, EagerAndRecordGraphs

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import NAC, NALU, dispatch
from selection import only, pairs, slow

pytestmark = pairs

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
some_kinds = pytest.mark.parametrize(
    "kind", [BY_NAME["nac_log_space"], FULLEST], ids=lambda kind: kind.name
)


@pytest.fixture
def layer(kind: Kind, backend: Backend, rng: Generator) -> Layer:
    return draw(rng, kind, (5, 4, 3), device=backend.device)


class Compiled:
    """nalu_kernels, compiled by ``how`` into one graph."""

    def __init__(self, how: Any, **options: Any) -> None:
        self.nac = torch.compile(nalu_kernels.nac, backend=how, fullgraph=True, **options)
        self.nalu = torch.compile(nalu_kernels.nalu, backend=how, fullgraph=True, **options)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)


def called(graphs: list[torch.fx.GraphModule]) -> set[str]:
    """The operators in the graphs."""
    nodes = (node for graph in graphs for node in graph.graph.nodes)
    return {str(node.target) for node in nodes if node.op == "call_function"}


# The compiler may compute plain PyTorch in another order.
@only(lambda backend: backend.has_kernels)
@by_kind
def test_same_bits_as_uncompiled(layer: Layer, backend: Backend) -> None:
    same(outcome(Compiled("aot_eager"), layer), outcome(nalu_kernels, layer))


@only(lambda backend, dtype: backend.computes(dtype))
@some_kinds
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(kind: Kind, backend: Backend, dtype: torch.dtype, rng: Generator) -> None:
    layer = draw(rng, kind, (5, 4, 3), dtype, backend.device)
    same(outcome(Compiled("aot_eager"), layer), outcome(nalu_kernels, layer))


@by_kind
def test_the_kernels_stay(layer: Layer, backend: Backend) -> None:
    recorded = EagerAndRecordGraphs()
    outcome(Compiled(recorded), layer)
    namespace = dispatch._BACKENDS[backend.name].namespace
    if namespace:
        assert f"{namespace}.{layer.function}" in str(called(recorded.graphs))
    else:
        assert "nalu_kernels" not in str(called(recorded.graphs))


@only(lambda backend: backend.has_kernels)
@some_kinds
def test_the_kernels_of_the_backward_stay(layer: Layer, backend: Backend) -> None:
    """In the graphs that are left when autograd has been traced through."""
    namespace = dispatch._BACKENDS[backend.name].namespace
    graphs: list[torch.fx.GraphModule] = []

    def record(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    outcome(Compiled(aot_autograd(fw_compiler=record, bw_compiler=record)), layer)
    kernels = {f"{namespace}.{layer.function}_{way}.default" for way in ("forward", "backward")}
    assert kernels <= called(graphs)
    assert not any(name.startswith("aten.mm") for name in called(graphs))


@pytest.mark.parametrize("dynamic", [None, True], ids=["found out", "dynamic=True"])
@some_kinds
def test_no_graph_for_each_batch_size(
    kind: Kind, backend: Backend, dynamic: bool | None, rng: Generator
) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = Compiled(counter, dynamic=dynamic)
    counts = []
    for batch in (5, 7, 16, 33, 2):
        layer = draw(rng, kind, (batch, 4, 3), device=backend.device)
        found, expected = outcome(compiled, layer), outcome(nalu_kernels, layer)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor)
        counts.append(counter.frame_count)
    # The first size may be taken for the only one there will be.
    assert counts[0 if dynamic else 1] == counts[-1]


def test_a_model_of_leading_dimensions(backend: Backend, rng: Generator) -> None:
    model = nn.Sequential(NALU(4, 3, gate="sample"), NAC(3, 2)).to(backend.device)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    counts = []
    for shape in ((6, 4), (2, 5, 4), (3, 5, 4), (7, 2, 4)):
        x = torch.rand(shape, generator=rng).to(backend.device)
        torch.testing.assert_close(compiled(x), model(x))
        counts.append(counter.frame_count)
    assert counts[1] == counts[-1]  # a graph for each number of dimensions


# To it the other kernels are the same calls as with aot_eager.
@only(lambda backend: backend.name in ("cpu", "reference"))
@slow(lambda backend: not backend.has_kernels)  # then all the C++ is Inductor's own
def test_inductor_trains_as_without(backend: Backend, rng: Generator) -> None:
    """The default compiler, with something around the layers for it to fuse."""

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(NALU(4, 3, tied=False, gate_bias=True), NAC(3, 2, log_space=True))

    x = torch.rand(16, 4, generator=rng) + 0.5
    losses: list[list[float]] = []
    for wrap in (lambda step: step, lambda step: torch.compile(step, fullgraph=True)):
        net = model()

        def loss_of(x: Tensor, net: nn.Module = net) -> Tensor:
            return (net(2 * x) - x[:, :2]).square().mean()

        step, optimizer = wrap(loss_of), torch.optim.Adam(net.parameters(), 1e-2)
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = step(x)
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_a_change_of_back_end_is_noticed(rng: Generator) -> None:
    x, W = torch.rand(5, 3, generator=rng), torch.rand(2, 3, generator=rng)
    recorded = EagerAndRecordGraphs()
    compiled = torch.compile(nalu_kernels.nac, backend=recorded, fullgraph=True)
    for name in ("cpu", "reference", "cpu"):
        with nalu_kernels.use_backend(name):
            compiled(x, W, W)
    assert ["nalu_kernels" in str(called([graph])) for graph in recorded.graphs] == [True, False]


def test_the_back_end_may_be_forced_inside(rng: Generator) -> None:
    @torch.compile(backend="eager", fullgraph=True)
    def forced(x: Tensor) -> Tensor:
        with nalu_kernels.use_backend("reference"):
            return nalu_kernels.nac(x, x, x)

    x = torch.rand(3, 3, generator=rng)
    torch.testing.assert_close(forced(x), nalu_kernels.nac(x, x, x))
    assert nalu_kernels.which_backend(x)[0] != "reference"


@some_kinds
def test_without_gradients(layer: Layer, backend: Backend) -> None:
    compiled = Compiled("aot_eager")
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(layer.call(compiled), layer.call(nalu_kernels))


def test_transforms_inside(backend: Backend, rng: Generator) -> None:
    layer = NALU(4, 3, device=backend.device)

    def gradients(x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda row: layer(row).sum()))(x)

    x = torch.rand(5, 4, generator=rng).to(backend.device)
    compiled = torch.compile(gradients, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), gradients(x))


def test_wrong_arguments_are_named(backend: Backend) -> None:
    compiled = torch.compile(nalu_kernels.nac, backend="eager")
    x, W = torch.ones(2, 3, device=backend.device), torch.ones(4, 3, device=backend.device)
    with pytest.raises(Exception, match="M_hat: expected shape"):
        compiled(x, W, W[1:])


@pytest.mark.parametrize("make", [lambda: NAC(3, 2, log_space=True), lambda: NALU(3, 2)])
def test_compiled_autograd_of_layers_that_are_not_compiled(
    make: Callable[[], nn.Module], rng: Generator
) -> None:
    """Neither a warning nor a graph break."""
    layer, x = make(), torch.rand(5, 3, generator=rng)
    with nalu_kernels.use_backend("cpu"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
        loss = layer(x).square().sum()
        compiler = torch.compile(backend="aot_eager", fullgraph=True)
        with torch._dynamo.compiled_autograd._enable(compiler):
            loss.backward()
    assert not [warning for warning in caught if "Dynamo" in str(warning.message)]
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
