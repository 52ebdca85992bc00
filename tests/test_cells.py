"""NACCell and NALUCell: torch.nn.RNNCell's habits, the layer on [input, state]."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import nalu_kernels
from conftest import Backend
from nalu_kernels import NAC, NALU, NACCell, NALUCell, reference

Factory = Callable[..., nn.Module]
OPTIONS: dict[str, tuple[type[nn.Module], dict[str, object]]] = {
    "NAC": (NACCell, {}),
    "NAC-log_space": (NACCell, {"log_space": True, "eps": 1e-3}),
    "NALU": (NALUCell, {}),
    "NALU-all": (
        NALUCell,
        {"eps": 1e-3, "tied": False, "gate": "sample", "gate_bias": True},
    ),
}


@pytest.fixture(params=OPTIONS)
def make(request: pytest.FixtureRequest) -> Factory:
    kind, options = OPTIONS[request.param]
    return lambda *args, **more: kind(*args, **options, **more)


def layer_of(cell: nn.Module) -> NAC | NALU:
    return cell.nac if isinstance(cell, NACCell) else cell.nalu


def test_shapes_as_of_rnncell(make: Factory, backend: Backend, rng: torch.Generator) -> None:
    cell = make(3, 2, device=backend.device)
    like = nn.RNNCell(3, 2, device=backend.device)
    for leading in ((4,), (), (0,), (1,)):
        x = torch.rand(*leading, 3, generator=rng).to(backend.device)
        h = torch.rand(*leading, 2, generator=rng).to(backend.device)
        assert cell(x).shape == like(x).shape == (*leading, 2)
        assert cell(x, h).shape == like(x, h).shape


def test_no_state_is_zeros(make: Factory, backend: Backend, rng: torch.Generator) -> None:
    cell = make(3, 2, device=backend.device)
    x = torch.rand(5, 3, generator=rng).to(backend.device)
    assert torch.equal(cell(x), cell(x, torch.zeros(5, 2, device=backend.device)))


def off(given: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest error, as a share of the largest value: products over time grow large."""
    return float((given - wanted).detach().abs().max() / wanted.detach().abs().max())


def test_is_the_layer_on_input_and_state(
    make: Factory, backend: Backend, rng: torch.Generator
) -> None:
    """Over six steps, with gradients through all of them, against the formulas in float64."""
    cell = make(3, 2, device=backend.device, dtype=torch.float64)
    exact = copy.deepcopy(cell)
    x = torch.rand(6, 5, 3, generator=rng, dtype=torch.float64).add(0.5)
    h = torch.rand(5, 2, generator=rng, dtype=torch.float64).add(0.5)
    inputs = [tensor.to(backend.device).requires_grad_() for tensor in (x, h)]
    wide = [tensor.detach().clone().requires_grad_() for tensor in inputs]

    state = inputs[1]
    for step in inputs[0]:
        state = cell(step, state)
    true = wide[1]
    layer = layer_of(exact)
    for step in wide[0]:
        joined = torch.cat((step, true), dim=1)
        if isinstance(layer, NAC):
            true = reference.nac(
                joined, layer.W_hat, layer.M_hat, log_space=layer.log_space, eps=layer.eps
            )
        else:
            true = reference.nalu(
                joined,
                layer.W_hat,
                layer.M_hat,
                layer.G,
                gate_bias=layer.gate_bias,
                W_hat_mul=layer.W_hat_mul,
                M_hat_mul=layer.M_hat_mul,
                eps=layer.eps,
            )
    assert off(state, true) < 1e-9
    state.sum().backward()
    true.sum().backward()
    pairs = zip([*cell.parameters(), *inputs], [*exact.parameters(), *wide], strict=True)
    for given, wanted in pairs:
        assert off(given.grad, wanted.grad) < 1e-9


def test_columns_are_the_inputs_then_the_states() -> None:
    cell = NACCell(2, 1)
    large = torch.tensor([[30.0, -30.0, 30.0]])
    with torch.no_grad():
        cell.nac.W_hat.copy_(large)
        cell.nac.M_hat.fill_(30.0)
    state = None
    for a, b in ((5.0, 1.0), (7.0, 2.0), (0.5, 0.25)):
        state = cell(torch.tensor([[a, b]]), state)
    assert state.item() == 5 - 1 + 7 - 2 + 0.5 - 0.25


