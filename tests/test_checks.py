"""Wrong arguments: an exception that names the argument, what came and what was expected."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, draw
from nalu_kernels import native

I, O = 3, 2  # noqa: E741
PARAMETERS = ["W_hat", "M_hat", "G", "gate_bias", "W_hat_mul", "M_hat_mul"]
MATRICES = ["W_hat", "M_hat", "G", "W_hat_mul", "M_hat_mul"]


class Recorder(TorchDispatchMode):
    """What torch was asked to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators.append(func.name())
        return func(*args, **(kwargs or {}))


def refused(
    function: str,
    backend: Backend,
    error: type[Exception],
    *words: str,
    grad: bool = False,
    **wrong: object,
) -> None:
    """``function`` raises ``error`` with those words when some arguments are replaced, on every
    path into it and before any kernel runs."""
    kind = BY_NAME["nac_log_space"] if function == "nac" else FULLEST
    layer = draw(torch.Generator().manual_seed(0), kind, (4, I, O), device=backend.device)
    arguments = {**layer.tensors, **layer.options, **wrong}
    if grad:
        for value in arguments.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                value.requires_grad_()
    with Recorder() as recorder, pytest.raises(error) as raised:
        getattr(nalu_kernels, function)(**arguments)
    for word in words:
        assert word in str(raised.value)
    assert all(name.startswith("nalu_kernels") for name in recorder.operators)


both = pytest.mark.parametrize("function", ["nac", "nalu"])
with_and_without_grad = pytest.mark.parametrize("grad", [False, True], ids=["", "grad"])


@with_and_without_grad
@both
@pytest.mark.parametrize("shape", [(4, I + 1), (I, 4), (5,), (4, 0)], ids=str)
def test_wrong_last_dimension(
    function: str, shape: tuple[int, ...], grad: bool, backend: Backend
) -> None:
    words = ("input: expected a last dimension of in_features = 3", f"got shape {shape}")
    wrong = torch.ones(shape, device=backend.device)
    refused(function, backend, ValueError, *words, input=wrong, grad=grad)


@both
def test_scalar_input(function: str, backend: Backend) -> None:
    wrong = torch.ones((), device=backend.device)
    refused(function, backend, ValueError, "input: expected at least 1 dimension", input=wrong)


@both
@pytest.mark.parametrize("shape", [(), (I,), (1, 1, O, I)], ids=str)
def test_weight_of_wrong_dimensions(
    function: str, shape: tuple[int, ...], backend: Backend
) -> None:
    words = ("W_hat: expected 2 dimensions (out_features, in_features)", f"got shape {shape}")
    wrong = torch.ones(shape, device=backend.device)
    refused(function, backend, ValueError, *words, W_hat=wrong)


@with_and_without_grad
@pytest.mark.parametrize("shape", [(O, I + 1), (O + 1, I), (I, O), (I,), (1, O, I)], ids=str)
@pytest.mark.parametrize("name", MATRICES[1:])
def test_mismatched_parameters(
    name: str, shape: tuple[int, ...], grad: bool, backend: Backend
) -> None:
    expected = "(2, 3) or (1, 3)" if name == "G" else "(2, 3)"
    words = (f"{name}: expected shape {expected}", f"got {shape}")
    wrong = torch.ones(shape, device=backend.device)
    refused("nalu", backend, ValueError, *words, grad=grad, **{name: wrong})
    if name == "M_hat":
        refused("nac", backend, ValueError, *words, grad=grad, M_hat=wrong)


@pytest.mark.parametrize("shape", [(), (1,), (O + 1,), (1, O), (O, 1)], ids=str)
def test_mismatched_gate_bias(shape: tuple[int, ...], backend: Backend) -> None:
    words = ("gate_bias: expected shape (2,)", f"got {shape}")
    wrong = torch.ones(shape, device=backend.device)
    refused("nalu", backend, ValueError, *words, gate_bias=wrong)


@pytest.mark.parametrize(
    ("missing", "given"), [("W_hat_mul", "M_hat_mul"), ("M_hat_mul", "W_hat_mul")]
)
def test_half_of_the_products_weights(missing: str, given: str, backend: Backend) -> None:
    words = f"{missing}: expected a tensor because {given} is given, got None"
    refused("nalu", backend, ValueError, words, **{missing: None})


