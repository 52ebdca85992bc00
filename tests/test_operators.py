"""The operators as PyTorch sees them: schemas, shapes without numbers, gradients, flops."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.library import opcheck

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, Kind, Layer, draw, outcome
from nalu_kernels import dispatch, operators, reference
from selection import only, pairs

pytestmark = [pairs, only(lambda backend: backend.has_kernels)]

NAMES = ("input", "W_hat", "M_hat", "G", "gate_bias", "W_hat_mul", "M_hat_mul")
SOME_KINDS = [
    BY_NAME["nac"],
    BY_NAME["nac_log_space"],
    BY_NAME["nalu_sample_tied"],
    FULLEST,
]
by_kind = pytest.mark.parametrize("kind", SOME_KINDS, ids=lambda kind: kind.name)


@pytest.fixture
def packets(backend: Backend) -> Any:
    """torch.ops' namespace of the back end's operators."""
    namespace = dispatch._BACKENDS[backend.name].namespace
    return getattr(torch.ops, namespace)


@pytest.fixture
def layer(kind: Kind, backend: Backend, rng: Generator) -> Layer:
    return draw(rng, kind, (5, 3, 4), device=backend.device)


def arguments(layer: Layer) -> list[Tensor | None]:
    """The layer's tensors in the operators' order."""
    return [layer.tensors.get(name) for name in NAMES[: 3 if layer.function == "nac" else 7]]


def options(layer: Layer) -> list[Any]:
    return [
        layer.options["eps"],
        *([layer.options["log_space"]] if "log_space" in layer.options else []),
    ]


def bits(tensors: list[Tensor | None], wanted: int = -1) -> int:
    return sum(1 << i for i, tensor in enumerate(tensors) if tensor is not None and wanted >> i & 1)


@by_kind
def test_opcheck_of_what_graphs_call(layer: Layer, packets: Any) -> None:
    tensors = arguments(layer)
    leaves = [tensor if tensor is None else tensor.clone().requires_grad_() for tensor in tensors]
    overload = getattr(packets, layer.function).default
    opcheck(overload, (*options(layer), *tensors))
    opcheck(overload, (*options(layer), *leaves))


@by_kind
@pytest.mark.parametrize("wanted", [-1, 0b10])
def test_opcheck_of_the_kernels(layer: Layer, packets: Any, wanted: int) -> None:
    tensors, eps = arguments(layer), layer.options["eps"]
    needed = bits(tensors, wanted)
    if layer.function == "nac":
        log_space = layer.options["log_space"]
        opcheck(packets.nac_forward.default, (eps, log_space, *tensors))
        y = packets.nac_forward(eps, log_space, *tensors)
        saved = y if log_space else None
    else:
        opcheck(packets.nalu_forward.default, (eps, wanted == -1, *tensors))
        y, saved = packets.nalu_forward(eps, True, *tensors)
    backward = getattr(packets, f"{layer.function}_backward").default
    opcheck(backward, (eps, needed, layer.grad_output, saved, *tensors))


# W is kept for the CPU's kernels alone.
@only(lambda backend: backend.name == "cpu")
@pytest.mark.parametrize("untied", [False, True])
def test_opcheck_of_kept_weights(rng: Generator, backend: Backend, untied: bool) -> None:
    x, W_hat, M_hat, G = (torch.randn(n, 3, generator=rng) for n in (5, 4, 4, 4))
    packets = torch.ops.nalu_kernels
    opcheck(packets.transform.default, (W_hat, M_hat))
    W = packets.transform(W_hat, M_hat)
    torch.testing.assert_close(W, reference.weight(W_hat, M_hat))
    opcheck(packets.nac_of_W.default, (1e-7, True, x, W))
    opcheck(packets.nalu_of_W.default, (1e-7, x, W, G, None, W if untied else None))


def test_schemas_of_python_are_those_of_cpp() -> None:
    for function, schemas in operators.SCHEMAS.items():
        for name, schema in schemas.items():
            if hasattr(torch.ops.nalu_kernels, f"{function}_forward"):
                compiled = getattr(torch.ops.nalu_kernels, name).default._schema
                assert str(compiled) == f"nalu_kernels::{name}{schema}"


def test_a_wrong_shape_is_named_where_there_are_no_numbers(packets: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x, W = torch.ones(2, 3), torch.ones(4, 3)
        assert nalu_kernels.nac(x, W, W).shape == (2, 4)
        with pytest.raises(ValueError, match="M_hat: expected shape"):
            packets.nac(1e-7, False, x, W, W.T)


@by_kind
def test_gradients_of_what_graphs_call(layer: Layer, packets: Any) -> None:
    """Called directly, as an exported program does."""

    class Direct:
        @staticmethod
        def nac(**tensors: Any) -> Tensor:
            return packets.nac(*options(layer), *(tensors.get(name) for name in NAMES[:3]))

        @staticmethod
        def nalu(**tensors: Any) -> Tensor:
            return packets.nalu(*options(layer), *(tensors.get(name) for name in NAMES))

    found, expected = outcome(Direct, layer), outcome(nalu_kernels, layer)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with torch.inference_mode():
        assert torch.equal(layer.call(Direct), expected["output"])


@pytest.fixture
def counted() -> Iterator[Any]:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        yield counter


B, I, O = 5, 3, 4  # noqa: E741


@pytest.mark.parametrize(
    "kind, forward, backward",
    [
        (BY_NAME["nac"], 2 * B * I * O, 4 * B * I * O),
        (BY_NAME["nac_log_space"], 2 * B * I * O, 4 * B * I * O),
        (BY_NAME["nalu_output_tied"], 6 * B * I * O, 12 * B * I * O),
        (FULLEST, 6 * B * I * O, 12 * B * I * O),
        (BY_NAME["nalu_sample_tied"], 4 * B * I * O + 2 * B * I, 8 * B * I * O + 4 * B * I),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_flops(
    layer: Layer, packets: Any, kind: Kind, forward: int, backward: int, counted: Any
) -> None:
    leaves = layer.map(lambda tensor: tensor.requires_grad_())
    y = leaves.call(nalu_kernels)
    assert counted.get_total_flops() == forward
    y.backward(layer.grad_output)
    assert counted.get_total_flops() == forward + backward


@pytest.mark.parametrize(
    "trained, products",
    [
        ({"input"}, 3),
        ({"W_hat"}, 2),
        ({"M_hat"}, 2),
        ({"G"}, 1),
        ({"gate_bias"}, 0),
        ({"input", "G"}, 4),
        ({"W_hat", "M_hat", "G"}, 3),
    ],
    ids=lambda value: "_".join(sorted(value)) if isinstance(value, set) else "",
)
@pytest.mark.parametrize("kind", [BY_NAME["nalu_output_bias_tied"]], ids=lambda kind: kind.name)
def test_frozen_parameters_have_no_products(
    layer: Layer, packets: Any, counted: Any, trained: set[str], products: int
) -> None:
    for name in trained:
        layer.tensors[name].requires_grad_()
    y = layer.call(nalu_kernels)
    forward = counted.get_total_flops()
    y.backward(layer.grad_output)
    assert counted.get_total_flops() - forward == products * 2 * B * I * O


@pytest.mark.parametrize("before", [True, False], ids=["counter first", "library first"])
def test_flop_formulas_wait_for_the_counter(before: bool) -> None:
    """The counter imports Triton, so importing this library must not import the counter."""
    imports = ["import nalu_kernels", "from torch.utils.flop_counter import FlopCounterMode"]
    if before:
        imports.reverse()
    code = (
        f"import sys, torch\n{imports[0]}\n"
        f"assert ('torch.utils.flop_counter' in sys.modules) is {before}\n{imports[1]}\n"
        "layer = nalu_kernels.NALU(3, 2)\n"
        "with FlopCounterMode(display=False) as counter:\n"
        "    layer(torch.ones(5, 3))\n"
        "print(counter.get_total_flops())\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert int(printed) == 6 * 5 * 3 * 2
