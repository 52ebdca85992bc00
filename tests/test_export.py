"""torch.export, ahead-of-time Inductor packages, ONNX and torch.jit.trace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.export import Dim, ExportedProgram, export

from conftest import Backend
from nalu_kernels import NAC, NALU, dispatch
from selection import only, pairs, slow

pytestmark = pairs


def close(found: Tensor, expected: Tensor) -> None:
    """By other sums than the kernels'. In float64, for near a zero the logarithm of a sum has any
    number of times its rounding."""
    assert found.shape == expected.shape and found.dtype == expected.dtype == torch.float64
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


class EveryKind(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            NALU(5, 4, tied=False, gate_bias=True),
            NALU(4, 3, gate="sample"),
            NAC(3, 3, log_space=True),
            NAC(3, 2),
        )


class Apart(nn.Module):
    """Each layer on an input of its own: the layers behind one would multiply what it rounds."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]


@pytest.fixture
def model(backend: Backend) -> nn.Module:
    return EveryKind().to(backend.device).eval()


@pytest.fixture
def rows(backend: Backend, rng: Generator) -> Any:
    return lambda batch: torch.rand(batch, 5, generator=rng).to(backend.device) + 0.1


def exported(model: nn.Module, x: Tensor, strict: bool = False) -> ExportedProgram:
    return export(model, (x,), dynamic_shapes=({0: Dim("batch")},), strict=strict)


def targets(program: ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_round_trip(
    model: nn.Module, rows: Any, backend: Backend, strict: bool, tmp_path: Path
) -> None:
    """Saved, loaded, run at another batch size; the kernels are in it."""
    program = exported(model, rows(7), strict)
    namespace = dispatch._BACKENDS[backend.name].namespace
    if namespace:
        assert [name.removeprefix(f"{namespace}.") for name in targets(program)] == [
            "nalu.default",
            "nalu.default",
            "nac.default",
            "nac.default",
        ]
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    x = rows(9)
    torch.testing.assert_close(loaded(x), model(x))


def test_a_program_goes_on_learning(model: nn.Module, rows: Any) -> None:
    program, x = exported(model, rows(7)).module(), rows(9)
    for module in (model, program):
        module(x).square().sum().backward()
    expected = dict(model.named_parameters())
    for name, parameter in program.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad)


def test_a_program_is_differentiable_twice(model: nn.Module, rows: Any) -> None:
    x = rows(3).requires_grad_()
    seconds = []
    for module in (model, exported(model, rows(7)).module()):
        (first,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*seconds)


def test_a_program_loads_in_another_process(rng: Generator, tmp_path: Path) -> None:
    """Which has imported nalu_kernels, and called nothing of it."""
    model, x = EveryKind(), torch.rand(4, 5, generator=rng)
    torch.export.save(exported(model, torch.rand(7, 5)), tmp_path / "model.pt2")
    torch.save((x, model(x)), tmp_path / "expected.pt")
    code = (
        "import sys, torch, nalu_kernels\n"
        "x, expected = torch.load(sys.argv[2])\n"
        "found = torch.export.load(sys.argv[1]).module()(x)\n"
        "torch.testing.assert_close(found, expected)\n"
    )
    files = [str(tmp_path / name) for name in ("model.pt2", "expected.pt")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)


# What stands in for a GPU is no operator of a package.
@only(lambda backend: not (backend.interpreted or backend.emulated))
@slow(lambda backend: not backend.has_kernels)  # then all the C++ is Inductor's own
def test_ahead_of_time_package(
    model: nn.Module,
    rows: Any,
    backend: Backend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where Inductor would rather decompose than call an operator: on everybody's CI."""
    monkeypatch.setenv("CI", "true")
    model.double()
    with torch.no_grad():
        program = exported(model, rows(7).double())
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "model.pt2")
    )
    x = rows(9).double()
    close(torch._inductor.aoti_load_package(package)(x), model(x))


def by_onnxruntime(path: Path, x: Tensor, *given: Any, **options: Any) -> Tensor:
    """What onnxruntime makes of x by what torch.onnx.export makes of ``given``."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(*given, f=path, dynamo=True, verbose=False, **options)
    session = runtime.InferenceSession(str(path))
    (found,) = session.run(None, {session.get_inputs()[0].name: x.cpu().numpy()})
    return torch.from_numpy(found)


@pytest.mark.parametrize("first", ["model", "program"])
def test_onnx(model: nn.Module, rows: Any, first: str, tmp_path: Path) -> None:
    model.double()
    example, x = rows(7).double(), rows(9).double()
    if first == "model":
        shapes = ({0: Dim("batch")},)
        found = by_onnxruntime(tmp_path / "a.onnx", x, model, (example,), dynamic_shapes=shapes)
    else:
        found = by_onnxruntime(tmp_path / "a.onnx", x, exported(model, example))
    close(found, model(x).detach().cpu())


def test_onnx_in_float32(backend: Backend, rows: Any, tmp_path: Path) -> None:
    layer, x = NALU(5, 4).to(backend.device).eval(), rows(9)
    found = by_onnxruntime(tmp_path / "a.onnx", x, layer, (x,))
    torch.testing.assert_close(found, layer(x).detach().cpu(), rtol=1e-4, atol=1e-5)


@only(lambda backend, dtype: backend.computes(dtype))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decomposed_half_precision_is_that_of_the_kernels(
    backend: Backend, rows: Any, dtype: torch.dtype
) -> None:
    """Exporters that know no other operators get formulas that widen as the kernels do."""
    layers = Apart(EveryKind()).to(backend.device, dtype)
    inputs = [rows(7).to(dtype)]
    with torch.no_grad():
        for layer in layers.layers[:-1]:
            inputs.append(layer(inputs[-1]))
    program = export(layers, (inputs,))
    table = torch._decomp.decomposition_table
    plain = program.run_decompositions(table)
    assert "nalu_kernels" not in " ".join(targets(plain))
    with torch.no_grad():
        torch.testing.assert_close(plain.module()(inputs), layers(inputs))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_jit_trace(model: nn.Module, rows: Any, tmp_path: Path) -> None:
    """Deprecated, and it works: as the plain formulas."""
    model.double()
    traced = torch.jit.trace(model, (rows(7).double(),))
    torch.jit.save(traced, tmp_path / "model.pt")
    x = rows(9).double()
    close(torch.jit.load(tmp_path / "model.pt")(x), model(x))