@with_and_without_grad
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("name", PARAMETERS)
def test_mixed_dtypes(name: str, dtype: torch.dtype, grad: bool, backend: Backend) -> None:
    shape = (O,) if name == "gate_bias" else (O, I)
    wrong = torch.ones(shape, dtype=dtype, device=backend.device)
    words = (f"{name}: expected the dtype of input, torch.float32", f"got {dtype}")
    refused("nalu", backend, TypeError, *words, grad=grad, **{name: wrong})
    if name in ("W_hat", "M_hat"):
        refused("nac", backend, TypeError, *words, grad=grad, **{name: wrong})


@both
@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.complex128],
    ids=str,
)
def test_input_that_is_not_real(function: str, dtype: torch.dtype, backend: Backend) -> None:
    wrong = torch.ones(4, I, dtype=dtype, device=backend.device)
    words = (
        "input: expected a tensor of dtype float32, float64, bfloat16, float16",
        f"got {dtype}",
    )
    refused(function, backend, TypeError, *words, input=wrong)


@both
def test_sparse_input(function: str, backend: Backend) -> None:
    wrong = torch.eye(I, device=backend.device).to_sparse()
    words = ("input: expected a dense (strided) tensor, got layout torch.sparse_coo",)
    refused(function, backend, TypeError, *words, input=wrong)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sparse_parameters(name: str, backend: Backend) -> None:
    wrong = torch.ones((O,) if name == "gate_bias" else (O, I), device=backend.device).to_sparse()
    words = (f"{name}: expected a dense (strided) tensor, got layout torch.sparse_coo",)
    refused("nalu", backend, TypeError, *words, **{name: wrong})


@pytest.mark.parametrize("name", PARAMETERS)
def test_mixed_devices(name: str, backend: Backend) -> None:
    wrong = torch.ones((O,) if name == "gate_bias" else (O, I), device="meta")
    words = (f"{name}: expected the device of input, {backend.device}", "got meta")
    refused("nalu", backend, ValueError, *words, **{name: wrong})
    if name in ("W_hat", "M_hat"):
        refused("nac", backend, ValueError, *words, **{name: wrong})


@pytest.mark.parametrize("name", ["input", *PARAMETERS])
@pytest.mark.parametrize("value", [[1.0], 2.0, "x", torch.float32], ids=str)
def test_not_a_tensor(name: str, value: object, backend: Backend) -> None:
    kind = "torch.dtype" if value is torch.float32 else type(value).__name__
    words = (f"{name}: expected a torch.Tensor, got {kind}",)
    refused("nalu", backend, TypeError, *words, **{name: value})
    if name in ("input", "W_hat", "M_hat"):
        refused("nac", backend, TypeError, *words, **{name: value})


@pytest.mark.parametrize("name", ["input", "W_hat", "M_hat", "G"])
def test_none_for_a_tensor(name: str, backend: Backend) -> None:
    words = (f"{name}: expected a torch.Tensor, got NoneType",)
    refused("nalu", backend, TypeError, *words, **{name: None})


@with_and_without_grad
@both
@pytest.mark.parametrize("eps", [0.0, -1e-7, torch.inf, -torch.inf, torch.nan, 0, -1])
def test_eps_out_of_range(function: str, eps: float, grad: bool, backend: Backend) -> None:
    words = (f"eps: expected a positive finite float, got {eps}",)
    refused(function, backend, ValueError, *words, eps=eps, grad=grad)
    with pytest.raises(ValueError, match=re.escape(words[0])):
        getattr(nalu_kernels, function.upper())(I, O, eps=eps)


@both
@pytest.mark.parametrize("eps", ["1e-7", None, True, 1j, [1e-7]], ids=str)
def test_eps_of_wrong_type(function: str, eps: object, backend: Backend) -> None:
    words = (f"eps: expected a positive finite float, got {type(eps).__name__}",)
    refused(function, backend, TypeError, *words, eps=eps)
    with pytest.raises(TypeError, match=re.escape(words[0])):
        getattr(nalu_kernels, function.upper())(I, O, eps=eps)


