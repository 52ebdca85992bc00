"""Trains a NALU on a sum in several processes, each on its own part of the batch.

    torchrun --standalone --nproc-per-node 2 examples/torchrun.py            # DDP
    torchrun --standalone --nproc-per-node 2 examples/torchrun.py --how fsdp
    torchrun --standalone --nproc-per-node 2 examples/torchrun.py --how tensor

Also runs alone, as `python examples/torchrun.py`. On GPUs it takes one for each process, by itself.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn.parallel import DistributedDataParallel

from nalu_kernels import NALU, which_backend
from nalu_kernels.distributed import ColwiseParallel, RowwiseParallel


def wrap(model: nn.Sequential, how: str, device: str) -> nn.Module:
    if how == "ddp":
        return DistributedDataParallel(model)
    if how == "fsdp":
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
        return model
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})


def train(how: str, steps: int, device: str) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)  # the same model, and the same batch, in every process
    model = nn.Sequential(NALU(4, 8), NALU(8, 1)).to(device)
    x = torch.rand(64, 4, device=device) + 0.5
    target = x.sum(1, keepdim=True)
    if how != "tensor":  # there every process works on the whole batch
        x, target = x.chunk(world)[rank], target.chunk(world)[rank]
    wrapped = wrap(model, how, device)
    optimizer = torch.optim.Adam(wrapped.parameters(), 1e-2)
    first = last = 0.0
    for step in range(steps):
        optimizer.zero_grad()
        loss = (wrapped(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        last = mean(loss.detach())
        first = first if step else last
    if rank == 0:
        name, why = which_backend(x)
        print(f"{world} process(es), {how}, back end {name} ({why})")
        print(f"loss {first:.4f} at the start, {last:.4f} after {steps} steps")


def mean(loss: Tensor) -> float:
    """Over the processes."""
    dist.all_reduce(loss)
    return loss.item() / dist.get_world_size()


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--how", choices=("ddp", "fsdp", "tensor"), default="ddp")
    parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if device == "cuda" else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        store: Any = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, rank=0, world_size=1, store=store)
    train(options.how, options.steps, device)
    # One of Gloo's threads may still need Python's lock to let go of what was exchanged last; a
    # process that ends before has torch abort it.
    dist.barrier()
    time.sleep(0.2)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
