"""torch.fx and torch.jit.trace: a traced model computes what the model does."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_sequence

import nalu_kernels
from conftest import Backend
from nalu_kernels import (
    NAC,
    NACRNN,
    NALU,
    NALURNN,
    INALUCell,
    NACCell,
    NALUCell,
    NAUCell,
    NMUCell,
    RealNPUCell,
)


class Model(nn.Module):
    """Every layer, every option, the functions, and a layer's gate."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            NALU(3, 4, tied=False, gate="sample", gate_bias=True), NAC(4, 3, log_space=True)
        )
        self.cells = nn.ModuleList([NACCell(3, 3), NALUCell(3, 3)])
        self.last = NALU(3, 2)
        self.G = nn.Parameter(torch.rand(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        for cell in self.cells:
            x = cell(cell(x), x)
        y = self.last.gate(x) * self.last(x)
        W_hat, M_hat = self.last.W_hat, self.last.M_hat
        y = y + nalu_kernels.nac(x, W_hat, M_hat)
        return y + nalu_kernels.nalu(x, W_hat, M_hat, self.G, gate_bias=self.G[:, 0])


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(model(x).square().sum(), [*model.parameters()]))


def test_symbolic_trace_of_a_model(backend: Backend, rng: Generator) -> None:
    model = Model().to(backend.device)
    x = torch.rand(5, 3, generator=rng).to(backend.device)
    traced = torch.fx.symbolic_trace(model)
    traced.graph.lint()
    assert not [node for node in traced.graph.nodes if "aten" in str(node.target)]
    functions = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert functions.count(nalu_kernels.nalu) == 5
    assert functions.count(nalu_kernels.nac) == 4
    for again in (traced, torch.fx.symbolic_trace(traced), copy.deepcopy(traced)):
        assert torch.equal(again(x), model(x))
        for found, wanted in zip(gradients(again, x), gradients(model, x), strict=True):
            assert torch.equal(found, wanted)
        assert again(x[:2]).shape == (2, 2)


def test_symbolic_trace_of_a_layer_alone(rng: Generator) -> None:
    x = torch.rand(2, 5, 3, generator=rng)
    for layer in (NAC(3, 2), NALU(3, 2)):
        assert torch.equal(torch.fx.symbolic_trace(layer)(x), layer(x))


class OverTime(nn.Module):
    """All that unroll takes."""

    def __init__(self, cell: NACCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(
        self,
        x: Tensor,
        hx: Tensor | None = None,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> Tensor:
        return 2 * self.cell.unroll(x, hx, lengths=lengths, reset=reset)


@pytest.mark.parametrize("kind", [NACCell, NALUCell, NAUCell, NMUCell, INALUCell, RealNPUCell])
def test_symbolic_trace_of_unroll(kind: type[NACCell], rng: Generator) -> None:
    model = OverTime(kind(3, 2))
    traced = torch.fx.symbolic_trace(model)
    traced.graph.lint()
    names = [node.target.__name__ for node in traced.graph.nodes if node.op == "call_function"]
    assert names == ["Cell", "unroll", "mul"]
    x, hx = torch.rand(4, 5, 3, generator=rng), torch.rand(5, 2, generator=rng)
    lengths, reset = torch.tensor([4, 0, 2, 1, 3]), torch.rand(4, 5, generator=rng) < 0.3
    for given in ((x, hx, lengths, reset), (x,), (x[:2, :3], hx[:3]), (x[:, 0], hx[0])):
        assert torch.equal(traced(*given), model(*given))
    for found, wanted in zip(gradients(traced, x), gradients(model, x), strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(ValueError, match=r"input: expected shape \(steps, batch, 3\)"):
        traced(x[..., :2])
    layer = next(model.cell.children())
    prune.l1_unstructured(layer, next(iter(layer._parameters)), 0.5)
    with pytest.raises(RuntimeError, match="whose parameters are its own"):
        torch.fx.symbolic_trace(model)


@pytest.mark.parametrize("kind", [NACRNN, NALURNN])
@pytest.mark.parametrize("batch_first", [False, True])
def test_symbolic_trace_of_a_network(kind: type[NACRNN], batch_first: bool, rng: Generator) -> None:
    model = kind(3, 2, 2, batch_first=batch_first)
    traced = torch.fx.symbolic_trace(model)
    x, hx = torch.rand(5, 4, 3, generator=rng), torch.rand(2, 4 + batch_first, 2, generator=rng)
    packed = pack_sequence([x[:4, 0], x[:2, 1]])
    for given in ((x, hx), (x,), (x[:, 0], hx[:, 0]), (packed,)):
        found, wanted = traced(*given), model(*given)
        assert torch.equal(found[1], wanted[1])
        one, other = (of.data if given[0] is packed else of for of in (found[0], wanted[0]))
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "model", [nn.Sequential(NALU(3, 4), NAC(4, 2)), NAC(3, 2), NALU(3, 2)], ids=repr
)
def test_what_was_traced_is_saved(model: nn.Module, rng: Generator) -> None:
    """A layer alone too: its forward's annotations, which the graph takes over, are types."""
    file = io.BytesIO()
    torch.save(torch.fx.symbolic_trace(model), file)
    file.seek(0)
    x = torch.rand(5, 3, generator=rng)
    assert torch.equal(torch.load(file, weights_only=False)(x), model(x))


@pytest.mark.parametrize("kind", [NACRNN, NALURNN])
def test_a_network_that_was_traced_is_saved(kind: type[NACRNN], rng: Generator) -> None:
    model, file = kind(3, 2), io.BytesIO()
    torch.save(torch.fx.symbolic_trace(model), file)
    file.seek(0)
    x = torch.rand(5, 4, 3, generator=rng)
    assert torch.equal(torch.load(file, weights_only=False)(x)[0], model(x)[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:::torch.ao")
def test_fx_quantization_leaves_the_layers_as_they_are(rng: Generator) -> None:
    """What is not arithmetic is quantized around them."""
    quantization = pytest.importorskip("torch.ao.quantization.quantize_fx")
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch here has no quantized operators")
    model = nn.Sequential(NAC(3, 4), nn.Linear(4, 4), NAC(4, 2)).eval()
    x = torch.rand(50, 3, generator=rng)
    mapping = torch.ao.quantization.get_default_qconfig_mapping("fbgemm")
    prepared = quantization.prepare_fx(copy.deepcopy(model), mapping, (x,))
    prepared(x)
    quantized = quantization.convert_fx(prepared)
    assert torch.allclose(quantized(x), model(x), atol=0.05)
    assert type(getattr(quantized, "1")) is not nn.Linear


def test_a_tracer_that_takes_the_layers_as_leaves(rng: Generator) -> None:
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, (NAC, NALU)) or super().is_leaf_module(m, module_qualified_name)

    model, x = nn.Sequential(NALU(3, 4), NAC(4, 2)), torch.rand(5, 3, generator=rng)
    prune.l1_unstructured(model[0], "W_hat", 0.5)
    graph = Tracer().trace(model)
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["0", "1"]
    assert torch.equal(torch.fx.GraphModule(model, graph)(x), model(x))


def test_a_pruned_layer_does_not_become_constants() -> None:
    model = nn.Sequential(NALU(3, 2))
    prune.l1_unstructured(model[0], "W_hat", 0.5)
    with pytest.raises(RuntimeError, match="expected a NALU whose parameters are its own"):
        torch.fx.symbolic_trace(model)


def test_a_parametrized_layer_is_a_leaf(rng: Generator) -> None:
    model, x = nn.Sequential(NALU(3, 2)), torch.rand(5, 3, generator=rng)
    nn.utils.parametrizations.weight_norm(model[0], "W_hat")
    traced = torch.fx.symbolic_trace(model)
    for found, wanted in zip(gradients(traced, x), gradients(model, x), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_jit_trace_warns_no_more_than_of_a_linear(rng: Generator) -> None:
    model, x = Model(), torch.rand(5, 3, generator=rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, x)
    more = torch.rand(7, 3, generator=rng)
    with nalu_kernels.use_backend("reference"):
        torch.testing.assert_close(traced(more), model(more))
    with pytest.raises(ValueError, match="in_features"):
        torch.jit.trace(model, x[:, :2])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("make", [NAC, NALU, NACCell, NALUCell])
def test_jit_script_says_what_to_do(make: type[nn.Module]) -> None:
    with pytest.raises(
        RuntimeError, match=r"torch\.jit\.script cannot compile a NA.*torch\.export"
    ):
        torch.jit.script(nn.Sequential(nn.Linear(3, 3), make(3, 2)))
