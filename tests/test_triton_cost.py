"""The static cost model: flops and bytes of what is launched, counted again in another way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

from benchmarks.cases import BACKWARD, FORWARD
from benchmarks.gpu import roofline
from benchmarks.gpu.cases import GROUPS, GpuCase
from benchmarks.gpu.roofline import PEAKS, Peaks
from benchmarks.gpu.tensors import precision
from nalu_kernels.family import FAMILY
from nalu_kernels.triton import cost, metadata, tiles, trace
from nalu_kernels.triton.aot import LIMITS
from nalu_kernels.triton.cost import Cost
from nalu_kernels.triton.device import Chip
from nalu_kernels.triton.forms import Batch, Gradients, Partials, Weights

ROOT = Path(__file__).parent.parent
CHIP = Chip("sm_90", 132)
# Everything in one launch; a split batch and a gate summed over tiles; W transformed before.
SHAPES = [(64, 2, 1), (2000, 100, 300), (4096, 512, 256)]
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
X, W_HAT, M_HAT, G, BIAS, W_HAT_MUL, M_HAT_MUL = (1 << place for place in range(7))


def flops(launches: list[trace.Launch]) -> int:
    return cost.total(map(cost.of, launches)).flops


def forward(sample: trace.Sample) -> int:
    return flops(trace.forward(sample, CHIP, save=True))


def backward(sample: trace.Sample, needed: int = -1) -> int:
    return flops(trace.backward(sample, CHIP, needed=needed))


@by_shape
def test_flops_are_those_of_the_matrix_products(shape: tuple[int, int, int]) -> None:
    B, I, O = shape  # noqa: E741
    product = 2 * B * I * O
    for log_space in (False, True):
        nac = trace.Sample(*shape, linear=not log_space, log_space=log_space)
        assert (forward(nac), backward(nac)) == (product, 2 * product)
    for untied in (False, True):
        nalu = trace.Sample(*shape, gates=O, bias=True, untied=untied)
        assert (forward(nalu), backward(nalu)) == (3 * product, 6 * product)
    if O > 1:
        sample_gate = trace.Sample(*shape, gates=1)
        assert forward(sample_gate) == 2 * product + 2 * B * I
        assert backward(sample_gate) == 2 * forward(sample_gate)


@by_shape
def test_frozen_tensors_take_no_flops(shape: tuple[int, int, int]) -> None:
    B, I, O = shape  # noqa: E741
    tied, untied = (trace.Sample(*shape, gates=O, bias=True, untied=u) for u in (False, True))
    product = 2 * B * I * O
    for needed, products in (
        (0, 0),
        (X, 3),
        (W_HAT, 2),
        (W_HAT | M_HAT, 2),
        (G, 1),
        (BIAS, 0),
        (X | G, 4),
        (W_HAT | M_HAT | G | BIAS, 3),
    ):
        assert backward(tied, needed) == products * product, needed
    for needed, products in ((W_HAT, 1), (M_HAT_MUL, 1), (M_HAT | W_HAT_MUL, 2)):
        assert backward(untied, needed) == products * product, needed


@pytest.mark.parametrize(
    ("dtype", "setting", "family", "operations"),
    [
        (torch.float32, "highest", "sm_90", {"flops16": 18}),
        (torch.float32, "high", "sm_80", {"flops16": 9}),
        (torch.float32, "medium", "sm_100", {"flops16": 1 + 3 + 1}),
        (torch.float32, "highest", "gfx942", {"flops32": 3}),
        (torch.bfloat16, "", "sm_90", {"flops16": 1 + 3 + 1}),
        (torch.float16, "", "sm_90", {"flops16": 1 + 3 + 1}),
        (torch.float64, "", "sm_90", {"flops64": 3}),
    ],
)
def test_operations_are_those_of_the_products_chosen(
    dtype: torch.dtype, setting: str, family: str, operations: dict[str, int]
) -> None:
    shape = (1024, 512, 256)
    sample, product = trace.Sample(*shape, dtype, gates=shape[2]), 2 * torch.Size(shape).numel()
    *_, launch = trace.forward(sample, Chip(family, 132), save=True, setting=setting)
    found = cost.of(launch)
    assert found.flops == 3 * product
    expected = {name: count * product for name, count in operations.items()}
    assert {name: count for name in Cost._fields[2:] if (count := getattr(found, name))} == expected


def test_a_small_layer_and_a_gate_per_sample_take_no_tensor_cores() -> None:
    (small,) = trace.forward(trace.Sample(64, 2, 1, gates=1), CHIP, save=True)
    assert cost.of(small).flops32 == cost.of(small).flops == 6 * 64 * 2
    *_, large = trace.forward(trace.Sample(1024, 512, 256, gates=1), CHIP, save=True)
    assert cost.of(large).flops32 == 2 * 1024 * 512
    assert cost.of(large).flops16 == 6 * 4 * 1024 * 512 * 256


def nbytes(*values: Any) -> int:
    """Of every tensor among ``values``."""
    if not all(isinstance(value, Tensor) for value in values):
        return sum(
            nbytes(*value) if isinstance(value, tuple) else nbytes(value)
            for value in values
            if isinstance(value, (tuple, Tensor))
        )
    return sum(value.numel() * value.element_size() for value in values)


def touched(launch: trace.Launch) -> int:
    """What a launch has to move of its arguments if every gradient is wanted."""
    args = dict(zip(launch.kernel.arg_names, launch.args, strict=False))
    weights: Weights = args["weights"]
    batch: Batch | None = args.get("batch")
    matrices = (weights.W_hat, weights.M_hat, weights.W_hat_mul, weights.M_hat_mul)
    grads: Gradients = args.get("grads", Gradients())
    partials: Partials = args.get("partials", Partials())
    # A gradient is written where it is finished, and so are W_hat and M_hat read there.
    W, W_mul = grads[:2] + grads[6:7], grads[4:6] + grads[7:]
    sums = {"W": (W, matrices[:2]), "W_mul": (W_mul, matrices[2:])}
    sums |= {"G": ((grads.G,), ()), "gate_bias": ((grads.gate_bias,), ())}
    split = [nbytes(*sums[name]) for name in sums if getattr(partials, name) is not None]
    whole = [
        nbytes(finished) + (nbytes(weight) if nbytes(finished) else 0)
        for name, (finished, weight) in sums.items()
        if getattr(partials, name) is None
    ]
    match launch.kernel.__name__.removesuffix("_kernel"):
        case "transform":
            return nbytes(*matrices, args["W"], args["W_mul"])
        case "forward":
            return nbytes(batch.x, weights, args["y"], args["saved"])
        case "finish":
            return nbytes(partials) + sum(split)
        case "grad_weights":
            return nbytes(batch.x, batch.dy, batch.saved, partials) + sum(whole)
        case "grad_input":
            x = batch.x if launch.options["FORM"].log_space else None
            return nbytes(x, batch.dy, batch.saved, matrices, weights.G, args["dx"])
        case "backward":
            given = nbytes(batch.x, batch.dy, batch.saved, matrices, weights.G)
            return given + nbytes(grads, args["dx"])
    raise AssertionError(launch.kernel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", tiles.FAMILIES)
@by_shape
def test_bytes_are_those_of_the_tensors(
    shape: tuple[int, int, int], family: str, dtype: torch.dtype
) -> None:
    chip = Chip(family, LIMITS[family].processors)
    seen = set()
    samples = [trace.Sample(*shape, dtype, linear=log, log_space=not log) for log in (False, True)]
    samples += [
        trace.Sample(*shape, dtype, gates=gates, bias=bias, untied=untied)
        for gates in (1, shape[2])
        for bias in (False, True)
        for untied in (False, True)
    ]
    for sample in samples:
        launches = trace.backward(sample, chip)
        for save in (False, True):
            launches += trace.forward(sample, chip, save=save)
        for launch in launches:
            seen.add(launch.kernel.__name__)
            assert cost.of(launch).bytes == touched(launch), (sample, launch.kernel.__name__)
    if shape == SHAPES[0]:
        assert seen == {"forward_kernel", "backward_kernel"}
    if shape == SHAPES[1]:
        assert "finish_kernel" in seen
    if shape == SHAPES[2] and dtype != torch.float64:
        assert "transform_kernel" in seen


def test_bytes_by_hand() -> None:
    """64x2->1 in bfloat16: numbers of two bytes, but a, m and g of four."""
    sample = trace.Sample(64, 2, 1, torch.bfloat16, gates=1)
    (launch,) = trace.forward(sample, CHIP, save=True)
    x, weights, y, saved = 64 * 2 * 2, 3 * 2 * 2, 64 * 2, 3 * 64 * 4
    assert cost.of(launch).bytes == x + weights + y + saved
    (launch,) = trace.backward(sample, CHIP)
    assert cost.of(launch).bytes == 2 * (x + weights) + y + saved
    # Only G: neither the weights nor dx.
    (launch,) = trace.backward(sample, CHIP, needed=G)
    assert cost.of(launch).bytes == y + saved + x + 2 * 2
    # Only the bias: not even x; only M_hat: all but a.
    sample = sample._replace(bias=True)
    (launch,) = trace.backward(sample, CHIP, needed=BIAS)
    assert cost.of(launch).bytes == y + saved + 2
    (launch,) = trace.backward(sample, CHIP, needed=M_HAT)
    assert cost.of(launch).bytes == y + saved - 64 * 4 + x + 3 * 2 * 2


REDUCTIONS = ("nmu", "nru", "nmru")


def launches_of(layer: str, shape: tuple[int, int, int]) -> list[trace.Launch]:
    if layer == "npu":
        return trace.power(trace.Sample(*shape), CHIP)
    return trace.reduction(layer, trace.Sample(*shape), CHIP)


@by_shape
@pytest.mark.parametrize("layer", [*REDUCTIONS, "npu"])
def test_layers_after_nalu_report_what_the_flop_counter_counts(
    layer: str, shape: tuple[int, int, int]
) -> None:
    B, I, O = shape  # noqa: E741
    shapes = {"W": (O, 2 * I if layer == "nmru" else I), "W_re": (O, I), "W_im": (O, I), "g": (I,)}
    row = FAMILY[layer]
    counted = row.products({name: shapes[name] for name in (*row.weights, *row.optional)})
    sides = sum(one.columns * (bool(one.left) + bool(one.right)) for one in counted)
    forward, *backward = launches_of(layer, shape)
    found = cost.of(forward)
    assert found.flops == found.flops32 == 2 * B * I * sum(one.columns for one in counted)
    assert flops(backward) == 2 * B * I * sides


@by_shape
@pytest.mark.parametrize("layer", [*REDUCTIONS, "npu"])
def test_layers_after_nalu_move_all_that_they_are_given(
    layer: str, shape: tuple[int, int, int]
) -> None:
    for launch in launches_of(layer, shape):
        batch, *rest = launch.args
        finishes = launch.kernel.__name__.startswith("finish")
        given = nbytes(*rest) + (0 if finishes else nbytes(batch.x, batch.dy, batch.saved))
        if launch.kernel.__name__ == "power_grad_weights_kernel":  # which has no need of these
            weights, parts, *_ = rest
            given -= nbytes(weights.W_re, weights.W_im, parts.g)
        assert cost.of(launch).bytes == given, launch.kernel


@pytest.mark.parametrize("layer", ["nalu", *REDUCTIONS, "npu"])
def test_units_cost_as_much_as_so_many_layers(layer: str) -> None:
    units, one = 7, trace.Sample(600, 5, 3, gates=3, bias=True, untied=True)

    def costs(sample: trace.Sample) -> list[Cost]:
        if layer == "nalu":
            made = trace.forward(sample, CHIP, save=True) + trace.backward(sample, CHIP)
        elif layer == "npu":
            made = trace.power(sample, CHIP)
        else:
            made = trace.reduction(layer, sample, CHIP)
        return [cost.of(launch) for launch in made]

    alone, together = costs(one), costs(one._replace(units=units))
    assert together == [Cost(*(units * number for number in found)) for found in alone]


def test_an_inalus_signs_are_a_product_more() -> None:
    """Of the weights only, of m and g; on its way to them a NALU's kernels report theirs."""
    sample = trace.Sample(64, 2, 1)
    x, W, dy = sample.empty(64, 2), sample.empty(1, 2), sample.empty(64, 1)
    args = {"batch": Batch(64, 2, 1, x, 2, 1, dy, 1, 1, sample.empty(4 * 64)), "W": W}
    args |= {"LAYER": "inalu", "scratch": None, "x_parts": None, "W_parts": sample.empty(1, 2, 1)}
    found = metadata.reduction_gradient((1, 1), SimpleNamespace(name="one"), args)
    assert found["flops"] == 2 * 64 * 2
    assert found["bytes"] == nbytes(x, W, dy, args["W_parts"]) + 2 * 64 * 4


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (5, 3, 0), (0, 0, 0)], ids=str)
def test_nothing_to_compute(shape: tuple[int, int, int]) -> None:
    for gates in {1, shape[2] or 1}:
        sample = trace.Sample(*shape, gates=gates, bias=True)
        forward, backward = trace.forward(sample, CHIP, save=True), trace.backward(sample, CHIP)
        B, I, _ = shape  # noqa: E741
        # A gate per sample is still kept where there are no outputs.
        gate = 2 * B * I if gates == 1 else 0
        assert flops(forward) == gate and flops(backward) in (0, gate, 2 * gate)
        for launch in forward + backward:
            assert cost.of(launch).bytes == touched(launch)


