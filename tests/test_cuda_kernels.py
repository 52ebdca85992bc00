"""What is particular to the CUDA kernels, as far as an emulator on the CPU shows it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest
import torch
from torch import Generator, Tensor

import emulated_cuda
import nalu_kernels
from error_bound import Products
from layers import BY_NAME, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import reference
from parity import Judge, check
from selection import pairs

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="here is a GPU: test_gpu.py asks it instead"
)

SMALL, LARGE = (64, 9, 3), (2049, 9, 3)  # on both sides of csrc/cuda/geometry.h's limits
REDUCED = Products(("tf32", "bf16x3"), ("tf32", "bf16x3"))
MAP_NORESERVE = 0x4000  # of Linux; Python's own name for it is newer than 3.10
HALVES = (torch.bfloat16, torch.float16)

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_telling_kind = pytest.mark.parametrize(
    "kind",
    [BY_NAME[name] for name in ("nac", "nac_log_space", "nalu_sample_bias_untied")],
    ids=lambda kind: kind.name,
)


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    status = nalu_kernels.backends()["cuda"]
    if not status.usable:
        pytest.skip(status.reason)
    with nalu_kernels.use_backend("cuda"):
        yield


def launches(layer: Layer) -> tuple[int, int]:
    """Of the layer's forward and of its whole backward."""
    leaves = {name: tensor.requires_grad_() for name, tensor in layer.tensors.items()}
    before = emulated_cuda.launches()
    output = layer.call(nalu_kernels, **leaves)
    forward = emulated_cuda.launches()
    torch.autograd.grad(output, list(leaves.values()), layer.grad_output)
    return forward - before, emulated_cuda.launches() - forward


@by_kind
def test_a_small_layer_is_one_launch_each_way(kind: Kind, rng: Generator) -> None:
    assert launches(draw(rng, kind, SMALL)) == (1, 1)


@by_kind
def test_a_large_layer_has_two_passes_forward_and_four_backward(kind: Kind, rng: Generator) -> None:
    """At most, beside cuBLAS's products; a gate's bias is one more."""
    expected = (1, 2) if kind.name == "nac" else (2, 4 + kind.bias)
    assert launches(draw(rng, kind, LARGE)) == expected


@pairs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES], ids=str)
@by_kind
def test_large_layers(kind: Kind, dtype: torch.dtype, rng: Generator) -> None:
    check(draw(rng, kind, LARGE, dtype), REDUCED if dtype in HALVES else Products())


@by_kind
def test_products_follow_the_setting_and_log_space_keeps_16_bits(
    kind: Kind, rng: Generator
) -> None:
    layer = draw(rng, kind, LARGE)
    with emulated_cuda.tf32_allowed():
        found = outcome(nalu_kernels, layer)
    assert not Judge(layer, REDUCED).faults(found)
    assert Judge(layer).faults(found)


@pairs
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e20, torch.inf, -torch.inf, torch.nan], ids=str)
@by_kind
def test_special_values_in_bfloat16_pieces(kind: Kind, value: float, rng: Generator) -> None:
    """NaN and infinities stand where eager has them; weights of 0 and 1 have no second piece."""
    layer = draw(rng, kind, LARGE)
    input, W_hat, M_hat = (layer.tensors[name].clone() for name in ("input", "W_hat", "M_hat"))
    input[::7, 4] = value
    W_hat[:, 4], M_hat[:, 4] = torch.tensor([0.0, 20.0, -20.0]), 40.0
    layer = layer.with_(input=input, W_hat=W_hat, M_hat=M_hat)
    with emulated_cuda.tf32_allowed():
        found = outcome(nalu_kernels, layer)
    for name, expected in outcome(reference, layer).items():
        assert torch.equal(found[name].isnan(), expected.isnan()), name
        assert torch.equal(found[name].isposinf(), expected.isposinf()), name
        assert torch.equal(found[name].isneginf(), expected.isneginf()), name


def test_a_gradient_that_no_bfloat16_is_near_to(rng: Generator) -> None:
    """Rounded to the nearest it would be infinite."""
    layer = draw(rng, BY_NAME["nac_log_space"], LARGE)
    input, grad_output = layer.tensors["input"].clone(), layer.grad_output.clone()
    input[0] = 1
    grad_output[0] = torch.tensor([3.4e38, 0, 0])
    layer = layer.with_(input=input, grad_output=grad_output)
    with emulated_cuda.tf32_allowed():
        found = outcome(nalu_kernels, layer)["input"][0]
    assert torch.allclose(found, outcome(reference, layer)["input"][0], rtol=2**-14)


def layouts(layer: Layer) -> dict[str, Layer]:
    """The layer with an input, and a gradient of its output, that lie in other ways."""

    def transposed(tensor: Tensor) -> Tensor:
        return tensor.t().contiguous().t()

    def with_gaps(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(2, 0).repeat_interleave(2, 1)[::2, ::2]

    def padded(tensor: Tensor) -> Tensor:
        return torch.nn.functional.pad(tensor, (1, 2))[:, 1:-2]

    def one_row(tensor: Tensor) -> Tensor:
        return tensor[:1].expand_as(tensor)

    def of(change: object) -> Layer:
        assert callable(change)
        return layer.with_(
            input=change(layer.tensors["input"]), grad_output=change(layer.grad_output)
        )

    return {f.__name__: of(f) for f in (transposed, with_gaps, padded, one_row)}


@pairs
@pytest.mark.parametrize("layout", ["transposed", "with_gaps", "padded", "one_row"])
@pytest.mark.parametrize("shape", [(2048, 9, 3), LARGE], ids=["small", "large"])
@by_telling_kind
def test_layouts_of_long_batches(
    kind: Kind, shape: tuple[int, int, int], layout: str, rng: Generator
) -> None:
    check(layouts(draw(rng, kind, shape))[layout])


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@by_telling_kind
def test_offsets_beyond_32_bits(kind: Kind, shape: tuple[int, int, int], rng: Generator) -> None:
    """Rows so far apart that the last one starts beyond 2^32 elements, in memory that is never
    touched between them."""
    layer = draw(rng, kind, shape)

    def far_apart(tensor: Tensor) -> Tensor:
        rows, cols = tensor.shape
        stride = 2**32 // (rows - 1) + cols
        size = 4 * (stride * (rows - 1) + cols)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | MAP_NORESERVE)
        far = torch.frombuffer(memory, dtype=torch.float32).as_strided((rows, cols), (stride, 1))
        far.copy_(tensor)
        return far

    far = layer.with_(
        input=far_apart(layer.tensors["input"]), grad_output=far_apart(layer.grad_output)
    )
    found, expected = outcome(nalu_kernels, far), outcome(nalu_kernels, layer)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