WITH_EPS = [
    *("NAC", "NALU", "GNALU", "INALU", "NPU", "RealNPU", "NACSigma", "NACNMU"),
    *("NACCell", "NALUCell", "INALUCell", "RealNPUCell"),
]


@pytest.mark.parametrize("layer", WITH_EPS)
def test_an_eps_that_is_0_in_the_layers_dtype(layer: str) -> None:
    make = getattr(nalu_kernels, layer)
    for dtype in (None, torch.float32, torch.bfloat16, torch.float16):
        words = "eps: expected at least 1.4e-45, .* 0 in float32, got 1e-50; .*float64 takes"
        with pytest.raises(ValueError, match=words):
            make(I, O, eps=1e-50, dtype=dtype)
        make(I, O, eps=1.4e-45, dtype=dtype)
    make(I, O, eps=5e-324, dtype=torch.float64)


@pytest.mark.parametrize("function", ["NAC", "NPU"])
def test_the_least_eps_makes_no_nan_of_zeros(function: str, backend: Backend) -> None:
    options = {"log_space": True} if function == "NAC" else {}
    layer = getattr(nalu_kernels, function)(I, O, eps=1.4e-45, **options).to(backend.device)
    with nalu_kernels.use_backend(backend.name):
        assert not layer(torch.zeros(4, I, device=backend.device)).isnan().any()


def test_numbers_and_bools_of_numpy(backend: Backend, rng: Generator) -> None:
    numpy = pytest.importorskip("numpy")
    x = torch.rand(4, I, generator=rng).to(backend.device)
    for kind in (numpy.float32, numpy.float64, numpy.float16, numpy.int64):
        eps = float(kind(0.5)) or 1.0
        layer = nalu_kernels.NALU(I, O, eps=kind(eps), tied=numpy.bool_(False)).to(backend.device)
        assert (type(layer.eps), layer.eps) == (float, eps)
        assert layer.tied is False
        assert layer.W_hat_mul is not None
        layer(x).sum().backward()
        W_hat, M_hat = layer.W_hat, layer.M_hat
        found = nalu_kernels.nac(x, W_hat, M_hat, log_space=numpy.bool_(True), eps=kind(eps))
        assert torch.equal(found, nalu_kernels.nac(x, W_hat, M_hat, log_space=True, eps=eps))
    assert nalu_kernels.NAC(I, O, log_space=numpy.bool_(True)).log_space is True
    assert nalu_kernels.NALU(I, O, gate_bias=numpy.bool_(False)).gate_bias is None
    with pytest.raises(TypeError, match=r"tied: expected a bool, got numpy\.int64"):
        nalu_kernels.NALU(I, O, tied=numpy.int64(1))
    with pytest.raises(TypeError, match=r"eps: expected a positive finite float, got numpy\.bool"):
        nalu_kernels.NALU(I, O, eps=numpy.bool_(True))
    with pytest.raises(ValueError, match="eps: expected a positive finite float, got nan"):
        nalu_kernels.NALU(I, O, eps=numpy.float32("nan"))


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_a_nested_tensor(layout: torch.layout, backend: Backend) -> None:
    parts = [torch.ones(n, I, device=backend.device) for n in (2, 4)]
    nested = torch.nested.nested_tensor(parts, layout=layout)
    for name in ("NAC", "NALU", "NACCell", "NALUCell"):
        layer = getattr(nalu_kernels, name)(I, O).to(backend.device)
        words = r"input: expected a dense \(strided\) tensor, got a nested one; .*input\.unbind\(\)"
        for grad in (True, False):
            with torch.set_grad_enabled(grad), pytest.raises(TypeError, match=words):
                layer(nested)
        assert [layer(part).shape[0] for part in nested.unbind()] == [2, 4]


@pytest.mark.parametrize("value", ["yes", 1, 0, None], ids=str)
def test_log_space_of_wrong_type(value: object, backend: Backend) -> None:
    words = (f"log_space: expected a bool, got {type(value).__name__}",)
    refused("nac", backend, TypeError, *words, log_space=value)