# Launches a NALU's forward and backward through Triton's own path, on a GPU that is not there, with
# a profiler's hook or none; prints what the hook would be told.
PROFILED = """
import json, sys
import torch
from triton import knobs
from benchmarks.stubbed_gpu import pretend

told = []

def launched(x, y, z, stream, function, packed, metadata, *others):
    told.append(metadata and {k: v for k, v in metadata.get().items() if k != "function"})

hook, name, *sizes = sys.argv[1:]
operators = pretend(launched)
knobs.runtime.launch_enter_hook = print if hook == "hook" else None
B, I, O = map(int, sizes)
options, shapes = {
    "nalu": ((1e-7,), [(O, I)] * 3),
    "nmru": ((1e-7,), [(O, 2 * I)]),
    "npu": ((1e-7, False), [(O, I), (I,), (O, I)]),
}[name]
x, dy, *weights = (torch.ones(s) for s in ((B, I), (B, O), *shapes))
for _ in range(2):
    y, saved = operators[name].forward(*options, True, x, *weights)
    operators[name].backward(*options, -1, dy, saved, x, *weights)
print(json.dumps(told))
"""


def profiled(hook: str, name: str, *shape: int) -> list[dict[str, Any] | None]:
    """In a process of its own: in this one the kernels are for the interpreter."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", PROFILED, hook, name, *map(str, shape)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


LARGE = ["transform", "forward", "grad_weights", "finish", "grad_input"]


@pytest.mark.parametrize(
    "shape, kernels", [((1200, 300, 200), LARGE), ((60, 3, 2), ["forward", "backward"])], ids=str
)
def test_a_profiler_is_told_what_is_counted_here(
    shape: tuple[int, int, int], kernels: list[str]
) -> None:
    sample = trace.Sample(*shape, gates=shape[2])
    launches = trace.forward(sample, CHIP, save=True) + trace.backward(sample, CHIP)
    expected = [cost.reported(launch) for launch in launches]
    names = [launch["name"].partition(" ")[0] for launch in expected]
    assert names == [f"{kernel}_kernel" for kernel in kernels]
    assert_told(profiled("hook", "nalu", *shape), expected)


def assert_told(told: list[Any], expected: list[dict[str, Any]]) -> None:
    """Twice, for there are two calls."""
    assert [{k: v for k, v in one.items() if k != "stream"} for one in told] == 2 * expected


@pytest.mark.parametrize("layer", ["nmru", "npu"])
def test_a_profiler_is_told_of_the_layers_after_nalu(layer: str) -> None:
    expected = [cost.reported(launch) for launch in launches_of(layer, (60, 3, 2))]
    assert_told(profiled("hook", layer, 60, 3, 2), expected)


def test_without_a_profiler_nothing_is_counted() -> None:
    assert profiled("none", "nalu", 60, 3, 2) == [None] * 4


def test_totals_are_sums() -> None:
    costs = [Cost(1, 2, 3, 4, 5), Cost(10, 20, 30, 40, 50)]
    assert cost.total(costs) == Cost(11, 22, 33, 44, 55)
    assert cost.total([]) == Cost(0, 0)


def test_the_table_has_a_line_for_each_launch(capsys: pytest.CaptureFixture[str]) -> None:
    cost.main(["1024", "512", "512", "--dtype", "bfloat16", "--family", "sm_90"])
    head, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["launch", "grid", "programs", "tile", "flops", "bytes", "flops/byte"]
    names = ["transform", "forward", "grad_weights", "finish", "grad_input", "total"]
    assert [line[0] for line in lines] == names
    assert lines[-1][-3] == f"{18 * 1024 * 512 * 512:,}"
    cost.main(["0", "3", "4"])
    assert capsys.readouterr().out.splitlines()[-1].split()[-3] == "0"


def test_the_roofline_is_the_slower_of_memory_and_arithmetic() -> None:
    peaks = Peaks(bytes=10, flops16=1000, flops32=100, flops64=50)
    assert roofline.seconds([Cost(7, 30, 1000, 100)], peaks) == 3
    assert roofline.seconds([Cost(7, 30, 4000, 100)], peaks) == 4
    assert roofline.seconds([Cost(7, 30, 4000, 500)], peaks) == 5
    assert roofline.seconds([Cost(7, 30, flops64=300), Cost(0, 10)], peaks) == 7
    assert roofline.seconds([], peaks) == 0


@pytest.mark.parametrize("name", ["highest", "high", "medium", "bfloat16"])
def test_every_case_of_the_gpu_script_has_a_roofline(name: str) -> None:
    cpu, peaks = torch.device("cpu"), PEAKS["NVIDIA H200"]
    for group in GROUPS:
        for shape in group.shapes:
            for what in (BACKWARD, FORWARD):
                case = GpuCase(group, shape, what, name)
                with precision(name) as dtype:
                    found = roofline.of(case, dtype, cpu, peaks)
                    assert roofline.of(case, dtype, cpu, None).seconds is None
                assert found.flops == case.flops
                assert found.launches >= (2 if case.backward else 1)
                assert found.seconds is not None
                rounded = 1.000001 * found.seconds
                assert rounded >= found.bytes / peaks.bytes
                assert rounded >= found.flops / peaks.flops16


def test_the_peaks_are_those_of_the_chips() -> None:
    """Processors x clock x operations of a processor in a clock."""
    h100, a100 = PEAKS["NVIDIA H100 80GB HBM3"], PEAKS["NVIDIA A100-SXM4-80GB"]
    mi300x = PEAKS["AMD Instinct MI300X"]
    assert h100[1:] == PEAKS["NVIDIA H200"][1:]
    assert h100.flops16 == pytest.approx(132 * 1.83e9 * 4096, rel=1e-3)
    assert h100.flops32 == pytest.approx(132 * 1.98e9 * 256, rel=1e-3)
    assert a100.flops16 == pytest.approx(108 * 1.41e9 * 2048, rel=1e-3)
    assert a100.flops32 == pytest.approx(108 * 1.41e9 * 128, rel=1e-2)
    assert mi300x.flops16 == pytest.approx(304 * 2.1e9 * 2048, rel=1e-3)
    assert mi300x.flops32 == mi300x.flops64 == pytest.approx(304 * 2.1e9 * 256, rel=1e-3)
