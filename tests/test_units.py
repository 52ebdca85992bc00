"""Independent layers side by side: each has the bits of a layer of its own."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.library import opcheck
from torch.nn.utils import prune

import nalu_kernels
from conftest import Backend
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
    NACSigma,
    RealNPU,
    dispatch,
    family,
    use_backend,
    which_backend,
)
from parity import threads
from selection import only, pairs

pytestmark = pairs

LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "NAC": (NAC, {}),
    "NAC-log_space": (NAC, {"log_space": True}),
    "NALU": (NALU, {}),
    "NALU-all": (NALU, {"tied": False, "gate": "sample", "gate_bias": True}),
    "NACSigma": (NACSigma, {}),
    "NACNMU": (NACNMU, {}),
    "NAU": (NAU, {}),
    "NMU": (NMU, {}),
    "INALU": (INALU, {}),
    "INALU-matrix": (INALU, {"gate": "matrix", "tied": True}),
    "INALU-vector": (INALU, {"gate": "vector"}),
    "GNALU": (GNALU, {}),
    "NPU": (NPU, {}),
    "RealNPU": (RealNPU, {"modified": True}),
    "NRU": (NRU, {}),
    "NMRU": (NMRU, {}),
}
by_layer = pytest.mark.parametrize("name", LAYERS)
on_cpu = only(lambda backend: backend.name == "cpu")
on_gpus = only(lambda backend: backend.name in ("triton", "cuda"))
by_kernels = only(lambda backend: backend.has_kernels)


def make(name: str, units: int, inputs: int = 4, outputs: int = 2, **more: Any) -> tuple[Any, Any]:
    """The layers, and the one that holds them; drawn on the CPU."""
    device = more.pop("device", None)
    kind, options = LAYERS[name]
    layers = []
    for seed in range(units):
        torch.manual_seed(seed)
        layers.append(kind(inputs, outputs, **options, **more).to(device))
    return layers, kind.stack(layers)


def check_each(layers: Any, whole: nn.Module, x: Tensor, every: int = 1) -> None:
    """That units have the bits of layers of their own, forward and backward."""
    x = x.requires_grad_()
    y = whole(x)
    dy = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y)
    found = gradients(whole, y, x, dy)
    for u in range(0, len(x), every):
        own = x[u].detach().requires_grad_()
        output = layers[u](own)
        assert torch.equal(output, y[u])
        for one, other in zip(gradients(layers[u], output, own, dy[u]), found, strict=True):
            assert torch.equal(one, other[u])


def draw(rng: Generator, *sizes: int) -> Tensor:
    x = torch.rand(sizes, generator=rng) + 0.3
    return torch.where(torch.rand(sizes, generator=rng) < 0.2, -x, x)


def gradients(layer: nn.Module, output: Tensor, x: Tensor, dy: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output, [x, *layer.parameters()], dy))


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(one.detach().abs().max()))


@by_kernels
@pytest.mark.parametrize("units", [1, 2, 1000])
@by_layer
def test_each_unit_has_the_bits_of_a_layer(
    name: str, units: int, backend: Backend, rng: Generator
) -> None:
    if backend.interpreted or backend.emulated:
        units = min(units, 10)
    layers, whole = make(name, units, device=backend.device)
    x = draw(rng, units, 5, 4).to(backend.device)
    assert which_backend(x, "nac_units")[0] == backend.name
    check_each(layers, whole, x, every=max(1, units // 7))


# Of many outputs, of inputs that lie apart, and of rows that the GPUs' kernels sum by parts.
@on_gpus
@pytest.mark.parametrize("sizes", [(3, 9, 40), (5, 40, 3), (1100, 3, 2)], ids=str)
@by_layer
def test_units_in_several_blocks(
    name: str, sizes: tuple[int, int, int], backend: Backend, rng: Generator
) -> None:
    rows, inputs, outputs = sizes
    layers, whole = make(name, 3, inputs, outputs, device=backend.device)
    check_each(layers, whole, draw(rng, 3, rows, inputs).to(backend.device))
    apart = draw(rng, rows, 3, 2 * inputs).to(backend.device).transpose(0, 1)[:, :, ::2]
    check_each(layers, whole, apart)


@only(lambda backend: backend.emulated)
@pytest.mark.parametrize("name", ["NAC-log_space", "NALU-all"])
def test_units_that_each_take_the_whole_gpu(name: str, backend: Backend, rng: Generator) -> None:
    """By cuBLAS, one after the other."""
    layers, whole = make(name, 2, 3, 2, device=backend.device)
    check_each(layers, whole, draw(rng, 2, 2100, 3).to(backend.device))


@only(lambda backend: backend.name == "triton")
@pytest.mark.parametrize("limit", ["MOST_UNITS", "MOST_SCRATCH"])
@by_layer
def test_more_units_than_a_launch_takes(
    name: str, limit: str, backend: Backend, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulated CUDA kernels take no more than 4 at a time in all tests."""
    from nalu_kernels.triton import recipe

    layers, whole = make(name, 5, device=backend.device)
    monkeypatch.setattr(recipe, limit, 2)
    check_each(layers, whole, draw(rng, 5, 3, 4).to(backend.device))


