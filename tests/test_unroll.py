"""Cells over whole sequences: one call is the loop of single calls, in everything but time."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any, cast

import pytest
import torch
from torch import Generator, Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, stack_module_state, vmap
from torch.library import opcheck

import nalu_kernels
from conftest import Backend
from nalu_kernels import (
    INALUCell,
    NACCell,
    NALUCell,
    NAUCell,
    NMUCell,
    RealNPUCell,
    family,
    use_backend,
    which_backend,
)
from nalu_kernels.dispatch import namespace
from nalu_kernels.triton import FUNCTIONS as TRITON
from parity import threads
from selection import only, pairs, slow

pytestmark = pairs

CELLS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "NAC": (NACCell, {}),
    "NAC-log_space": (NACCell, {"log_space": True, "eps": 1e-3}),
    "NALU": (NALUCell, {}),
    "NALU-untied": (NALUCell, {"tied": False, "gate": "sample", "gate_bias": True}),
    "NALU-biased": (NALUCell, {"gate_bias": True, "eps": 1e-3}),
    "NAU": (NAUCell, {}),
    "NMU": (NMUCell, {}),
    "INALU": (INALUCell, {}),
    "INALU-matrix": (INALUCell, {"gate": "matrix", "tied": True}),
    "INALU-vector": (INALUCell, {"gate": "vector"}),
    "RealNPU": (RealNPUCell, {}),
    "RealNPU-clamped": (RealNPUCell, {"gate_gradient": "clamped", "eps": 1e-3}),
}


def has_kernels(name: str, backend: Backend) -> bool:
    """Whether it has some over time."""
    function = CELLS[name][0]._over_time.name
    return backend.name in ("cpu", "cuda") or (backend.name == "triton" and function in TRITON)


by_cell = pytest.mark.parametrize("name", CELLS)
on_cpu = only(lambda backend: backend.name == "cpu")
# Has kernels over time, or is the loop that these are held to.
compared = only(lambda backend: backend.name in ("cpu", "cuda", "reference"))
with_kernels = only(lambda name, backend: has_kernels(name, backend))
compared_or_interpreted = only(
    lambda name, backend: backend.name == "reference" or has_kernels(name, backend)
)
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 1e-3,
    torch.bfloat16: 0.15,
    torch.float16: 0.03,
}


def make(name: str, features: int = 3, state: int = 2, **options: Any) -> Any:
    kind, own = CELLS[name]
    return kind(features, state, **own, **options)


def draw(
    rng: Generator,
    steps: int,
    batch: int,
    features: int = 3,
    state: int = 2,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Numbers of both signs, away from 0, and a state near the product of nothing."""
    x = torch.rand(steps, batch, features, generator=rng, dtype=torch.float64) + 0.4
    x = x * torch.where(torch.rand(x.shape, generator=rng) < 0.2, -1, 1)
    hx = torch.rand(batch, state, generator=rng, dtype=torch.float64) + 0.5
    return x.to(device), hx.to(device)


def loop(
    cell: nn.Module,
    x: Tensor,
    hx: Tensor | None = None,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    last_only: bool = False,
) -> Tensor:
    """Single calls, row by row, and nothing shared with the library's own loop."""
    steps, batch = x.shape[:2]
    first = x.new_zeros(batch, cell.hidden_size) if hx is None else hx
    rows = []
    for b in range(batch):
        state, states = first[b], []
        for t in range(steps if lengths is None else int(lengths[b])):
            if reset is not None and reset[t, b]:
                state = first[b]
            state = cell(x[t, b], state)
            states.append(state)
        if not last_only:
            states += [torch.zeros_like(state)] * (steps - len(states))
        rows.append(state if last_only else torch.stack(states))
    return torch.stack(rows) if last_only else torch.stack(rows, dim=1)


def outcome(cell: nn.Module, output: Tensor, leaves: list[Tensor], dy: Tensor) -> list[Tensor]:
    """The output, and the gradients of the leaves and the parameters."""
    grads = torch.autograd.grad(
        output, [*leaves, *cell.parameters()], dy.to(output), allow_unused=True
    )
    zeros = [*leaves, *cell.parameters()]
    return [output.detach()] + [
        torch.zeros_like(leaf) if grad is None else grad
        for leaf, grad in zip(zeros, grads, strict=True)
    ]


