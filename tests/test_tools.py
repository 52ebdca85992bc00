"""Optimizers, averaging, checkpoint files, summaries, Lightning and the profiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.profiler import ProfilerActivity, profile

from conftest import Backend
from nalu_kernels import NAC, NALU, dispatch, use_backend


def make(device: str = "cpu") -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(NALU(4, 3, tied=False, gate_bias=True), NAC(3, 2)).to(device)


@pytest.fixture
def batch(backend: Backend, rng: Generator) -> tuple[Tensor, Tensor]:
    x = torch.rand(16, 4, generator=rng).to(backend.device) + 0.5
    return x, x[:, :2] + x[:, 2:]


def train(model: nn.Module, optimizer: Any, batch: tuple[Tensor, Tensor], steps: int = 5) -> None:
    x, target = batch
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, 1e-2),
    "fused Adam": lambda p: torch.optim.Adam(p, 1e-2, fused=True),
    "foreach Adam": lambda p: torch.optim.Adam(p, 1e-2, foreach=True),
    "fused AdamW": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "foreach RMSprop": lambda p: torch.optim.RMSprop(p, 1e-2, foreach=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str, backend: Backend, batch: tuple[Tensor, Tensor]) -> None:
    """A few steps end where those of the plain formulas end."""
    found, expected = make(backend.device), make(backend.device)
    train(found, OPTIMIZERS[name](found.parameters()), batch)
    with use_backend("reference"):
        train(expected, OPTIMIZERS[name](expected.parameters()), batch)
    models = (found, expected, make(backend.device))
    for ours, plain, before in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)
        assert not torch.equal(ours, before)


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.5)], ids=["SWA", "EMA"])
def test_averaged_models(average: Any, backend: Backend, batch: tuple[Tensor, Tensor]) -> None:
    model = make(backend.device)
    averaged = AveragedModel(model, multi_avg_fn=average)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule, seen = SWALR(optimizer, 1e-3), []
    for _ in range(3):
        train(model, optimizer, batch, 1)
        averaged.update_parameters(model)
        schedule.step()
        seen.append([parameter.detach().clone() for parameter in model.parameters()])
    for i, parameter in enumerate(averaged.module.parameters()):
        history = [step[i] for step in seen]
        weights = (1 / 3, 1 / 3, 1 / 3) if average is None else (1 / 4, 1 / 4, 1 / 2)
        mean = sum(weight * step for weight, step in zip(weights, history, strict=True))
        torch.testing.assert_close(parameter.detach(), mean)
    update_bn([batch[0]], averaged)
    with torch.no_grad():
        assert averaged(batch[0]).isfinite().all()


def test_safetensors(tmp_path: Path, rng: Generator) -> None:
    """Files of this library's models, and of a plain PyTorch twin's."""
    safetensors = pytest.importorskip("safetensors.torch")
    model, x = make(), torch.rand(5, 4, generator=rng)
    expected = model(x)
    safetensors.save_model(model, str(tmp_path / "model.safetensors"))
    other = nn.Sequential(NALU(4, 3, tied=False, gate_bias=True), NAC(3, 2))
    missing, unexpected = safetensors.load_model(other, str(tmp_path / "model.safetensors"))
    assert not missing and not unexpected
    assert torch.equal(other(x), expected)
    safetensors.save_file(model.state_dict(), str(tmp_path / "state.safetensors"))
    third = make()
    third.load_state_dict(safetensors.load_file(str(tmp_path / "state.safetensors")))
    assert torch.equal(third(x), expected)


def test_torchinfo() -> None:
    torchinfo = pytest.importorskip("torchinfo")
    summary = torchinfo.summary(
        make(), input_size=(7, 4), verbose=0, col_names=("output_size", "num_params")
    )
    assert summary.total_params == summary.trainable_params == 5 * 12 + 3 + 2 * 6
    layers = {info.class_name: info for info in summary.summary_list}
    assert layers["NALU"].output_size == [7, 3]
    assert layers["NAC"].output_size == [7, 2]
    assert "NALU" in str(summary)


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path: Path, rng: Generator) -> None:
    lightning = pytest.importorskip("lightning")
    x = torch.rand(64, 2, generator=rng) + 0.5

    class Sums(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = NAC(2, 1)
            self.losses: list[float] = []

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss = (self.layer(batch[0]) - batch[1]).square().mean()
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 0.1)

    module = Sums()
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=60,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, 32))
    assert module.losses[-1] < 0.1 * module.losses[0]


def test_profiler_says_which_operator_ran(backend: Backend, batch: tuple[Tensor, Tensor]) -> None:
    """The namespace is the back end's."""
    model = make(backend.device)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        model(batch[0]).sum().backward()
    names = {event.key for event in profiled.key_averages()}
    namespace = dispatch._BACKENDS[backend.name].namespace
    if namespace:
        for layer in ("nac", "nalu"):
            assert {f"{namespace}::{layer}_{way}" for way in ("forward", "backward")} <= names
        assert {"NALUFunction", "NALUFunctionBackward", "NACFunctionBackward"} <= names
    else:
        assert {"aten::linear", "aten::tanh"} <= names
        assert not any(name.startswith("nalu_kernels") for name in names)
