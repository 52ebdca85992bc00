"""Training many seeds: one step of all, stacked in one layer, against a loop of layers.

    python -m benchmarks.many_seeds
    python -m benchmarks.many_seeds --page docs/many_seeds.md    puts the table into the page

A step is the forward, the mean absolute error, the backward and Adam, of a tied NALU on a batch of
each seed's own. The loop has a layer and a fused Adam for each seed, the stack one of each.
Saved: what the stack keeps between forward and backward, beside its inputs. One thread, and the
time that the processor spent on it, as other work disturbs that least.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from nalu_kernels import NALU

from . import markdown
from .cases import shape_name
from .timing import Call, interleave, processor_seconds, ratio

SHAPES = ((64, 2, 1), (128, 100, 2))
SEEDS = (1, 10, 50, 200)
LOOP, STACK = "loop", "stack"
HEAD = ["B×I→O", "seeds", "loop, ms", "stack, ms", "times faster", "saved, kB"]


def adam(parameters: Iterable[Tensor]) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def loop_step(layers: list[NALU], x: Tensor, target: Tensor) -> Call:
    optimizers = [adam(layer.parameters()) for layer in layers]

    def step() -> None:
        for layer, optimizer, own_x, own_target in zip(layers, optimizers, x, target, strict=True):
            optimizer.zero_grad()
            (layer(own_x) - own_target).abs().mean().backward()
            optimizer.step()

    return step


def stack_step(layers: list[NALU], x: Tensor, target: Tensor) -> tuple[Call, dict[str, Tensor]]:
    """The step, and the stacked parameters that it changes."""
    stacked = NALU.stack(layers)
    optimizer = adam(stacked.parameters())

    def step() -> None:
        optimizer.zero_grad()
        (stacked(x) - target).abs().mean((1, 2)).sum().backward()
        optimizer.step()

    return step, dict(stacked.named_parameters())


def problem(shape: tuple[int, int, int], seeds: int) -> tuple[list[NALU], Tensor, Tensor]:
    """Layers, batches and targets of each seed."""
    batch, in_features, out_features = shape
    layers = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        layers.append(NALU(in_features, out_features))
    return layers, 1 + torch.rand(seeds, batch, in_features), torch.rand(seeds, batch, out_features)


def saved_bytes(step: Call, known: Iterable[Tensor]) -> int:
    """Kept between forward and backward, beside ``known``."""
    own = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(kept.values())


def row(shape: tuple[int, int, int], seeds: int, budget_s: float) -> list[str]:
    layers, x, target = problem(shape, seeds)
    step, parameters = stack_step(layers, x, target)
    saved = saved_bytes(step, [*parameters.values(), x, target])
    calls = {LOOP: loop_step(layers, x, target), STACK: step}
    samples = interleave(calls, budget_s=budget_s, seconds=processor_seconds)
    times = [f"{1e3 * statistics.median(samples[name]):,.2f}" for name in (LOOP, STACK)]
    faster = f"{ratio(samples, LOOP, STACK):.1f}"
    return [shape_name(shape), str(seeds), *times, faster, f"{saved / 1024:,.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", type=Path, help="put the table there")
    page = parser.parse_args().page
    torch.set_num_threads(1)
    rows = [HEAD, *(row(shape, seeds, budget_s=3.0) for shape in SHAPES for seeds in SEEDS)]
    print(markdown.align(rows, left=1))
    if page is not None:
        document = page.read_text(encoding="utf-8")
        document = markdown.replace_section(document, "seeds table", markdown.table(rows, left=1))
        page.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