def test_units_are_tiled_as_a_layer_of_its_own() -> None:
    """On every chip, whatever the numbers of units and of gates."""
    aot = pytest.importorskip("nalu_kernels.triton.aot", reason="triton is not installed")
    from nalu_kernels.triton import trace

    for chips, limits in aot.LIMITS.items():
        chip = aot.Chip(chips, limits.processors)
        for gates, shape in itertools.product((0, 1, 256), ((128, 256, 256), (4096, 256, 256))):
            one = trace.Sample(*shape, log_space=gates > 0, gates=gates, bias=gates > 0)
            plans = [
                [
                    (launch.grid[:2], launch.options)
                    for launch in trace.forward(sample, chip, save=True)
                    + trace.backward(sample, chip)
                ]
                for sample in (one._replace(units=3), one)
            ]
            alone = [((*grid, 1)[:2], options) for grid, options in plans[1]]
            assert plans[0] == alone, (chips, gates)


@on_cpu
@pytest.mark.parametrize("sizes", [(3, 130, 101), (40, 30, 20), (1, 150, 140)], ids=str)
@pytest.mark.parametrize("name", ["NALU", "NAU", "NMU", "INALU", "RealNPU"])
def test_large_units(
    name: str, sizes: tuple[int, int, int], backend: Backend, rng: Generator
) -> None:
    rows, inputs, outputs = sizes
    layers, whole = make(name, 3, inputs, outputs)
    x = draw(rng, 3, rows, inputs).requires_grad_()
    for count in (1, 2, 3):
        with threads(count):
            y = whole(x)
            found = gradients(whole, y, x, torch.ones_like(y))
            for u, layer in enumerate(layers):
                own = x[u].detach().requires_grad_()
                alone = gradients(layer, layer(own), own, torch.ones_like(y[u]))
                # torch's BLAS rounds as memory lies, which is not the same for both.
                near = torch.equal if inputs * outputs <= 12288 else close
                assert near(layer(own), y[u]), count
                assert all(near(a, b[u]) for a, b in zip(alone, found, strict=True)), count


@by_layer
def test_an_input_for_all(name: str, backend: Backend, rng: Generator) -> None:
    layers, whole = make(name, 3, device=backend.device)
    for sizes in ((4,), (5, 4), (0, 4)):
        x = draw(rng, *sizes).to(backend.device).requires_grad_()
        y = whole(x)
        wanted = torch.stack([layer(x) for layer in layers])
        torch.testing.assert_close(y, wanted)
        (found,), (true,) = (torch.autograd.grad(of.sum(), x) for of in (y, wanted))
        torch.testing.assert_close(found, true, rtol=1e-4, atol=1e-5)
    shared = draw(rng, 3, 2, 4).to(backend.device)  # as many rows as units: expand tells them
    wanted = torch.stack([layer(shared) for layer in layers])
    torch.testing.assert_close(whole(shared.expand(3, *shared.shape)), wanted)
    deep = draw(rng, 3, 2, 6, 4).to(backend.device)
    torch.testing.assert_close(whole(deep), torch.stack([m(deep[u]) for u, m in enumerate(layers)]))