def assert_near(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    """Errors as a share of each tensor's largest number: products over time grow large."""
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.shape == other.shape, number
        assert one.isfinite().all(), number
        scale = float(other.abs().max()) if other.numel() else 1.0
        error = float((one.double() - other.double()).abs().max()) if other.numel() else 0.0
        assert error <= tolerance * max(scale, 1e-30), (number, error, scale)


@compared_or_interpreted
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("resets", [False, True], ids=["", "resets"])
@by_cell
def test_is_the_loop_of_single_calls(
    name: str, resets: bool, ragged: bool, last_only: bool, backend: Backend, rng: Generator
) -> None:
    cell = make(name, dtype=torch.float64, device=backend.device)
    x, hx = draw(rng, 7, 5, device=backend.device)
    lengths = torch.tensor([7, 0, 3, 5, 1], device=backend.device) if ragged else None
    reset = (torch.rand(7, 5, generator=rng) < 0.3).to(backend.device) if resets else None
    leaves = [x.requires_grad_(), hx.requires_grad_()]
    output = cell.unroll(x, hx, lengths=lengths, reset=reset, last_only=last_only)
    with use_backend("reference") if backend.interpreted else nullcontext():  # its calls are slow
        wanted = loop(cell, x, hx, lengths, reset, last_only)
        dy = torch.randn(wanted.shape, generator=rng, dtype=torch.float64).to(x.device)
        true = outcome(cell, wanted, leaves, dy)
    assert_near(outcome(cell, output, leaves, dy), true, 1e-11)


@only(lambda backend: backend.name in ("cpu", "cuda"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@by_cell
def test_every_dtype(name: str, dtype: torch.dtype, backend: Backend, rng: Generator) -> None:
    """Against the formulas in float64; a state of half precision is rounded as in the loop."""
    cell = make(name, features=4, state=3, dtype=dtype, device=backend.device)
    drawn = draw(rng, 3, 37, 4, 3, backend.device)
    x, hx = (tensor.abs().to(dtype).requires_grad_() for tensor in drawn)
    exact = copy.deepcopy(cell).double()
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, hx)]
    dy = torch.randn(3, 37, 3, generator=rng).to(x)
    with use_backend("reference"):
        wanted = outcome(exact, exact.unroll(*wide), wide, dy)
    output = cell.unroll(x, hx)
    assert output.dtype == dtype
    assert_near(outcome(cell, output, [x, hx], dy), wanted, TOLERANCE[dtype])


@by_cell
def test_every_back_end(name: str, backend: Backend, rng: Generator) -> None:
    """Where there is no kernel over time the steps are calls of the layer's."""
    cell = make(name, device=backend.device)
    x, hx = (tensor.float() for tensor in draw(rng, 3, 2, device=backend.device))
    lengths = torch.tensor([3, 1], device=backend.device)
    with torch.no_grad():
        output = cell.unroll(x, hx, lengths=lengths)
        wanted = loop(cell, x, hx, lengths)
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-5)
    over_time = cell._over_time.name
    chosen, reason = which_backend(x, over_time)
    there = has_kernels(name, backend)
    assert chosen == (backend.name if there else "reference")
    if not there and backend.name != "reference":
        assert f"no kernels of {over_time}" in reason


interpreted = only(lambda name, backend: backend.interpreted and has_kernels(name, backend))


