"""What is particular to the CUDA kernels, as far as an emulator on the CPU shows it."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Generator, Tensor

import emulated_cuda
import nalu_kernels
import test_unroll
from error_bound import Products
from layers import BY_NAME, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import reference
from parity import Judge, check
from selection import pairs
from test_family import CASES, Case, I, O
from test_unroll import assert_near, by_cell

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="here is a GPU: test_gpu.py asks it instead"
)

SMALL, LARGE = (64, 9, 3), (2049, 9, 3)  # on both sides of csrc/cuda/geometry.h's limits
REDUCED = Products(("tf32", "bf16x3"), ("tf32", "bf16x3"))
MAP_NORESERVE = 0x4000  # of Linux; Python's own name for it is newer than 3.10
HALVES = (torch.bfloat16, torch.float16)

# last_only: what comes of a call, and the launches of its forward and backward.
Unrolled = Callable[[bool], tuple[list[Tensor], tuple[int, int]]]

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
# What goes row by row (csrc/cuda/rows.cu), and is no composition of others.
ROWS = [case for case in CASES if case.function not in ("snmu", "gnalu")]
by_rows = pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
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


def rows_layer(
    rng: Generator, case: Case, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> Layer:
    """Inputs of both signs, away from 0, and weights within (0.1, 0.9)."""
    batch, inputs, outputs = shape
    sizes = {I: inputs, O: outputs, 2 * I: 2 * inputs, 1: 1}

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=rng, dtype=torch.float64)

    x = (0.5 + uniform(batch, inputs)) * torch.where(uniform(batch, inputs) < 0.5, -1, 1)
    small = 1e-3 if case.options.get("training") else 1.0  # within the slope of tanh(1000 W)
    weights = {
        name: small * (0.1 + 0.8 * uniform(*(sizes[size] for size in of)))
        for name, of in case.weights.items()
    }
    dy = uniform(batch, outputs) - 0.5
    layer = Layer(case.function, {"input": x, **weights}, dict(case.options), dy)
    return layer.map(lambda tensor: tensor.to(dtype))


@by_rows
def test_a_layer_that_goes_row_by_row_is_one_launch_forward_and_two_backward(
    case: Case, rng: Generator
) -> None:
    assert launches(rows_layer(rng, case, SMALL)) == (1, 2)


def check_in_both_orders(layer: Layer) -> None:
    """As the reference, and of the same bits whichever thread of a block is first."""
    found, expected = outcome(nalu_kernels, layer), outcome(reference, layer)
    with emulated_cuda.last_thread_first():
        other = outcome(nalu_kernels, layer)
    for name in expected:
        assert torch.equal(found[name], other[name]), name
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12 * scale)


@pytest.mark.parametrize("shape", [(70, 2, 1), (20, 60, 33)], ids=["shared", "global"])
@by_rows
def test_parts_of_a_batch_in_shared_and_in_global_memory(
    case: Case, shape: tuple[int, int, int], rng: Generator
) -> None:
    check_in_both_orders(rows_layer(rng, case, shape, torch.float64))


def test_several_chunks_a_part(rng: Generator) -> None:
    """Of so long a batch that there are more chunks than parts."""
    (inalu,) = (case for case in ROWS if case.name == "inalu")
    check_in_both_orders(rows_layer(rng, inalu, (128 * 256 + 5, 1, 1), torch.float64))


def unrolled(name: str, steps: int, sizes: tuple[int, int, int], rng: Generator) -> Unrolled:
    """A call of a cell, of ragged rows that begin anew here and there: the output and all
    gradients, with their launches."""
    batch, features, state = sizes
    cell = test_unroll.make(name, features, state, dtype=torch.float64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter /= features + state
    x, hx = test_unroll.draw(rng, steps, batch, features, state)
    lengths = torch.randint(steps + 1, (batch,), generator=rng)
    reset = torch.rand(steps, batch, generator=rng) < 0.2
    leaves = [x.requires_grad_(), hx.requires_grad_()]

    def call(last_only: bool) -> tuple[list[Tensor], tuple[int, int]]:
        before = emulated_cuda.launches()
        output = cell.unroll(x, hx, lengths=lengths, reset=reset, last_only=last_only)
        forward = emulated_cuda.launches()
        found = test_unroll.outcome(cell, output, leaves, torch.ones_like(output))
        return found, (forward - before, emulated_cuda.launches() - forward)

    return call


def check_unrolled(call: Unrolled, last_only: bool) -> None:
    """One launch forward and two backward; as the reference, and of the same bits whichever thread
    of a block is first."""
    found, count = call(last_only)
    assert count == (1, 2)
    with emulated_cuda.last_thread_first():
        other, _ = call(last_only)
    assert all(map(torch.equal, found, other))
    with nalu_kernels.use_backend("reference"):
        expected, _ = call(last_only)
    assert_near(found, expected, 1e-11)


@pytest.mark.parametrize(
    "sizes", [(20, 2, 1), (9, 20, 12), (9, 60, 33)], ids=["one warp", "shared", "global"]
)
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
@pairs
@by_cell
def test_all_steps_are_one_launch(
    name: str, last_only: bool, sizes: tuple[int, int, int], rng: Generator
) -> None:
    check_unrolled(unrolled(name, 5, sizes, rng), last_only)


def test_several_chunks_of_all_steps_a_part(rng: Generator) -> None:
    check_unrolled(unrolled("NAC", 2, (128 * 256 + 5, 1, 1), rng), last_only=False)


@by_rows
def test_no_rows_inputs_or_outputs(case: Case, rng: Generator) -> None:
    for shape in ((0, 3, 2), (4, 3, 0), (4, 0, 2)):
        layer = rows_layer(rng, case, shape)
        found = outcome(nalu_kernels, layer)
        # The reference's product over no inputs has no gradients, not even empty ones.
        expected = outcome(reference, layer, None if layer.tensors["input"].shape[1] else set())
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])


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
    check_far_apart(draw(rng, kind, shape))


@by_rows
def test_offsets_beyond_32_bits_row_by_row(case: Case, rng: Generator) -> None:
    check_far_apart(rows_layer(rng, case, SMALL))


@pytest.mark.parametrize("first", [0, 1], ids=["steps", "rows"])
def test_offsets_beyond_32_bits_of_all_steps(first: int, rng: Generator) -> None:
    cell = test_unroll.make("NALU")
    x, hx = (tensor.float() for tensor in test_unroll.draw(rng, 5, 4))
    dy = torch.randn(5, 4, 2, generator=rng)

    def moved(tensor: Tensor) -> Tensor:
        return far_apart(tensor.transpose(0, first).contiguous()).transpose(0, first)

    results = []
    for input, grad in ((x, dy), (moved(x), moved(dy))):
        leaves = [input.requires_grad_(), hx.requires_grad_()]
        results.append(test_unroll.outcome(cell, cell.unroll(*leaves), leaves, grad))
    assert all(map(torch.equal, *results))


def far_apart(tensor: Tensor) -> Tensor:
    """The same numbers, of which the last of the first dimension lie beyond 2^32 elements."""
    rows, size = len(tensor), tensor[0].numel()
    stride = 2**32 // (rows - 1) + size
    reach = 4 * (stride * (rows - 1) + size)
    memory = mmap.mmap(-1, reach, flags=mmap.MAP_PRIVATE | MAP_NORESERVE)
    whole = torch.frombuffer(memory, dtype=torch.float32)
    return whole.as_strided(tensor.shape, (stride, *tensor[0].stride())).copy_(tensor)


def check_far_apart(layer: Layer) -> None:
    """The layer's numbers are those of rows that lie together."""
    far = layer.with_(
        input=far_apart(layer.tensors["input"]), grad_output=far_apart(layer.grad_output)
    )
    found, expected = outcome(nalu_kernels, far), outcome(nalu_kernels, layer)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