@by_layer
def test_a_nan_stays_in_its_unit(name: str, backend: Backend, rng: Generator) -> None:
    _, whole = make(name, 3, device=backend.device)
    _, clean = make(name, 3, device=backend.device)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter[1] = torch.nan
    x = draw(rng, 3, 5, 4).to(backend.device).requires_grad_()
    y, wanted = whole(x), clean(x)
    assert y[1].isnan().all()
    found, true = (gradients(of, out, x, torch.ones_like(y)) for of, out in
                   ((whole, y), (clean, wanted)))  # fmt: skip
    for u in (0, 2):
        assert torch.equal(y[u], wanted[u])
        assert all(torch.equal(a[u], b[u]) for a, b in zip(found, true, strict=True))


@by_layer
def test_stack_and_unit(name: str, rng: Generator) -> None:
    layers, whole = make(name, 3, dtype=torch.float64)
    state, _ = stack_module_state(layers)
    assert whole.units == 3 and layers[0].units is None
    assert list(whole.state_dict()) == list(state)
    assert all(torch.equal(whole.state_dict()[key], state[key]) for key in state)
    x = draw(rng, 5, 4).double()
    for u in (0, 2, -1):
        one = whole.unit(u)
        assert type(one) is type(whole) and one.units is None
        assert torch.equal(one(x), layers[u](x))
        next(one.parameters()).data.zero_()  # a copy
        assert torch.equal(whole.unit(u)(x), layers[u](x))
    again = pickle.loads(pickle.dumps(copy.deepcopy(whole)))
    assert torch.equal(again(x), whole(x))
    assert "units=3" in repr(whole)
    whole.reset_parameters()
    assert not torch.equal(whole(x), again(x))
    whole.load_state_dict(again.state_dict())
    assert torch.equal(whole(x), again(x))
    assert torch.equal(whole.clamp_().unit(1)(x), layers[1].clamp_()(x))


@by_layer
def test_a_regularizer_for_each(name: str) -> None:
    layers, whole = make(name, 3)
    each = torch.stack([layer.regularizer() for layer in layers])
    torch.testing.assert_close(whole.regularizer(), each)
    torch.testing.assert_close(nalu_kernels.regularizer(whole), each.sum())
    whole.zero_grad()
    if each.requires_grad:
        whole.regularizer().sum().backward()
        layers[1].regularizer().backward()
        for one, other in zip(layers[1].parameters(), whole.parameters(), strict=True):
            if one.grad is not None:
                assert other.grad is not None
                torch.testing.assert_close(other.grad[1], one.grad)


@pytest.mark.parametrize("kind", [NAU, NMU, SNMU, NACNMU])
def test_an_inputs_regularizer_for_each(kind: Any, rng: Generator) -> None:
    layers = [kind(4, 2) for _ in range(3)]
    whole = kind.stack(layers)
    for x in (draw(rng, 3, 5, 4), draw(rng, 5, 4)):
        each = [m.input_regularizer(x[u] if x.dim() == 3 else x) for u, m in enumerate(layers)]
        torch.testing.assert_close(whole.input_regularizer(x), torch.stack(each))
    with pytest.raises(ValueError, match="expected layers that are not stacked"):
        nalu_kernels.input_regularizer(whole)


def test_parameters_that_are_not_its_own() -> None:
    whole = NAU.stack([NAU(3, 2) for _ in range(3)])
    prune.identity(whole, "W")
    assert whole.units == 3
    for call in (whole.regularizer, lambda: whole.unit(0)):
        with pytest.raises(RuntimeError, match="expected a stacked NAU whose W is its own"):
            call()