@interpreted
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@by_cell
def test_every_dtype_is_as_on_the_cpu(
    name: str, dtype: torch.dtype, last_only: bool, backend: Backend, rng: Generator
) -> None:
    """Two blocks of rows. States of half precision are rounded alike; where one rounds to the other
    side, though, gradients may be far off, as of log x near 0."""
    cell = make(name, features=4, state=3, dtype=dtype)
    x, hx = (tensor.abs().to(dtype).requires_grad_() for tensor in draw(rng, 3, 19, 4, 3))
    lengths, reset = torch.arange(19) % 4, torch.rand(3, 19, generator=rng) < 0.2
    results = []
    for name_of_backend in ("triton", "cpu"):
        with use_backend(name_of_backend):
            output = cell.unroll(x, hx, lengths=lengths, reset=reset, last_only=last_only)
            dy = torch.linspace(-1, 1, output.numel()).view(output.shape)
            results.append(outcome(cell, output, [x, hx], dy))
    found, wanted = results
    assert [one.dtype for one in found] == [dtype] * len(found)
    if dtype == torch.float32:
        assert_near(found, wanted, 1e-4)
    else:
        assert_near(found[:1], wanted[:1], TOLERANCE[dtype])


@interpreted
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
@by_cell
def test_of_a_large_cell_the_steps_are_calls_of_its_layer(
    name: str, last_only: bool, backend: Backend, rng: Generator
) -> None:
    """Where a program of the Triton kernels could not hold a step."""
    cell = make(name, 14, 17, dtype=torch.float64)
    x, hx = (tensor.requires_grad_() for tensor in draw(rng, 5, 3, 14, 17))
    lengths, reset = torch.tensor([5, 0, 3]), torch.rand(5, 3, generator=rng) < 0.3
    output = cell.unroll(x, hx, lengths=lengths, reset=reset, last_only=last_only)
    dy = torch.randn(output.shape, generator=rng, dtype=torch.float64)
    found = outcome(cell, output, [x, hx], dy)
    with use_backend("reference"):
        wanted = loop(cell, x, hx, lengths, reset, last_only)
    assert_near(found, outcome(cell, wanted, [x, hx], dy), 1e-11)
    assert which_backend(x, cell._over_time.name)[0] == "triton"


@compared_or_interpreted
@by_cell
def test_few_steps_rows_and_no_state(name: str, backend: Backend, rng: Generator) -> None:
    cell = make(name, dtype=torch.float64, device=backend.device)
    x, hx = draw(rng, 4, 3, device=backend.device)
    for steps, batch in ((0, 3), (1, 3), (4, 0), (0, 0), (4, 1)):
        part, first = x[:steps, :batch], hx[:batch]
        assert cell.unroll(part, first).shape == (steps, batch, 2)
        last = cell.unroll(part, first, last_only=True)
        assert torch.equal(last, cell.unroll(part, first)[-1] if steps else first)
    assert torch.equal(cell.unroll(x), cell.unroll(x, torch.zeros_like(hx)))
    assert torch.equal(cell.unroll(x[:0], last_only=True), torch.zeros_like(hx))
    assert cell.unroll(x[:0], hx, last_only=True) is not hx
    leaves = [x[:0].requires_grad_(), hx.requires_grad_()]
    for last_only in (False, True):
        output = cell.unroll(*leaves, last_only=last_only)
        grads = outcome(cell, output, leaves, torch.ones_like(output))[1:]
        assert torch.equal(grads[1], torch.full_like(hx, float(last_only)))
        assert all(not grad.any() for grad in grads[2:])


@compared
@pytest.mark.parametrize("sizes", [(1, 0), (0, 0), (0, 2)], ids=str)
@by_cell
def test_no_input_and_no_state(
    name: str, sizes: tuple[int, int], backend: Backend, rng: Generator
) -> None:
    cell = make(name, *sizes, device=backend.device)
    x = torch.rand(3, 4, sizes[0], generator=rng).to(backend.device).requires_grad_()
    for last_only in (False, True):
        output = cell.unroll(x, last_only=last_only)
        assert output.shape == ((4, sizes[1]) if last_only else (3, 4, sizes[1]))
        output.sum().backward()


