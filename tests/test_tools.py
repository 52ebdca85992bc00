"""Optimizers, averaged models, file formats, summaries, Lightning and the profiler, as with
torch.nn.Linear."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.optim import swa_utils

import nalu_kernels
from conftest import Backend
from nalu_kernels import NAC, NALU, dispatch, reference
from selection import only, pairs

pytestmark = pairs

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "SGD-fused": lambda p: torch.optim.SGD(p, lr=0.05, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "Adam-fused": lambda p: torch.optim.Adam(p, lr=0.05, fused=True),
    "Adam-foreach": lambda p: torch.optim.Adam(p, lr=0.05, foreach=True),
    "AdamW-fused": lambda p: torch.optim.AdamW(p, lr=0.05, fused=True),
    "AdamW-foreach": lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True, foreach=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.05),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
}


@pytest.fixture
def model(backend: Backend) -> nn.Module:
    model = nn.Sequential(NALU(3, 2, tied=False, gate_bias=True), NAC(2, 1))
    return model.to(backend.device, torch.float64)


@pytest.fixture
def batch(backend: Backend, rng: Generator) -> tuple[Tensor, Tensor]:
    x = torch.rand(8, 3, generator=rng, dtype=torch.float64) + 0.5
    return x.to(backend.device), x.prod(1, keepdim=True).to(backend.device)


def train(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    make: Callable[[Any], torch.optim.Optimizer] = OPTIMIZERS["Adam"],
    after_step: Callable[[nn.Module], object] = lambda model: None,
    steps: int = 3,
    mixed: bool = False,
) -> dict[str, Tensor]:
    """The parameters of a copy of ``model`` that has been trained so."""
    model = copy.deepcopy(model)
    optimizer = make(model.parameters())
    x, target = batch

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
            value = (model(x) - target).square().mean()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        return value

    for _ in range(steps):
        optimizer.step(loss)
        after_step(model)
    return model.state_dict()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: str) -> None:
    found = train(model, batch, OPTIMIZERS[optimizer])
    with nalu_kernels.use_backend("reference"):
        expected = train(model, batch, OPTIMIZERS[optimizer])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert all(not torch.equal(found[name], start) for name, start in model.state_dict().items())


def test_an_optimizer_goes_on_where_it_was_saved(
    model: nn.Module, batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    expected = train(model, batch, steps=4)
    saved: list[Any] = []

    def resume(parameters: Any) -> torch.optim.Optimizer:
        optimizer = OPTIMIZERS["Adam"](parameters)
        if saved:
            optimizer.load_state_dict(torch.load(tmp_path / "optimizer", weights_only=True))
        saved.append(optimizer)
        return optimizer

    half = train(model, batch, resume, steps=2)
    torch.save(saved[0].state_dict(), tmp_path / "optimizer")
    model.load_state_dict(half)
    found = train(model, batch, resume, steps=2)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("how", ["SWA", "EMA"])
def test_averaged_models(how: str, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    decay, seen = 0.75, []
    average = swa_utils.get_ema_multi_avg_fn(decay) if how == "EMA" else None
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=average)

    def after_step(trained: nn.Module) -> None:
        averaged.update_parameters(trained)
        seen.append({name: p.detach().clone() for name, p in trained.named_parameters()})

    train(model, batch, after_step=after_step)
    expected = seen[0]
    for count, parameters in enumerate(seen[1:], 2):
        keep = decay if how == "EMA" else 1 - 1 / count
        expected = {
            name: keep * old + (1 - keep) * parameters[name] for name, old in expected.items()
        }
    torch.testing.assert_close(dict(averaged.module.named_parameters()), expected)
    x, _ = batch
    plain = copy.deepcopy(model)
    plain.load_state_dict(expected)
    for mode in (True, False):
        torch.testing.assert_close(averaged.train(mode)(x), plain.train(mode)(x))


def test_an_average_is_not_mistaken_for_the_last_one(
    model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    """In eval() W is kept between calls, until the average moves on."""
    averaged = swa_utils.AveragedModel(model).eval()
    x, _ = batch
    with torch.no_grad():
        for _ in range(3):
            for parameter in model.parameters():
                parameter.mul_(0.9)
            averaged.update_parameters(model)
            fresh = copy.deepcopy(averaged.module)
            assert torch.equal(averaged(x), fresh(x))


def test_update_bn_has_nothing_to_do(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """As for any model without batch normalisation; with one it finds its statistics."""
    before = copy.deepcopy(model.state_dict())
    for given in (model, swa_utils.AveragedModel(model)):
        swa_utils.update_bn([batch[0]], given)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    norm = nn.BatchNorm1d(2).to(batch[0])
    model.insert(1, norm)
    swa_utils.update_bn([batch[0]], model)
    torch.testing.assert_close(norm.running_mean, model[0](batch[0]).mean(0))


class Plain(nn.Module):
    """The plain PyTorch of a NALU, with parameters of the same names."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        for name in ("W_hat", "M_hat", "G"):
            self.register_parameter(name, nn.Parameter(torch.zeros(out_features, in_features)))

    def forward(self, x: Tensor) -> Tensor:
        return reference.nalu(x, self.W_hat, self.M_hat, self.G)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_safetensors(dtype: torch.dtype, backend: Backend, tmp_path: Path, rng: Generator) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    file = tmp_path / "model.safetensors"
    layer, other = (NALU(3, 2, dtype=dtype, device=backend.device) for _ in range(2))
    x = torch.randn(4, 3, generator=rng).to(backend.device, dtype)

    safetensors.save_model(layer, file)
    assert safetensors.load_model(other, file) == (set(), [])
    assert torch.equal(layer(x), other(x))

    safetensors.save_file(layer.state_dict(), file, metadata={"format": "pt"})
    loaded = safetensors.load_file(file)
    assert list(loaded) == sorted(layer.state_dict())
    plain = Plain(3, 2).to(x)
    plain.load_state_dict(loaded)
    wide = [copy.deepcopy(one).double()(x.double()) for one in (plain, layer)]
    torch.testing.assert_close(*wide)

    safetensors.save_model(plain.requires_grad_(False), file)
    again = NALU(3, 2, dtype=dtype, device=backend.device)
    safetensors.load_model(again, file)
    assert torch.equal(again(x), layer(x))


