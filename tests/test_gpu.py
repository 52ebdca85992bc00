"""What only a GPU can show: graphs, streams, launches, precision, and more than 2^31 elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
from torch import Generator, Tensor

import nalu_kernels
from benchmarks import accuracy
from layers import BY_NAME, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import reference
from parity import Judge, check
from precision import PRECISIONS, matmul_precision
from test_determinism import same_bits

if not torch.cuda.is_available():
    pytest.skip("torch finds no GPU", allow_module_level=True)
pytestmark = pytest.mark.gpu

SMALL, SPLIT_BATCH, LARGE = (64, 2, 1), (20011, 30, 20), (2048, 512, 384)
FEW_ROW_TILES, MANY_ROW_TILES = (300, 257, 131), (517, 131, 127)

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
# These four have between them every path of the kernels.
TELLING = ("nac", "nac_log_space", "nalu_output_tied", "nalu_sample_bias_untied")
by_telling_kind = pytest.mark.parametrize("kind", [BY_NAME[name] for name in TELLING], ids=TELLING)


USABLE = [
    name
    for name, status in nalu_kernels.backends().items()
    if status.usable and name not in ("cpu", "reference")
]


@pytest.fixture(params=USABLE or ["none"], autouse=True)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each back end that has kernels for a GPU, forced."""
    if request.param == "none":
        pytest.fail(f"here is a GPU, and no kernels for it: {nalu_kernels.backends()}")
    with nalu_kernels.use_backend(request.param):
        yield request.param


def require_memory(gigabytes: float) -> None:
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    if free < gigabytes * 1e9:
        pytest.skip(f"needs {gigabytes:g} GB of the GPU's memory, {free / 1e9:.1f} are free")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [SMALL, SPLIT_BATCH, MANY_ROW_TILES, LARGE], ids=str)
@by_telling_kind
def test_every_run_has_the_same_bits(
    kind: Kind, shape: tuple[int, int, int], dtype: torch.dtype, rng: Generator
) -> None:
    layer = draw(rng, kind, shape, dtype, "cuda")
    expected = outcome(nalu_kernels, layer)
    for _ in range(5):
        assert same_bits(outcome(nalu_kernels, layer.map(torch.clone)), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [FEW_ROW_TILES, MANY_ROW_TILES], ids=str)
@by_kind
def test_large_layers_obey_the_rule_of_parity_or_differ_by_precision(
    kind: Kind, shape: tuple[int, int, int], precision: str, rng: Generator
) -> None:
    """At "highest" the rule itself; below it, NaN and infinities where they belong."""
    layer = draw(rng, kind, shape, device="cuda")
    with matmul_precision(precision):
        found = outcome(nalu_kernels, layer)
    if precision == "highest":
        faults = Judge(layer).faults(found)
        assert not faults, "\n".join(faults)
    for name, expected in outcome(reference, layer).items():
        assert torch.equal(found[name].isfinite(), expected.isfinite()), name