@compared
def test_a_sequence_without_a_batch(backend: Backend, rng: Generator) -> None:
    cell = make("NALU", dtype=torch.float64, device=backend.device)
    x, hx = draw(rng, 6, 1, device=backend.device)
    reset = torch.tensor([0, 0, 1, 0, 0, 0], dtype=torch.bool, device=backend.device)
    length = torch.tensor(4, device=backend.device)
    whole = cell.unroll(x, hx, lengths=length.unsqueeze(0), reset=reset.unsqueeze(1))
    alone = cell.unroll(x[:, 0], hx[0], lengths=length, reset=reset)
    assert torch.equal(alone, whole[:, 0])
    assert cell.unroll(x[:, 0], last_only=True).shape == (2,)


@only(lambda backend: backend.name in ("cpu", "cuda"))
def test_many_steps(backend: Backend) -> None:
    """A counter: its weights are 1, and so are the gradients of all that it counts."""
    steps = 1000 if backend.emulated else 100_000
    cell = make("NAC", 1, 1, device=backend.device)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(30.0)
    x = torch.ones(steps, 2, 1, device=backend.device, requires_grad=True)
    states = cell.unroll(x)
    counted = torch.arange(1.0, steps + 1, device=backend.device)
    assert torch.equal(states[:, 0, 0].detach(), counted)
    for last in (states[-1], cell.unroll(x, last_only=True)):
        (grad,) = torch.autograd.grad(last.sum(), x)
        assert torch.equal(last.detach(), torch.full_like(x[0], float(steps)))
        assert torch.equal(grad, torch.ones_like(grad))


@on_cpu
@pytest.mark.long(quicker="test_many_steps")
def test_more_numbers_than_an_int_counts(backend: Backend) -> None:
    cell = make("NAU", 64, 1)
    with torch.no_grad():
        cell.nau.W.copy_(torch.eye(65)[:1] + torch.eye(65)[64:])
    x = torch.zeros(1, 128, 64)
    x[0, 127, 0] = 1.0
    steps = 300_000
    last = cell.unroll(x.expand(steps, 128, 64), last_only=True)
    assert x.expand(steps, 128, 64).numel() > 2**31
    assert last[127].item() == steps and not last[:127].any()


@compared_or_interpreted
@by_cell
def test_nan_and_infinity_stand_where_the_loop_has_them(
    name: str, backend: Backend, rng: Generator
) -> None:
    cell = make(name, device=backend.device)
    x, hx = (tensor.float() for tensor in draw(rng, 6, 5, device=backend.device))
    x[2, 1, 0], x[3, 2, 1], x[1, 3, 2], x[4, 4] = torch.nan, torch.inf, -torch.inf, 0.0
    x.requires_grad_()
    output, wanted = cell.unroll(x, hx), loop(cell, x, hx)
    for what in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(what(output), what(wanted)), what
    assert output[:, 0].isfinite().all()
    assert output[0].isfinite().all()
    found, true = (torch.autograd.grad(of[:, 0].sum(), x)[0] for of in (output, wanted))
    assert torch.equal(found[:, 0].isnan(), true[:, 0].isnan())


@compared_or_interpreted
@by_cell
def test_what_lies_behind_the_end_is_not_read(name: str, backend: Backend, rng: Generator) -> None:
    cell = make(name, dtype=torch.float64, device=backend.device)
    x, hx = draw(rng, 6, 4, device=backend.device)
    lengths = torch.tensor([2, 6, 0, 5], device=backend.device)
    spoiled = x.clone()
    for b, length in enumerate(lengths.tolist()):
        spoiled[length:, b] = torch.nan
    for last_only in (False, True):
        results = []
        for given in (x, spoiled):
            leaves = [given.detach().clone().requires_grad_(), hx.clone().requires_grad_()]
            output = cell.unroll(*leaves, lengths=lengths, last_only=last_only)
            results.append(outcome(cell, output, leaves, torch.ones_like(output)))
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
        assert not results[0][1][2:, 0].any()