def test_safetensors_of_a_layer_that_stands_twice(tmp_path: Path, rng: Generator) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    layer, file, x = NALU(3, 3), tmp_path / "model.safetensors", torch.rand(4, 3, generator=rng)
    model = nn.Sequential(layer, layer)
    safetensors.save_model(model, file)
    again = NALU(3, 3)
    twice = nn.Sequential(again, again)
    safetensors.load_model(twice, file)
    assert torch.equal(twice(x), model(x))


def test_summary(backend: Backend) -> None:
    torchinfo = pytest.importorskip("torchinfo", reason="torchinfo is not installed")
    frozen = NALU(3, 2, gate="sample").requires_grad_(False)
    model = nn.Sequential(
        NALU(5, 4, tied=False, gate_bias=True), NAC(4, 3, log_space=True), frozen
    ).to(backend.device)
    summary = torchinfo.summary(model, input_size=(7, 6, 5), device=backend.device, verbose=0)
    layers = [layer for layer in summary.summary_list if layer.depth == 1]
    assert [layer.class_name for layer in layers] == ["NALU", "NAC", "NALU"]
    assert [layer.input_size for layer in layers] == [[7, 6, 5], [7, 6, 4], [7, 6, 3]]
    assert [layer.output_size for layer in layers] == [[7, 6, 4], [7, 6, 3], [7, 6, 2]]
    sizes = [5 * 5 * 4 + 4, 2 * 4 * 3, 2 * 3 * 2 + 3]
    assert [layer.num_params for layer in layers] == sizes
    assert (summary.total_params, summary.trainable_params) == (sum(sizes), sum(sizes[:2]))