def test_a_sum_over_many_steps_is_kept() -> None:
    cell = NACCell(1, 1)
    with torch.no_grad():
        cell.nac.W_hat.fill_(30.0)
        cell.nac.M_hat.fill_(30.0)
        state = None
        for _ in range(1000):
            state = cell(torch.ones(2, 1), state)
    assert state.tolist() == [[1000.0], [1000.0]]


def test_products_over_time_start_from_ones() -> None:
    cell = NACCell(1, 1, log_space=True)
    with torch.no_grad():
        cell.nac.W_hat.fill_(30.0)
        cell.nac.M_hat.fill_(30.0)
        state = torch.ones(1, 1)
        for factor in (2.0, 3.0, 7.0):
            state = cell(torch.tensor([[factor]]), state)
    assert state.item() == pytest.approx(42, rel=1e-5)


def test_state_dict_copy_and_reset(make: Factory) -> None:
    cell = make(3, 2)
    twin = copy.deepcopy(cell)
    twin.reset_parameters()
    assert not torch.equal(layer_of(cell).W_hat, layer_of(twin).W_hat)
    twin.load_state_dict(cell.state_dict())
    x = torch.rand(4, 3)
    assert torch.equal(cell(x), twin(x))
    assert {name.split(".")[0] for name in cell.state_dict()} <= {"nac", "nalu"}


def test_dtype_and_device(make: Factory) -> None:
    cell = make(3, 2, dtype=torch.float64, device="meta")
    assert all(p.dtype == torch.float64 and p.is_meta for p in cell.parameters())
    assert cell(torch.empty(4, 3, dtype=torch.float64, device="meta")).shape == (4, 2)


def test_autocast(make: Factory) -> None:
    cell = make(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = cell(torch.rand(4, 3))
        assert state.dtype == torch.bfloat16
        assert cell(torch.rand(4, 3), state).dtype == torch.bfloat16


def test_compiled(make: Factory) -> None:
    cell = make(3, 2)

    def sequence(x: torch.Tensor) -> torch.Tensor:
        state = None
        for step in x:
            state = cell(step, state)
        return state

    x = torch.rand(3, 4, 3).add(0.5)
    compiled = torch.compile(sequence, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), sequence(x))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((torch.rand(4, 2),), ValueError, r"input: expected shape \(batch, 3\) or \(3,\), got"),
        (
            (torch.rand(4, 5, 3),),
            ValueError,
            r"input: .* got \(4, 5, 3\); a cell takes one step of a sequence: for x in input",
        ),
        ((torch.tensor(1.0),), ValueError, r"input: .* got \(\)"),
        (([1.0, 2.0, 3.0],), TypeError, r"input: expected a torch.Tensor, got list"),
        ((torch.rand(4, 3), torch.rand(5, 2)), ValueError, r"hx: expected shape \(4, 2\), got"),
        ((torch.rand(4, 3), torch.rand(4, 3)), ValueError, r"hx: expected shape \(4, 2\), got"),
        ((torch.rand(3), torch.rand(1, 2)), ValueError, r"hx: expected shape \(2,\), got \(1, 2\)"),
        ((torch.rand(4, 3), torch.rand(4, 2).double()), TypeError, r"hx: expected the dtype of"),
        ((torch.rand(4, 3), torch.rand(4, 2, device="meta")), ValueError, r"hx: .* device of"),
        ((torch.rand(4, 3), 0.0), TypeError, r"hx: expected a torch.Tensor, got float"),
        ((torch.rand(4, 3).long(),), TypeError, r"input: expected a tensor of dtype float32"),
    ],
)
def test_wrong_arguments(
    make: Factory, arguments: tuple[object, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(3, 2)(*arguments)


@pytest.mark.parametrize("kind", [NACCell, NALUCell])
def test_wrong_options(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="input_size: expected a size of at least 0, got -1"):
        kind(-1, 2)
    with pytest.raises(TypeError, match="hidden_size: expected an int, got float"):
        kind(1, 2.0)
    with pytest.raises(ValueError, match="eps: expected a positive finite float"):
        kind(1, 2, eps=0.0)


def test_repr() -> None:
    assert repr(NACCell(3, 2)).startswith("NACCell(\n  input_size=3, hidden_size=2\n  (nac): NAC(")
    assert "(nalu): NALU(in_features=5, out_features=2" in repr(NALUCell(3, 2))


def test_public() -> None:
    assert {"NACCell", "NALUCell"} <= set(nalu_kernels.__all__)