@compared_or_interpreted
@pytest.mark.parametrize("zeros", [1, 2, 3])
@pytest.mark.parametrize("name", ["NMU", "INALU", "INALU-vector", "RealNPU"])
def test_gradients_where_factors_are_0(
    name: str, zeros: int, backend: Backend, rng: Generator
) -> None:
    """Some are, or tiny, or negative: of weights of 1, and of an iNALU's sign of those of 1/2."""
    cell = make(name, dtype=torch.float64, device=backend.device)
    x, hx = draw(rng, 4, 4, device=backend.device)
    with torch.no_grad():
        for parameter_name, parameter in cell.named_parameters():
            if "_hat" in parameter_name:
                parameter.fill_(30.0 if "W_" in parameter_name else 0.0)
            elif parameter.dim() == 2:
                parameter.fill_(1.0)
    x[1, 0, :zeros] = -0.7 if name.startswith("INALU") else 0.0
    x[2, 1, :zeros], x[1, 2, :zeros] = 1e-30, -x[1, 2, :zeros].abs()
    leaves = [x.requires_grad_(), hx.requires_grad_()]
    output = cell.unroll(x, hx)
    with use_backend("reference") if backend.interpreted else nullcontext():  # as above
        wanted = loop(cell, x, hx)
        dy = torch.randn(wanted.shape, generator=rng, dtype=torch.float64).to(x.device)
        true = outcome(cell, wanted, leaves, dy)
    assert_near(outcome(cell, output, leaves, dy), true, 1e-11)


@interpreted
@pytest.mark.parametrize("name", ["RealNPU"])
def test_imaginary_weights_too(name: str, backend: Backend, rng: Generator) -> None:
    """No cell has them, but the operator takes them."""
    x, hx = draw(rng, 5, 4)
    W_re, W_im = torch.randn(2, 2, 5, generator=rng, dtype=torch.float64) * 0.3
    leaves = [x, W_re, torch.full((5,), 0.7, dtype=torch.float64), W_im, hx]
    dy = torch.randn(5, 4, 2, generator=rng, dtype=torch.float64)
    results = []
    for name_of_backend in ("triton", "cpu"):
        given = [leaf.detach().requires_grad_() for leaf in leaves]
        operator = getattr(torch.ops, namespace(name_of_backend)).npu_unroll.default
        output = operator(1e-7, True, False, *given)
        results.append([output.detach(), *torch.autograd.grad(output, given, dy)])
    assert_near(*results, 1e-11)


@with_kernels
@by_cell
def test_layouts(name: str, backend: Backend, rng: Generator) -> None:
    """Batch first, every second step, one row for all, a gradient of a sum."""
    cell = make(name, dtype=torch.float64, device=backend.device)
    x, hx = draw(rng, 6, 37, device=backend.device)
    hx = hx.requires_grad_()

    def found(given: Tensor, dy: Tensor) -> list[Tensor]:
        leaf = given.detach().requires_grad_()
        return outcome(cell, cell.unroll(leaf, hx), [leaf, hx], dy)

    dy = torch.randn(6, 37, 2, generator=rng, dtype=torch.float64).to(x.device)
    batch_first = x.transpose(0, 1).contiguous().transpose(0, 1)
    spread = x.new_full((12, 37, 7), torch.nan)
    spread[::2, :, 1:7:2] = x
    wanted = found(x, dy)
    assert_near(found(batch_first, dy), wanted, 1e-12)
    assert_near(found(spread[::2, :, 1:7:2], dy.transpose(0, 1).contiguous().mT.mT.transpose(0, 1)),
                wanted, 1e-12)  # fmt: skip
    one = x[:1, :1].expand_as(x)
    ones = x.new_ones(1, 1, 1).expand_as(dy)
    assert_near(found(one, ones), found(one.contiguous(), ones.contiguous()), 1e-12)


@on_cpu
@by_cell
def test_the_same_bits_by_every_number_of_threads(
    name: str, backend: Backend, rng: Generator
) -> None:
    for features, state, batch in ((3, 2, 3000), (140, 120, 3)):
        cell = make(name, features, state)
        x, hx = (tensor.float() for tensor in draw(rng, 4, batch, features, state))
        leaves = [x.requires_grad_(), hx.requires_grad_()]
        dy = torch.randn(4, batch, state, generator=rng)
        wanted = outcome(cell, cell.unroll(*leaves), leaves, dy)
        for count in (2, 3):
            with threads(count):
                found = outcome(cell, cell.unroll(*leaves), leaves, dy)
            assert all(map(torch.equal, found, wanted)), (batch, count)


