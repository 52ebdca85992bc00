"""The trainer: whole trainings on a GPU, a program for each run (docs/triton.md)."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import train_plan
from .arguments import require
from .device import chip
from .train_random import draw_kernel
from .train_step import Trainings, train_kernel

_A_LAUNCH = 0.1  # seconds, at most about
_RUNNING, _SECONDS = 1, 4  # a status; a column of the scores
_DRAW_ROWS = 128


def options(family: str, dtype: torch.dtype) -> dict[str, int]:
    """Of the compiler: for a chip of that family. One warp needs no barrier for its sums. NVIDIA's
    compiler, if not told how many registers there are, takes fewer in some kernels and spills, and
    more than it needs in others, so that fewer runs share a processor."""
    few = dtype == torch.float32 and family != "sm_80"
    limit = {} if family == "gfx942" else {"maxnreg": 168 if few else 255}
    return {"num_warps": 1, "num_stages": 1, **limit}


class Call(NamedTuple):
    """What ``train_kernel`` is given."""

    trainings: Trainings
    form: train_plan.TrainForm

    def run(self, most: int, family: str) -> None:
        """Goes on with all runs, for at most so many steps."""
        grid = (self.trainings.seeds.numel(),)
        limits = options(family, self.trainings.parameters.dtype)
        train_kernel[grid](self.trainings, most, FORM=self.form, **limits)


def call(
    program: Tensor, layers: Tensor, settings: Tensor, constants: Tensor, *tensors: Tensor
) -> Call:
    """``tensors``: the others of the operator, in its order."""
    seeds, x, x_inside, x_outside, parameters = (tensors[place] for place in (0, 3, 5, 7, 9))
    numbers, device = settings.tolist(), parameters.device
    form = train_plan.form(
        program.tolist(), layers[:, 0].tolist(), numbers, constants.tolist(), parameters.dtype
    )
    require(
        all(tensor.is_contiguous() and tensor.device == device for tensor in tensors),
        "expected contiguous tensors of one device",
    )
    runs, rows = len(seeds), x.numel() // form.I
    require(parameters.shape == (runs, form.parameters), "expected all parameters of each run")
    numbers += [
        rows,
        max(1, -(-(rows - 1).bit_length() // 2)),
        rows // max(1, form.batch * runs),
        x_inside.numel() // form.I,
        x_outside.numel() // form.I,
        form.parameters,
        form.scratch,
    ]
    scratch = torch.empty(runs * form.scratch, dtype=parameters.dtype, device=device)
    read = (torch.tensor(numbers, device=device), constants.to(device), *tensors, scratch)
    return Call(Trainings._make(read), form)


def train(*arguments: Any) -> None:
    """The operator ``train`` (csrc/ops.cpp), on tensors of a GPU, or of the CPU where Triton's
    interpreter runs; ``threads`` has no meaning here. A launch takes about a tenth of a second.

    A run's seconds are its share of the launches that it took part in.
    """
    *tensors, seconds, _ = arguments
    started = time.perf_counter()
    deadline = started + seconds
    one = call(*tensors)
    progress, scores = one.trainings.progress, one.trainings.scores
    family = chip(progress.device).family
    settings = tensors[2].tolist()
    last, most = min(settings[1], settings[11]), 1
    now = time.perf_counter()
    with _on(progress.device):
        while now < deadline:
            going = (progress[:, 1] <= _RUNNING) & (progress[:, 0] < last)
            count = int(going.sum())
            if count == 0:
                return
            one.run(most, family)
            _wait(progress.device)
            before, now = now, time.perf_counter()
            scores[going, _SECONDS] += (now - before) / count
            took = now - before
            if took > _A_LAUNCH:
                most = max(1, most // 2)
            elif took < _A_LAUNCH / 2:
                most = min(2 * most, last)
            most = max(1, min(most, int(most * (deadline - now) / max(took, 1e-9))))


def _on(device: torch.device) -> AbstractContextManager[None]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _wait(device: torch.device) -> None:
    """For this stream alone: others train beside it."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def draw(seeds: Tensor, stream: int, step: int, rows: int, columns: int) -> Tensor:
    """u's of the random stream, float32 (seeds, rows, columns): the operator ``draw``."""
    drawn = seeds.new_empty((len(seeds), rows, columns), dtype=torch.float32)
    if drawn.numel():
        grid = (len(seeds), -(-rows // _DRAW_ROWS))
        with _on(seeds.device):
            draw_kernel[grid](
                seeds, drawn, stream, step, rows, columns, BLOCK=_DRAW_ROWS, num_warps=1
            )
    return drawn
