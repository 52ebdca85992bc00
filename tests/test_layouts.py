"""Inputs, parameters and output gradients that are not contiguous; none of them is written to."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, KINDS, Kind, Layer, draw, outcome
from parity import Judge, check
from selection import only, pairs

pytestmark = pairs

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
MAIN_KINDS = [
    BY_NAME["nac"],
    BY_NAME["nac_log_space"],
    FULLEST,
    BY_NAME["nalu_sample_bias_tied"],
]
by_main_kind = pytest.mark.parametrize("kind", MAIN_KINDS, ids=lambda kind: kind.name)
by_shape = pytest.mark.parametrize(
    "shape", [(6, 5, 4), (37, 19, 21), (5, 257, 256)], ids=["tiny", "small", "large"]
)


def transposed(tensor: Tensor) -> Tensor:
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0)


def sliced(tensor: Tensor) -> Tensor:
    """Every second row and every third column of NaNs that hold it."""
    outer = torch.full([3 * size + 2 for size in tensor.shape], torch.nan).to(tensor)
    view = outer[tuple(slice(1, 1 + step * size, step) for step, size in _steps(tensor))]
    return view.copy_(tensor)


def _steps(tensor: Tensor) -> list[tuple[int, int]]:
    return list(zip((2, 3, 1, 2), tensor.shape, strict=False))


def columns(tensor: Tensor) -> Tensor:
    """The middle of wider rows, as a split of a larger activation gives."""
    width = tensor.shape[-1]
    outer = torch.full((*tensor.shape[:-1], 2 * width + 1), torch.nan).to(tensor)
    return outer[..., 1 : 1 + width].copy_(tensor)


def shifted(tensor: Tensor) -> Tensor:
    """Contiguous, but not aligned to a vector."""
    return torch.empty(tensor.numel() + 1).to(tensor)[1:].view(tensor.shape).copy_(tensor)


def expanded(tensor: Tensor) -> Tensor:
    """Its first row, or element, again and again."""
    return tensor[:1].expand(tensor.shape)


def constant(tensor: Tensor) -> Tensor:
    """One element everywhere, as in the gradient of sum()."""
    return tensor.reshape(-1)[:1].view([1] * tensor.dim()).expand(tensor.shape)


LAYOUTS = [transposed, sliced, columns, shifted, expanded, constant]
by_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


@only(lambda backend, dtype: backend.computes(dtype))
@by_layout
@by_shape
@by_main_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_all_tensors_alike(
    kind: Kind,
    shape: tuple[int, int, int],
    layout: object,
    dtype: torch.dtype,
    backend: Backend,
    rng: Generator,
) -> None:
    check(draw(rng, kind, shape, dtype, backend.device).map(layout))


@by_layout
@by_kind
def test_one_tensor_at_a_time(kind: Kind, layout: object, backend: Backend, rng: Generator) -> None:
    layer = draw(rng, kind, (7, 5, 4), device=backend.device)
    check(layer.with_(grad_output=layout(layer.grad_output)))
    for name, tensor in layer.tensors.items():
        check(layer.with_(**{name: layout(tensor)}))


@by_kind
def test_negated_views(kind: Kind, backend: Backend, rng: Generator) -> None:
    """The imaginary part of a conjugate: memory of one sign that stands for the other."""
    layer = draw(rng, kind, (7, 5, 4), device=backend.device)
    negated = layer.map(lambda tensor: torch.complex(tensor, -tensor).conj().imag)
    assert negated.grad_output.is_neg() and negated.grad_output.equal(layer.grad_output)
    check(negated)


@by_main_kind
def test_leading_dimensions_without_a_common_stride(
    kind: Kind, backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, (24, 5, 3), device=backend.device)
    x, dy = layer.tensors["input"].view(2, 3, 4, 5), layer.grad_output.view(2, 3, 4, 3)
    for f in (
        lambda t: t.transpose(0, 1),
        lambda t: t.permute(2, 0, 1, 3),
        lambda t: t[:, 1:, ::2],
        lambda t: t[:, :1].expand(-1, 3, -1, -1),
        lambda t: t.movedim(-1, 0).contiguous().movedim(0, -1),
    ):
        check(layer.with_(input=f(x), grad_output=f(dy)))
        check(layer.with_(input=f(x).contiguous(), grad_output=f(dy)))
        check(layer.with_(input=f(x), grad_output=f(dy).contiguous()))


def loss_of_sum(output: Tensor) -> Tensor:
    return output.sum()


def loss_of_cat(output: Tensor) -> Tensor:
    other = torch.ones_like(output)
    joined = torch.cat([other, output, other], dim=-1)
    return (joined * torch.arange(joined.numel()).to(joined).view_as(joined)).sum()


def loss_of_transpose(output: Tensor) -> Tensor:
    return (output.T @ torch.ones(len(output), 2).to(output)).square().sum()


def loss_of_one_column(output: Tensor) -> Tensor:
    return output[:, 0].square().sum()


@pytest.mark.parametrize("loss", [loss_of_sum, loss_of_cat, loss_of_transpose, loss_of_one_column])
@by_kind
def test_gradients_as_autograd_lays_them_out(
    kind: Kind, loss: object, backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, (13, 5, 4), device=backend.device)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in layer.tensors.items()}
    output = layer.call(nalu_kernels, **leaves)
    (grad_output,) = torch.autograd.grad(loss(output), output, retain_graph=True)
    loss(output).backward()
    found = {"output": output, **{name: leaf.grad for name, leaf in leaves.items()}}
    assert not Judge(layer.with_(grad_output=grad_output)).faults(found)


def bits(layer: Layer) -> list[Tensor]:
    tensors = [*layer.tensors.values(), layer.grad_output]
    return [tensor.detach().contiguous().view(torch.int32).clone() for tensor in tensors]


@pytest.mark.parametrize("layout", [torch.clone, sliced, expanded], ids=lambda f: f.__name__)
@by_shape
@by_kind
def test_nothing_is_written_to(
    kind: Kind, shape: tuple[int, int, int], layout: object, backend: Backend, rng: Generator
) -> None:
    layer = draw(rng, kind, shape, device=backend.device).map(layout)
    tensors = [*layer.tensors.values(), layer.grad_output]
    before, versions = bits(layer), [tensor._version for tensor in tensors]
    found = outcome(nalu_kernels, layer)
    assert all(map(torch.equal, before, bits(layer)))
    assert versions == [tensor._version for tensor in tensors]
    # What comes back is fresh memory, so writing to it changes no input either.
    for tensor in found.values():
        tensor.fill_(0)
    assert all(map(torch.equal, before, bits(layer)))


@by_kind
def test_output_may_be_changed_in_place(kind: Kind, backend: Backend, rng: Generator) -> None:
    """As with torch.nn.Linear, unless the backward needs it: then autograd says so."""
    layer = draw(rng, kind, (7, 5, 3), device=backend.device)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in layer.tensors.items()}
    output = layer.call(nalu_kernels, **leaves)
    output.mul_(2)
    if kind.log_space:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.backward(layer.grad_output)
        return
    output.backward(layer.grad_output / 2)
    found = {name: leaf.grad for name, leaf in leaves.items()}
    assert not Judge(layer).faults(found)