@compared
@by_cell
def test_gradients_of_gradients(name: str, backend: Backend, rng: Generator) -> None:
    cell = make(name, 2, 1, dtype=torch.float64, device=backend.device)
    x, hx = (tensor.requires_grad_() for tensor in draw(rng, 3, 2, 2, 1, backend.device))
    lengths = torch.tensor([3, 2], device=backend.device)
    parameters = dict(cell.named_parameters())

    def run(x: Tensor, hx: Tensor, *values: Tensor) -> Tensor:
        given = {f"cell.{name}": value for name, value in zip(parameters, values, strict=True)}
        return torch.func.functional_call(_Unrolled(cell), given, (x, hx, lengths))

    arguments = (x, hx, *parameters.values())
    assert torch.autograd.gradcheck(run, arguments)
    assert torch.autograd.gradgradcheck(run, arguments)


class _Unrolled(nn.Module):
    def __init__(self, cell: nn.Module, last_only: bool = False) -> None:
        super().__init__()
        self.cell, self.last_only = cell, last_only

    def forward(self, x: Tensor, hx: Tensor, lengths: Tensor | None = None) -> Tensor:
        output: Tensor = self.cell.unroll(x, hx, lengths=lengths, last_only=self.last_only)
        return output


@compared
def test_transforms(backend: Backend, rng: Generator) -> None:
    cell = make("NALU", dtype=torch.float64, device=backend.device)
    x, hx = draw(rng, 4, 3, device=backend.device)
    wanted = cell.unroll(x, hx)
    each = torch.func.vmap(lambda row, h: cell.unroll(row, h), in_dims=(1, 0), out_dims=1)
    torch.testing.assert_close(each(x, hx), wanted)
    tangent = torch.randn(x.shape, generator=rng, dtype=torch.float64).to(x.device)
    value, moved = torch.func.jvp(lambda x: cell.unroll(x, hx), (x,), (tangent,))
    torch.testing.assert_close(value, wanted)
    step = 1e-6
    ahead, back = (cell.unroll(x + sign * step * tangent, hx) for sign in (1, -1))
    torch.testing.assert_close(moved, (ahead - back) / (2 * step), rtol=1e-6, atol=1e-7)
    grad = torch.func.grad(lambda x: cell.unroll(x, hx).sum())(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(grad, torch.autograd.grad(cell.unroll(leaf, hx).sum(), leaf)[0])
    seen = []
    torch.func.vmap(lambda row: seen.append(which_backend(row, "nalu_unroll")) or row)(x)
    assert seen[0][0] == "reference" and "torch.func" in seen[0][1]


@with_kernels
@slow(lambda name, backend, last_only: backend.interpreted and (name != "NALU") == last_only)
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
@by_cell
def test_operators(name: str, last_only: bool, backend: Backend, rng: Generator) -> None:
    cell = make(name)
    function = cell._over_time
    layer = getattr(cell, cell._name)
    x, hx = (tensor.float() for tensor in draw(rng, 5, 4))
    eps = torch.finfo(x.dtype).eps  # where a RealNPUCell has None
    options = (*(eps if of is None else of for of in cell._options_of(layer)), last_only)
    missing = [None] * (len(function.layer.tensors) - 1 - len(layer._tensors(x)))
    own = [tensor if tensor is None else tensor.detach() for tensor in layer._tensors(x)]
    reset = torch.rand(5, 4, generator=rng) < 0.3
    given = [x, *own, *missing, hx, torch.tensor([5, 2, 0, 4]), reset]
    packets = getattr(torch.ops, namespace(backend.name))
    forward = getattr(packets, f"{function.name}_forward").default
    backward = getattr(packets, f"{function.name}_backward").default
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    opcheck(forward, (*options, True, *given), test_utils=tests)
    leaves = [
        tensor.requires_grad_() if tensor is not None and tensor.is_floating_point() else tensor
        for tensor in given
    ]
    opcheck(getattr(packets, function.name).default, (*options, *leaves), test_utils=tests)
    with torch.no_grad():
        output, saved = forward(*options, True, *given)
        states = saved if last_only else output
        assert saved.numel() == (2 * 4 * 2 if last_only else 0)  # after every third step
        wanted = [i for i, leaf in enumerate(leaves) if leaf is not None and leaf.requires_grad]
        whole = backward(*options, sum(1 << i for i in wanted), output, states, *given)
        for i in range(len(given)):
            needed = 1 << i if i in wanted else 0
            alone = backward(*options, needed, output, states, *given)
            assert [grad is None for grad in alone] == [
                k != i or not needed for k in range(len(given))
            ]
            assert not needed or torch.equal(alone[i], whole[i])
        with FakeTensorMode() as mode:
            fake = [tensor if tensor is None else mode.from_tensor(tensor) for tensor in given]
            y, kept = forward(*options, True, *fake)
            assert (y.shape, kept.shape) == (output.shape, saved.shape)


@on_cpu
def test_of_the_last_state_few_are_kept(backend: Backend, rng: Generator) -> None:
    cell = make("NAC")
    x, hx = (tensor.float() for tensor in draw(rng, 1000, 2))
    forward = torch.ops.nalu_kernels.nac_unroll_forward
    parameters = [parameter.detach() for parameter in cell.parameters()]
    assert forward(1e-7, False, True, True, x, *parameters, hx)[1].numel() == 32 * 2 * 2
    assert forward(1e-7, False, True, False, x, *parameters, hx)[1].numel() == 0


@on_cpu
@pytest.mark.parametrize("name", ["NAC", "NALU-untied", "RealNPU"])
def test_compile_and_export(name: str, backend: Backend, rng: Generator) -> None:
    cell = make(name)
    x, hx = (tensor.float() for tensor in draw(rng, 4, 3))
    lengths = torch.tensor([4, 2, 1])
    for last_only in (False, True):
        model = _Unrolled(cell, last_only)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        leaf = x.clone().requires_grad_()
        output = model(leaf, hx, lengths)
        wanted = outcome(cell, output, [leaf], torch.ones_like(output))
        found = outcome(cell, compiled(leaf, hx, lengths), [leaf], torch.ones_like(output))
        assert_near(found, wanted, 1e-6)
        program = torch.export.export(model, (x, hx, lengths))
        assert f"nalu_kernels.{cell._over_time.name}" in str(program.graph)
        calls = [node for node in program.graph.nodes if node.op == "call_function"]
        assert all(node.users for node in calls)  # of the checks nothing
        torch.testing.assert_close(program.module()(x, hx, lengths), wanted[0])
        with use_backend("reference"):  # for exporters that know no other operators
            plain = torch.export.export(model, (x, hx, lengths))
        assert "nalu_kernels" not in str([node.target for node in plain.graph.nodes])
        torch.testing.assert_close(plain.module()(x, hx, lengths), wanted[0])


@on_cpu
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
def test_any_number_of_steps_is_one_graph(
    last_only: bool, backend: Backend, rng: Generator
) -> None:
    model = _Unrolled(make("NALU"), last_only)
    x, hx = (tensor.float() for tensor in draw(rng, 4, 3))
    other, first = (tensor.float() for tensor in draw(rng, 9, 5))
    any_size = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        model, (x, hx), dynamic_shapes=({0: any_size, 1: any_size}, {0: any_size})
    )
    torch.testing.assert_close(program.module()(other, first), model(other, first))
    assert len(program.graph.nodes) < 40
    made = []

    def compiler(graph: Any, _: Any) -> Any:
        made.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=compiler, fullgraph=True, dynamic=True)
    for steps in (4, 6, 8):  # none of the other sizes, which torch would take for the same
        torch.testing.assert_close(compiled(other[:steps], first), model(other[:steps], first))
    assert len(made) == 1