@by_layer
def test_vmap_runs_on_kernels(name: str, backend: Backend, rng: Generator) -> None:
    layers, _ = make(name, 3, device=backend.device)
    state, _ = stack_module_state(layers)
    base = copy.deepcopy(layers[0]).to("meta")
    seen = []

    def call(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        seen.append(which_backend(x)[0])
        output: Tensor = functional_call(base, parameters, (x,))
        return output

    for sizes, dim in (((5, 4), None), ((3, 5, 4), 0), ((4,), None), ((3, 4), 0), ((5, 3, 4), 1)):
        x = draw(rng, *sizes).to(backend.device).requires_grad_()
        y = vmap(call, in_dims=(0, dim))(state, x)
        wanted = torch.stack(
            [m(x if dim is None else x.select(dim, u)) for u, m in enumerate(layers)]
        )
        torch.testing.assert_close(y, wanted)
        found, true = (torch.autograd.grad(of.sum(), x)[0] for of in (y, wanted))
        torch.testing.assert_close(found, true, rtol=1e-4, atol=1e-5)
    assert seen == [backend.name] * 5
    x = draw(rng, 6, 5, 4).to(backend.device)
    torch.testing.assert_close(vmap(layers[0], in_dims=1, out_dims=1)(x), layers[0](x))


@on_cpu
def test_vmap_calls_one_operator(backend: Backend, rng: Generator) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.names.append(str(function))
            return function(*args, **(kwargs or {}))

    layers, _ = make("NALU", 3)
    state, _ = stack_module_state(layers)
    with Names() as seen:
        vmap(lambda p, x: functional_call(layers[0], p, (x,)))(state, draw(rng, 3, 5, 4))
    assert "nalu_kernels.nalu_units_forward.default" in seen.names


def test_other_transforms_are_as_they_were(backend: Backend, rng: Generator) -> None:
    """Per-unit gradients inside of vmap, nested maps, gradients of gradients: by the formula."""
    layers, whole = make("NALU", 3, dtype=torch.float64, device=backend.device)
    state, _ = stack_module_state(layers)
    x = draw(rng, 5, 4).double().to(backend.device)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = functional_call(layers[0], parameters, (x,))
        return output.square().sum()

    found = vmap(grad(loss), in_dims=(0, None))(state, x)
    whole.zero_grad()
    whole(x).square().sum().backward()
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
    nested = vmap(lambda p: vmap(lambda row: functional_call(layers[0], p, (row,)))(x))(state)
    torch.testing.assert_close(nested, whole(x))
    inside = grad(lambda x: vmap(layers[0])(x).square().sum())(x)
    torch.testing.assert_close(inside, grad(lambda x: layers[0](x).square().sum())(x))
    parameters = [p.detach().requires_grad_() for p in whole.parameters()]
    small = draw(rng, 3, 1, 4).double().to(backend.device).requires_grad_()
    names = [name for name, _ in whole.named_parameters()]
    assert torch.autograd.gradgradcheck(
        lambda x, *own: functional_call(whole, dict(zip(names, own, strict=True)), (x,)),
        (small, *parameters),
    )


@by_kernels
@by_layer
def test_operators(name: str, backend: Backend, rng: Generator) -> None:
    _, whole = make(name, 3, device=backend.device)
    kernels = {"NACSigma": "npu", "NACNMU": "npu", "GNALU": "nalu", "RealNPU": "npu"}
    kind = type(whole).__name__
    if kind in ("NACSigma", "NACNMU", "GNALU"):  # of another's function
        return
    row = family.OVER_UNITS[kernels.get(kind, kind.lower())]
    values = {"eps": 1e-3, "log_space": "log" in name, "omega": 20.0, "training": False}
    values |= {"per_sample": "vector" in name, "straight_through": True}
    options = [values[option] for option in row.options]
    x = draw(rng, 3, 5, 4).to(backend.device)
    named = {name: given for name, given in whole._parameters.items() if given is not None}
    given = [x, *(named.get(tensor) for tensor in row.tensors[1:])]
    given = [tensor if tensor is None else tensor.detach() for tensor in given]
    packets = getattr(torch.ops, dispatch._BACKENDS[backend.name].namespace)
    forward = getattr(packets, f"{row.name}_forward").default
    backward = getattr(packets, f"{row.name}_backward").default
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    opcheck(forward, (*options, True, *given), test_utils=tests)
    leaves = [tensor if tensor is None else tensor.requires_grad_() for tensor in given]
    opcheck(getattr(packets, row.name).default, (*options, *leaves), test_utils=tests)
    with torch.no_grad():
        output, saved = forward(*options, True, *given)
        kept = output if row.keeps_output is not None and row.keeps_output(options) else saved
        bits = sum(1 << i for i, tensor in enumerate(given) if tensor is not None)
        whole_grads = backward(*options, bits, output, kept, *given)
        for i, tensor in enumerate(given):
            alone = backward(*options, 1 << i if tensor is not None else 0, output, kept, *given)
            assert [of is None for of in alone] == [
                k != i or tensor is None for k in range(len(given))
            ]
            assert tensor is None or torch.equal(alone[i], whole_grads[i])
        with FakeTensorMode() as mode:
            fake = [tensor if tensor is None else mode.from_tensor(tensor) for tensor in given]
            y, other = forward(*options, True, *fake)
            assert (y.shape, other.shape) == (output.shape, saved.shape)


@by_kernels
@pytest.mark.parametrize("name", ["NAC-log_space", "NALU", "NMU"])
def test_compile_and_export(name: str, backend: Backend, rng: Generator) -> None:
    _, whole = make(name, 3, device=backend.device)
    for x in (draw(rng, 3, 5, 4).to(backend.device), draw(rng, 5, 4).to(backend.device)):
        compiled = torch.compile(whole, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), whole(x))
        program = torch.export.export(whole, (x,))
        assert "_units" in str(program.graph)
        with use_backend("reference"):
            plain = torch.export.export(whole, (x,))
        assert "nalu_kernels" not in str([node.target for node in plain.graph.nodes])
        torch.testing.assert_close(plain.module()(x), whole(x))