@pytest.mark.parametrize("shape", [SMALL, FEW_ROW_TILES, SPLIT_BATCH], ids=str)
@by_telling_kind
def test_a_graph_replays_forward_and_backward(
    kind: Kind, shape: tuple[int, int, int], rng: Generator
) -> None:
    static = draw(rng, kind, shape, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles the kernels
        outcome(nalu_kernels, static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = outcome(nalu_kernels, static)
    for _ in range(3):
        new = draw(rng, kind, shape, device="cuda")
        for name, tensor in static.tensors.items():
            tensor.copy_(new.tensors[name])
        static.grad_output.copy_(new.grad_output)
        graph.replay()
        assert same_bits(replayed, outcome(nalu_kernels, new))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@by_telling_kind
def test_compiled_as_uncompiled(kind: Kind, mode: str, rng: Generator) -> None:
    """By Inductor, with a CUDA graph that it makes of the kernels where that is asked for."""

    class Compiled:
        nac = staticmethod(torch.compile(nalu_kernels.nac, fullgraph=True, mode=mode))
        nalu = staticmethod(torch.compile(nalu_kernels.nalu, fullgraph=True, mode=mode))

    for _ in range(4):  # warms up, records, replays twice
        layer = draw(rng, kind, SMALL, device="cuda")
        torch.compiler.cudagraph_mark_step_begin()
        found = {name: tensor.clone() for name, tensor in outcome(Compiled, layer).items()}
        assert same_bits(found, outcome(nalu_kernels, layer))


@by_kind
def test_work_goes_to_the_current_stream(kind: Kind, rng: Generator) -> None:
    layer = draw(rng, kind, FEW_ROW_TILES, device="cuda")
    expected = outcome(nalu_kernels, layer)
    late = torch.full_like(layer.tensors["input"], torch.nan)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)  # cycles: what does not wait for them sees NaN
        late.copy_(layer.tensors["input"])
        found = outcome(nalu_kernels, layer.with_(input=late))
    torch.cuda.synchronize()
    assert same_bits(found, expected)


@by_kind
def test_a_device_that_is_not_the_current_one(kind: Kind, rng: Generator) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    assert torch.cuda.current_device() == 0
    for shape in (SMALL, MANY_ROW_TILES, SPLIT_BATCH):
        layer = draw(rng, kind, shape, device="cuda:1")
        check(layer)
        assert all(tensor.device.index == 1 for tensor in outcome(nalu_kernels, layer).values())
    assert torch.cuda.current_device() == 0


def summed(layers: Iterable[Layer], names: set[str]) -> dict[str, Tensor]:
    """The sums of those gradients over ``layers``, in float64."""
    total: dict[str, Tensor] = {}
    for layer in layers:
        found = outcome(reference, layer.map(Tensor.double), names)
        for name in names:
            total[name] = found[name] + total.get(name, 0)
    return total


def assert_same_sums(found: dict[str, Tensor], true: dict[str, Tensor]) -> None:
    """Up to a rounding to bfloat16 and one of a long float32 sum."""
    for name, expected in true.items():
        tolerance = 1e-2 * expected.abs().max().item()
        torch.testing.assert_close(
            found[name].double(), expected, rtol=1e-2, atol=tolerance, msg=lambda text: text
        )


def uniform(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="cuda").uniform_(0.5, 1.5)


def test_more_than_2_31_inputs(kernels: str) -> None:
    require_memory(30 if kernels == "triton" else 65)
    B, I, O = 2**27 + 77, 16, 1  # noqa: E741
    weights = {name: uniform(O, I) - 1 for name in ("W_hat", "M_hat", "G")}
    layer = Layer("nalu", {"input": uniform(B, I), **weights}, {"eps": 1e-7}, uniform(B, O))
    assert layer.tensors["input"].numel() > 2**31
    found = outcome(nalu_kernels, layer)

    def part(rows: Tensor | slice) -> Layer:
        return layer.with_(input=layer.tensors["input"][rows], grad_output=layer.grad_output[rows])

    ends = torch.cat([torch.arange(300), torch.arange(B - 300, B)]).cuda()
    faults = Judge(part(ends)).faults({name: found[name][ends] for name in ("output", "input")})
    assert not faults, "\n".join(faults)
    chunks = (part(slice(start, start + 2**22)) for start in range(0, B, 2**22))
    assert_same_sums(found, summed(chunks, set(weights)))


def test_more_than_2_31_outputs(kernels: str) -> None:
    require_memory(55 if kernels == "triton" else 80)
    B, I, O = 4096, 3, 2**19 + 11  # noqa: E741
    weights = {name: uniform(O, I) - 1 for name in ("W_hat", "M_hat", "G")}
    layer = Layer("nalu", {"input": uniform(B, I), **weights}, {"eps": 1e-7}, uniform(B, O))
    assert layer.grad_output.numel() > 2**31
    found = outcome(nalu_kernels, layer)

    def part(columns: Tensor | slice) -> Layer:
        some = {name: weight[columns] for name, weight in weights.items()}
        return layer.with_(grad_output=layer.grad_output[:, columns].contiguous(), **some)

    ends = torch.cat([torch.arange(20), torch.arange(O - 20, O)]).cuda()
    local = {name: found[name][ends] for name in weights}
    faults = Judge(part(ends)).faults({"output": found["output"][:, ends], **local})
    assert not faults, "\n".join(faults)
    chunks = (part(slice(start, start + 2**13)) for start in range(0, O, 2**13))
    assert_same_sums(found, summed(chunks, {"input"}))


def launches(call: Callable[[], object]) -> list[str]:
    """The names of what ``call`` makes the GPU do, at its second time."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)  # it would fill what torch.empty returns
    try:
        call()
        torch.cuda.synchronize()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            call()
            torch.cuda.synchronize()
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    on_gpu = torch.autograd.DeviceType.CUDA
    return [event.name for event in profile.events() if event.device_type == on_gpu]


@pytest.mark.parametrize(
    ("shape", "forward"),
    [(SMALL, 1), ((128, 100, 100), 1), (FEW_ROW_TILES, 1), (LARGE, 2), (SPLIT_BATCH, 2)],
    ids=str,
)
@by_telling_kind
def test_launches_are_few(
    kind: Kind, shape: tuple[int, int, int], forward: int, kernels: str, rng: Generator
) -> None:
    """The backward: one for the input's gradient, one for the others, and a second stage."""
    if kernels == "cuda" and shape in (LARGE, SPLIT_BATCH):
        pytest.skip("cuBLAS does the products, in launches of its own")
    layer = draw(rng, kind, shape, device="cuda")
    leaves = layer.with_(**{n: tensor.requires_grad_() for n, tensor in layer.tensors.items()})
    found = launches(lambda: leaves.call(nalu_kernels))
    if not found:
        pytest.skip("the profiler sees no kernels here")
    assert len(found) <= forward, found

    def backward() -> None:
        torch.autograd.grad(
            output, list(leaves.tensors.values()), layer.grad_output, retain_graph=True
        )

    output = leaves.call(nalu_kernels)
    found = launches(backward)
    assert 1 <= len(found) <= 3, found


@pytest.mark.parametrize("shape", [SMALL, FEW_ROW_TILES, SPLIT_BATCH, LARGE], ids=str)
@by_telling_kind
def test_nothing_waits_for_the_gpu(kind: Kind, shape: tuple[int, int, int], rng: Generator) -> None:
    layer = draw(rng, kind, shape, device="cuda")
    outcome(nalu_kernels, layer)
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcome(nalu_kernels, layer)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def largest_errors(
    found: dict[str, Tensor], eager: dict[str, Tensor], true: dict[str, Tensor]
) -> dict[str, tuple[float, float]]:
    """Of each tensor: found's and eager's, relative to its largest number.

    Where eager is finite: float16 may overflow.
    """
    errors = {}
    for name, exact in true.items():
        finite = eager[name].isfinite()
        largest = exact[finite].abs().max()

        def error(tensor: Tensor) -> float:
            return ((tensor.double() - exact)[finite].abs().max() / largest).item()  # noqa: B023

        errors[name] = error(found[name]), error(eager[name])
    return errors


@pytest.mark.parametrize(
    ("precision", "dtype", "eager_dtype", "rounding"),
    [
        ("highest", torch.float32, torch.float32, 2**-23),
        # Torch takes TF32, which is less than bf16x3, but not on every GPU.
        ("high", torch.float32, torch.float32, 2**-15),
        # Torch takes TF32 for it, and may take bfloat16 by its documentation; so may we.
        ("medium", torch.float32, torch.bfloat16, 2**-7),
        ("highest", torch.bfloat16, torch.bfloat16, 2**-7),
        ("highest", torch.float16, torch.float16, 2**-10),
    ],
    ids=["highest", "high", "medium", "bfloat16", "float16"],
)
@pytest.mark.parametrize("shape", [FEW_ROW_TILES, MANY_ROW_TILES, LARGE], ids=str)
@by_telling_kind
def test_errors_are_of_the_class_of_eagers(
    kind: Kind,
    shape: tuple[int, int, int],
    precision: str,
    dtype: torch.dtype,
    eager_dtype: torch.dtype,
    rounding: float,
    rng: Generator,
) -> None:
    layer = draw(rng, kind, shape, dtype, "cuda")
    with matmul_precision(precision):
        found = outcome(nalu_kernels, layer)
        eager = outcome(reference, layer.map(lambda tensor: tensor.to(eager_dtype)))
    true = outcome(reference, layer.map(Tensor.double))
    if kind.function == "nalu" or kind.log_space:
        # The largest of all is an exp(l), and its relative error that of l. What a rounding of l
        # happened to do to eager's, in that one place, says nothing of a class.
        rounding = max(rounding, 2**-23 * math.log(true["output"].abs().max()))
    for name, (ours, theirs) in largest_errors(found, eager, true).items():
        assert math.isfinite(ours) and ours <= 2 * theirs + 2 * rounding, (name, ours, theirs)


@pytest.mark.parametrize(
    ("precision", "allowed"), [("highest", 2e-5), ("high", 2e-4), ("medium", 2e-4)]
)
def test_products_keep_their_digits(precision: str, allowed: float, kernels: str) -> None:
    """Of six factors from [1, 10], so many at once that tensor cores multiply them."""
    product, in_a_nalu = accuracy.tasks(batch=4096, terms=8, outputs=512)[:2]

    def errors(task: accuracy.Task) -> dict[str, float]:
        tensors = tuple(tensor.float().cuda() for tensor in task.tensors)
        true = accuracy.run(task, reference, tuple(tensor.double() for tensor in tensors))
        with matmul_precision(precision):
            found = accuracy.run(task, nalu_kernels, tensors)
        return accuracy.scores(task, found, true)

    assert errors(product)["output"] < allowed
    # The gate, which the product is multiplied by, is bfloat16 at "medium"; cuBLAS's is TF32 at
    # "high" too.
    if precision == "highest" or (precision == "high" and kernels == "triton"):
        assert errors(in_a_nalu)["output"] < allowed