@on_cpu
def test_autocast(backend: Backend, rng: Generator) -> None:
    """Computed in float32, the result alone is narrow: as of the layers."""
    cell = make("NALU")
    x, hx = (tensor.float() for tensor in draw(rng, 4, 3))
    with torch.autocast("cpu"):
        output = cell.unroll(x, hx)
    assert torch.equal(output, cell.unroll(x, hx).bfloat16())


@compared
@by_cell
def test_many_cells_side_by_side(name: str, backend: Backend, rng: Generator) -> None:
    """By torch.func: each step is a call of the layer for all of them."""

    def states(own: dict[str, Tensor], *given: Tensor) -> Tensor:
        return cast(Tensor, functional_call(model, own, given))

    models = [
        _Unrolled(make(name, dtype=torch.float64, device=backend.device), False) for _ in range(3)
    ]
    model = models[0]
    x, hx = draw(rng, 4, 5, device=backend.device)
    lengths = torch.tensor([4, 0, 2, 1, 3], device=backend.device)
    stacked, _ = stack_module_state(models)
    found = vmap(states, in_dims=(0, None, None, None))(stacked, x, hx, lengths)
    wanted = torch.stack([one(x, hx, lengths) for one in models])
    assert_near([found.detach()], [wanted.detach()], 1e-9)