@both
def test_unknown_options(function: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'bias'"):
        getattr(nalu_kernels, function)(torch.ones(1), bias=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'bias'"):
        getattr(nalu_kernels, function.upper())(I, O, bias=True)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"gate": "row"}, ValueError, "gate: expected 'output' or 'sample', got 'row'"),
        ({"gate": None}, ValueError, "gate: expected 'output' or 'sample', got None"),
        ({"gate_bias": 1}, TypeError, "gate_bias: expected a bool, got int"),
        ({"tied": "no"}, TypeError, "tied: expected a bool, got str"),
        ({"in_features": 2.0}, TypeError, "in_features: expected an int, got float"),
        ({"out_features": True}, TypeError, "out_features: expected an int, got bool"),
        ({"in_features": -1}, ValueError, "in_features: expected a size of at least 0, got -1"),
        ({"out_features": -3}, ValueError, "out_features: expected a size of at least 0, got -3"),
    ],
    ids=str,
)
def test_options_of_the_layer(
    options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        nalu_kernels.NALU(**{"in_features": I, "out_features": O, **options})


def test_log_space_of_the_layer() -> None:
    with pytest.raises(TypeError, match="log_space: expected a bool, got int"):
        nalu_kernels.NAC(I, O, log_space=1)


@pytest.mark.parametrize("layer", ["NAC", "NALU"])
@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (torch.int64, "dtype: expected float32, float64, bfloat16, float16, got torch.int64"),
        (torch.complex64, "got torch.complex64"),
        (torch.bool, "got torch.bool"),
        (torch.float8_e4m3fn, "got torch.float8_e4m3fn"),
        ("float32", "dtype: expected a torch.dtype or None, got str"),
        (float, "dtype: expected a torch.dtype or None, got type"),
    ],
    ids=str,
)
def test_dtype_of_the_layer(
    layer: str, dtype: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before any parameter is made."""
    monkeypatch.setattr(torch, "empty", None)
    with pytest.raises(TypeError, match=re.escape(words)):
        getattr(nalu_kernels, layer)(I, O, dtype=dtype)


@pytest.mark.parametrize("layer", ["NAC", "NALU"])
def test_device_of_the_layer(layer: str) -> None:
    with pytest.raises(RuntimeError, match="device"):
        getattr(nalu_kernels, layer)(I, O, device="no such device")


@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_output_gradient_is_checked(wrong: str, backend: Backend, rng: Generator) -> None:
    """By autograd, before it comes to the kernels."""
    layer = draw(rng, FULLEST, (4, I, O), device=backend.device)
    layer.tensors["W_hat"].requires_grad_()
    output = layer.call(nalu_kernels)
    gradient = torch.ones(4, O + 1) if wrong == "shape" else torch.ones(4, O, dtype=torch.complex64)
    with pytest.raises(RuntimeError):
        output.backward(gradient.to(backend.device))


@both
def test_a_refusal_changes_nothing(function: str, backend: Backend, rng: Generator) -> None:
    layer = draw(rng, BY_NAME["nac"] if function == "nac" else FULLEST, (4, I, O))
    layer = layer.map(lambda tensor: tensor.to(backend.device))
    copies = {name: tensor.clone() for name, tensor in layer.tensors.items()}
    with pytest.raises(ValueError):
        layer.call(nalu_kernels, M_hat=torch.ones(1, 1, device=backend.device))
    for name, tensor in layer.tensors.items():
        assert torch.equal(tensor, copies[name])
    assert layer.call(nalu_kernels).isfinite().all()


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here")
def test_refusals_survive_a_libstdcxx_that_was_linked_statically() -> None:
    """Its streams crash beside the process's own: the compiled modules use none."""
    found = [
        path
        for module in ("_cpu", "_cuda")
        for path in native._libraries(native._FOLDER, module)
        if path.suffix == ".so"
    ]
    if not found:
        pytest.skip("nothing compiled here")
    for path in found:
        command = ["nm", "--demangle", "--dynamic", "--undefined-only", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not re.findall(r".*stream.*", done.stdout), path