@on_cpu
@by_layer
def test_checks_leave_nothing_in_a_graph(name: str, backend: Backend, rng: Generator) -> None:
    _, whole = make(name, 3)
    for x in (draw(rng, 3, 5, 4), draw(rng, 5, 4)):
        program = torch.export.export(whole, (x,))
        made = [node for node in program.graph.nodes if node.op == "call_function"]
        dead = [str(node.target) for node in made if not node.users]
        assert made and all("assert" in name for name in dead), dead  # torch's own, of a .to()


@by_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["NAC-log_space", "NALU", "NMU", "INALU"])
def test_every_dtype(name: str, dtype: torch.dtype, backend: Backend, rng: Generator) -> None:
    layers, whole = make(name, 3, dtype=dtype, device=backend.device)
    x = draw(rng, 3, 5, 4).to(backend.device, dtype)
    assert torch.equal(whole(x), torch.stack([layer(x[u]) for u, layer in enumerate(layers)]))
    with torch.autocast(backend.device):
        assert whole(x).dtype == (torch.float64 if dtype == torch.float64 else torch.bfloat16)


def test_of_a_stochastic_layer(rng: Generator) -> None:
    """Each unit's rows have noise of their own; in eval() there is none."""
    layers = [SNMU(4, 2) for _ in range(3)]
    whole = SNMU.stack(layers)
    x = draw(rng, 3, 5, 4)
    assert whole(x).shape == (3, 5, 2)
    whole.eval()
    wanted = torch.stack([layer.eval()(x[u]) for u, layer in enumerate(layers)])
    assert torch.equal(whole(x), wanted)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.ones(2, 5, 4), ValueError, "input: expected 3 units .* as the first dimension"),
        (torch.ones(2, 5, 4), ValueError, r"all units share is input.expand\(3, \*input.shape\)"),
        (torch.ones(3, 5, 3), ValueError, "input: expected a last dimension of in_features = 4"),
        (torch.ones(3, 5, 4).double(), TypeError, "W_hat: expected the dtype of input"),
        ([1.0], TypeError, "input: expected a torch.Tensor"),
        (torch.tensor(1.0), ValueError, "input: expected"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_words_for_wrong_inputs(
    x: Any, error: type[Exception], words: str, backend: Backend
) -> None:
    _, whole = make("NAC", 3)
    with pytest.raises(error, match=words):
        whole(x)


def test_words_for_wrong_layers() -> None:
    for layers, error, words in (
        ([], ValueError, "at least one NAC, got none"),
        ([NAC(2, 1), NALU(2, 1)], TypeError, r"layers\[1\]: expected a NAC, got NALU"),
        ([NAC(2, 1), NAC(3, 1)], ValueError, r"layers\[1\]: expected the sizes"),
        ([NAC(2, 1), NAC(2, 1, log_space=True)], ValueError, r"layers\[1\]: expected"),
        ([NAC(2, 1), NAC(2, 1).double()], ValueError, "float64"),
        ([NAC.stack([NAC(2, 1)])], ValueError, "expected one layer, got one of units"),
        ([NAC(2, 1), NAC(2, 1).requires_grad_(False)], ValueError, "frozen"),
    ):
        with pytest.raises(error, match=words):
            NAC.stack(layers)
    with pytest.raises(RuntimeError, match="expected a layer of units"):
        NAC(2, 1).unit(0)
    with pytest.raises(IndexError, match="expected -2 to 1, got 2"):
        NAC.stack([NAC(2, 1), NAC(2, 1)]).unit(2)
    for index, kind in ((1.0, "float"), (None, "NoneType"), (True, "bool")):
        with pytest.raises(TypeError, match=f"index: expected an int, got {kind}"):
            NAC.stack([NAC(2, 1), NAC(2, 1)]).unit(index)  # type: ignore[arg-type]
    W = torch.ones(2, 1, 3)
    with pytest.raises(ValueError, match="M_hat: expected 2 units"):
        nalu_kernels.nac(torch.ones(2, 5, 3), W, W[:1])
    with use_backend("reference"), pytest.raises(ValueError, match="of one unit or more"):
        nalu_kernels.nac(torch.ones(0, 5, 3), W[:0], W[:0])


class _Tagged(NALU):
    """A layer of a user's, with an attribute of its own."""

    def __init__(self, tag: Any) -> None:
        super().__init__(2, 1)
        self.tag = tag


def test_layers_that_differ_in_anything_but_numbers() -> None:
    """None of it is lost without a word."""
    for change, words in (
        (lambda layer: layer.eval(), "whose training is True, got False"),
        (lambda layer: layer.G.requires_grad_(False), "whose G is .*, got .* frozen"),
        (
            lambda layer: setattr(layer, "G", nn.Parameter(layer.G.new_ones(2, 2))),
            r"whose G is '\(1, 2\).*, got '\(2, 2\)",
        ),
        (
            lambda layer: setattr(layer, "eps", 1.0000001e-7),
            "whose eps is 1e-07, got 1.0000001e-07",
        ),
        (lambda layer: setattr(layer, "G", nn.Parameter(layer.G.double())), "got .*float64"),
        (lambda layer: setattr(layer, "tag", 1), "whose tag is 0, got 1"),
        (lambda layer: setattr(layer, "tag", torch.ones(2)), "whose tag is 0, got tensor"),
        (lambda layer: setattr(layer, "other", 1), "whose other is None, got 1"),
    ):
        layers = [_Tagged(0) for _ in range(3)]
        change(layers[2])
        with pytest.raises(ValueError, match=rf"layers\[2\]: expected the sizes.* {words}"):
            _Tagged.stack(layers)
    assert _Tagged.stack([_Tagged((1, 2)), _Tagged((1, 2))]).tag == (1, 2)


def test_layers_with_hooks_and_more() -> None:
    """A hook of one layer would be called with all units, or not at all."""

    def hook(*arguments: Any) -> None:
        raise AssertionError

    for change, words in (
        (lambda layer: layer.register_forward_hook(hook), "forward hook, test_.*hook"),
        (lambda layer: layer.register_forward_pre_hook(hook, with_kwargs=True), "forward pre hook"),
        (lambda layer: layer.register_full_backward_hook(hook), "a backward hook"),
        (lambda layer: layer.register_state_dict_pre_hook(hook), "state dict pre hook"),
        (lambda layer: layer.W_hat.register_hook(hook), "whose W_hat has some"),
        (lambda layer: layer.G.register_post_accumulate_grad_hook(hook), "whose G has some"),
        (lambda layer: layer.register_buffer("seen", torch.zeros(1)), "also holds seen"),
        (lambda layer: prune.identity(layer, "W_hat"), "whose W_hat is its own"),
    ):
        layers = [NALU(2, 1) for _ in range(3)]
        whole = NALU.stack(layers)
        change(layers[1])
        with pytest.raises(ValueError, match=rf"layers\[1\]: expected a NALU .*{words}"):
            NALU.stack(layers)
        change(whole)
        with pytest.raises(RuntimeError, match=f"expected a (stacked )?NALU .*{words}"):
            whole.unit(0)


def test_converted_layers_are_stacked() -> None:
    """What renames their old checkpoints is of single layers, and stays behind."""
    layers = [NALU(2, 1) for _ in range(2)]
    for layer in layers:
        layer.register_load_state_dict_pre_hook(lambda *_: None)
    whole = NALU.stack(layers)
    assert layers[0]._load_state_dict_pre_hooks and not whole._load_state_dict_pre_hooks
    assert torch.equal(whole.unit(1).G, layers[1].G)