@pytest.mark.filterwarnings("ignore")  # of what Lightning would have done otherwise
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning(precision: Any, backend: Backend, tmp_path: Path, rng: Generator) -> None:
    """Its loop, with nothing left on disk, does what the plain one does."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Sum(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(NALU(3, 2), NAC(2, 1))

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, target = batch
            return (self.model(x) - target).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return OPTIMIZERS["Adam"](self.parameters())

    x = torch.rand(8, 3, generator=rng)
    batch = x, x.sum(1, keepdim=True)
    module = Sum()
    there = module.model.to(backend.device), tuple(tensor.to(backend.device) for tensor in batch)
    expected = train(*there, mixed=precision == "bf16-mixed")
    data = torch.utils.data.TensorDataset(*batch)
    lightning.Trainer(
        accelerator="gpu" if backend.device == "cuda" else "cpu",
        devices=1,
        max_epochs=3,
        gradient_clip_val=1.0,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    ).fit(module, torch.utils.data.DataLoader(data, batch_size=8))
    found = module.model.state_dict()
    torch.testing.assert_close({name: found[name].to(expected[name]) for name in found}, expected)
    assert not list(tmp_path.iterdir())


def profiled(run: Callable[[], object]) -> set[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return {event.key for event in profile.key_averages()}


@only(lambda backend: backend.has_kernels)
@pytest.mark.parametrize("layer", ["NAC", "NALU"])
def test_the_profiler_names_the_operators(layer: str, backend: Backend, rng: Generator) -> None:
    """By the back end that ran them, within autograd's own names."""
    namespace = dispatch._BACKENDS[backend.name].namespace
    x = torch.rand(4, 3, generator=rng).to(backend.device)
    model, name = getattr(nalu_kernels, layer)(3, 2, device=backend.device), layer.lower()
    found = profiled(lambda: model(x).sum().backward())
    backward = f"{layer}FunctionBackward"
    assert found >= {
        f"{layer}Function",
        f"{namespace}::{name}_forward",
        backward,
        f"autograd::engine::evaluate_function: {backward}",
        f"{namespace}::{name}_backward",
    }
    assert not found & {"aten::mm", "aten::linear", "aten::tanh"}
    with torch.no_grad():
        found = profiled(lambda: model(x))
    assert f"{namespace}::{name}_forward" in found and f"{layer}Function" not in found


@pytest.mark.parametrize("layer", ["NAC", "NALU"])
def test_the_profiler_names_what_runs_in_inference(layer: str) -> None:
    """On the CPU, where W can be kept."""
    if not nalu_kernels.backends()["cpu"].usable:
        pytest.skip("W is kept for the CPU's kernels alone")
    model, x = getattr(nalu_kernels, layer)(3, 2), torch.rand(4, 3)
    with torch.no_grad(), nalu_kernels.keep_weights(model):
        first, second = profiled(lambda: model(x)), profiled(lambda: model(x))
    of_W, transform = f"nalu_kernels::{layer.lower()}_of_W", "nalu_kernels::transform"
    assert {of_W, transform} <= first
    assert of_W in second and transform not in second


def test_the_profiler_shows_the_references_formulas() -> None:
    model, x = NALU(3, 2), torch.rand(4, 3)
    with nalu_kernels.use_backend("reference"):
        found = profiled(lambda: model(x).sum().backward())
    assert found >= {"aten::linear", "aten::tanh", "aten::sigmoid", "aten::exp", "TanhBackward0"}
    assert not any("nalu" in name.lower() for name in found)


@pytest.mark.filterwarnings("ignore")
def test_a_transformer_with_a_nalu_for_its_linear1(rng: Generator) -> None:
    """In eval() torch's fast path asks a linear layer for its weight."""
    block = nn.TransformerEncoderLayer(4, 2, dim_feedforward=3, dropout=0.0, batch_first=True)
    block.linear1 = NALU(4, 3)
    x = torch.rand(2, 5, 4, generator=rng)
    trained = block(x)
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            assert torch.allclose(block.eval()(x), trained)
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def test_the_page_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With its ``py`` blocks, which need more than PyTorch."""
    for name in ("lightning", "safetensors", "torchinfo"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    page = Path(__file__).parents[1] / "docs" / "tools.md"
    blocks = re.findall(r"```py(?:thon)?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.name}
    for block in blocks:
        exec(compile(block, page.name, "exec"), namespace)
    assert "trainer" in namespace and not list(tmp_path.iterdir())