@on_cpu
def test_flops(backend: Backend, rng: Generator) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    cell = make("NALU", features=3, state=2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        cell.unroll(torch.rand(4, 6, 3))
    assert counter.get_total_flops() == 2 * 4 * 6 * (3 + 2) * (2 + 2 + 2)


@only(lambda backend: backend.name in ("cpu", "reference"))
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"input": torch.rand(4)}, ValueError, r"input: expected shape \(steps, batch, 3\) or"),
        ({"input": torch.rand(4, 5, 2)}, ValueError, "input: expected shape .* got .4, 5, 2."),
        ({"input": [1.0]}, TypeError, "input: expected a torch.Tensor, got list"),
        ({"hx": torch.rand(4, 2)}, ValueError, r"hx: expected shape \(5, 2\), got \(4, 2\)"),
        ({"hx": torch.rand(5, 2).double()}, TypeError, "hx: expected the dtype of input"),
        ({"lengths": torch.tensor([1, 2])}, ValueError, r"lengths: expected shape \(5,\)"),
        ({"lengths": torch.ones(5)}, TypeError, "lengths: expected dtype torch.int64"),
        ({"lengths": torch.tensor([1, 2, 3, 4, 5])}, ValueError, "lengths: expected 0 to 4"),
        ({"lengths": torch.tensor([1, 2, -3, 4, 4])}, ValueError, "got -3 to 4"),
        ({"lengths": [1, 2, 3, 4, 4]}, TypeError, "lengths: expected a torch.Tensor, got list"),
        ({"reset": torch.ones(4, 5)}, TypeError, "reset: expected dtype torch.bool"),
        ({"reset": torch.ones(5, 4) > 0}, ValueError, r"reset: expected shape \(4, 5\)"),
        ({"last_only": 1}, TypeError, "last_only: expected a bool"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_words_for_wrong_arguments(
    arguments: dict[str, Any], error: type[Exception], words: str, backend: Backend
) -> None:
    given = {"input": torch.rand(4, 5, 3), **arguments}
    for name in ("NAC", "NMU"):
        with pytest.raises(error, match=words):
            make(name).unroll(**given)


def test_a_stacked_layer_is_none_of_a_cell() -> None:
    cell = make("NAC")
    cell.nac = nalu_kernels.NAC.stack([cell.nac, make("NAC").nac])
    with pytest.raises(ValueError, match="W_hat: expected 2 dimensions"):
        cell.unroll(torch.rand(4, 5, 3))


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="input: expected a tensor of dtype"):
        make("NAC").unroll(torch.ones(4, 5, 3).int())


def test_every_cell_has_its_function() -> None:
    kinds = {kind for kind, _ in CELLS.values()}
    exported = {kind for name, kind in vars(nalu_kernels).items() if name.endswith("Cell")}
    assert kinds == exported
    assert {kind._over_time for kind in kinds} == set(family.OVER_TIME.values())
