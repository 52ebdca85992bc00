"""The step ``sweeps``: whole trainings in one kernel, in training steps of all runs a second.

Its rival is the best that PyTorch can do: the runs stacked under torch.func.vmap, a step with its
data, backward and Adam captured as a CUDA graph.

    python -m benchmarks.gpu.sweeps [--dry-run]      a line of JSON for each row
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from nalu_kernels import sweep

from ..sweep import BATCH, NETWORKS, RATE, Network
from . import streamed
from .device import Device, choose
from .measure import describe
from .providers import library_backends
from .results import Clock, Results

STEP = "sweeps"
SHARE_OF_TIME = 1 / 4
GRAPH = "CUDA graph"
RUNS = (1, 100, 10_000)
# Of the two calls whose difference is measured.
SECONDS, DRY_SECONDS = (0.3, 0.9), (0.01, 0.1)
REPLAYS = 64  # steps between two looks at the clock


def in_one_kernel(
    network: Network, runs: int, backend: str, device: Device, seconds: tuple[float, float]
) -> float:
    """Steps of all runs a second, without what a call takes whatever their number."""
    stack, seeds = network.module(), sweep.grid(seed=range(runs), lr=[RATE])

    def train(limit: float) -> tuple[int, float]:
        begun = time.perf_counter()
        result = sweep.run(
            stack,
            network.task,
            seeds,
            steps=10**8,
            test_every=10**7,
            batch_size=BATCH,
            backend=backend,
            device=device.name,
            seconds=limit,
        )
        return sum(result.columns()["steps"]), time.perf_counter() - begun

    train(seconds[0])  # compiles, where that has to be
    (few, short), (many, long) = map(train, seconds)
    return (many - few) / (long - short)


def stacked(network: Network, runs: int, device: Device, seconds: tuple[float, float]) -> float:
    """The same of the rival."""
    models = [network.module().to(device.name) for _ in range(runs)]
    parameters = {
        name: p.detach().requires_grad_() for name, p in stack_module_state(models)[0].items()
    }
    graphed = device.name == "cuda"
    optimizer = torch.optim.Adam(parameters.values(), lr=RATE, foreach=True, capturable=graphed)
    x = torch.empty(runs, BATCH, network.features[0], device=device.name)

    def loss(own: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(functional_call(models[0], own, (x,)), y)

    def step() -> None:
        x.uniform_(1, 2)
        optimizer.zero_grad()
        vmap(loss)(parameters, x, network.target(x)).sum().backward()
        optimizer.step()

    replay = device.capture([step])
    replay()
    device.synchronize()
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds[1] - seconds[0]:
        for _ in range(REPLAYS):
            replay()
        device.synchronize()
        steps += REPLAYS
    return runs * steps / (time.perf_counter() - begun)


def measure(
    network: Network, runs: int, device: Device, seconds: tuple[float, float]
) -> dict[str, Any]:
    row: dict[str, Any] = {"network": network.name, "runs": runs, "steps_per_s": {}, "failed": {}}
    probe = torch.empty(0, device=device.name)
    providers: dict[str, Callable[[], float]] = {
        name: functools.partial(in_one_kernel, network, runs, name, device, seconds)
        for name in library_backends(probe)
    }
    providers[GRAPH] = functools.partial(stacked, network, runs, device, seconds)
    for name, rate in providers.items():
        try:
            row["steps_per_s"][name] = float(f"{rate():.4g}")
        except Exception as error:  # recorded, and the next one goes on
            row["failed"][name] = describe(error)
        device.free()
    return row


def run(results: Results, clock: Clock, environment: dict[str, str], dry_run: bool) -> None:
    streamed.run(STEP, SHARE_OF_TIME, _name, results, clock, environment, dry_run)


def _name(row: dict[str, Any]) -> str:
    return f"{row['network']}, {row['runs']} runs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.sweeps")
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args()
    written = streamed.output()
    device = choose(chosen.dry_run)
    networks: Sequence[Network] = NETWORKS[1:2] if chosen.dry_run else NETWORKS
    counts: Sequence[int] = (2,) if chosen.dry_run else RUNS
    seconds = DRY_SECONDS if chosen.dry_run else SECONDS
    for network in networks:
        for runs in counts:
            row = measure(network, runs, device, seconds)
            print(json.dumps(row, ensure_ascii=False), file=written)


if __name__ == "__main__":
    main()
