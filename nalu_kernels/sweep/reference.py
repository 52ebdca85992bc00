"""Trains runs one at a time in plain PyTorch: the definition of truth, on any device.

Modules of this library with their plain formulas, autograd, torch.optim and the data of the stream.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks import check_noise
from ..dispatch import use_backend
from ..functional.snmu import low_and_width, spread
from ..layers import SNMU, Stairs, regularizer
from ..layers.base import Layer
from ..layers.inalu import saturation
from ..reference import nmu, snmu
from . import stream
from .runs import HYPER
from .specification import Specification
from .stack import OF_GATES
from .state import (
    BEGUN,
    BEST_INSIDE,
    BEST_STEP,
    DIVERGED,
    FIRST_BELOW,
    OUT_OF_STEPS,
    OUTSIDE_AT_BEST,
    RUNNING,
    SECONDS,
    SOLVED,
    State,
)
from .tasks import Arithmetic, Data

_BLOCK = 64  # steps whose batches are drawn at once
_LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss}
# Of torch.optim's states: the names of what State.moments holds.
_MOMENTS: dict[str, tuple[str, str | None]] = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "rmsprop": ("momentum_buffer", "square_avg"),
    "sgd": ("momentum_buffer", None),
}


def advance(
    specification: Specification,
    state: State,
    budget: Callable[[], float],
    device: torch.device,
) -> Iterator[Tensor]:
    """Trains the unfinished runs, and yields the numbers of those that got on, time and again.

    What it has yielded is in ``state``; the caller may leave at any of these times.

    Args:
        budget: how many seconds it may take until it yields again.
        device: where it computes; the state stays on the CPU.
    """
    changed: list[int] = []
    until = time.perf_counter() + budget()
    for number in state.unfinished().tolist():
        run = _Run(specification, state, number, device)
        changed.append(number)
        while not run.train(until):
            yield torch.tensor(changed)
            changed, until = [number], time.perf_counter() + budget()
    if changed:
        yield torch.tensor(changed)


class _Run:
    """One run; what it has reached is in the state's row whenever :meth:`train` returns."""

    def __init__(
        self, specification: Specification, state: State, number: int, device: torch.device
    ) -> None:
        self.specification, self.number, self.device = specification, number, device
        self.row = State(**{name: tensor[number] for name, tensor in state.tensors().items()})
        self.module = specification.stack.module(self.row.parameters.to(device))
        self.hyper = dict(zip(HYPER, specification.columns.hyper[number].tolist(), strict=True))
        self.threshold = float(specification.thresholds[number])
        self.steps = int(self.row.progress[0])
        self.layers = [layer for layer in self.module.modules() if isinstance(layer, Layer)]
        noisy = (layer for layer in self.layers if isinstance(layer, SNMU))
        for place, layer in enumerate(noisy):
            layer.forward = functools.partial(self._noisy, layer, place)  # type: ignore[method-assign]
        self.optimizer = self._optimizer()
        self.loss = _LOSSES[specification.loss]
        self.inside, self.outside = (self._test(outside) for outside in (False, True))

    def train(self, until: float) -> bool:
        """Goes on until that time, at least a step; whether the run has finished."""
        started = time.perf_counter()
        status = RUNNING
        with use_backend("reference"):
            for x, y in self._batches():
                self._step(x, y)
                every, last = self.specification.test_every, self.specification.steps
                if self.steps % every == 0 or self.steps == last:
                    status = self._judge()
                now = time.perf_counter()
                if status != RUNNING or now >= until:
                    break
        self._save()
        self.row.progress[:] = torch.tensor([self.steps, status])
        self.row.scores[SECONDS] += now - started
        return status != RUNNING

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(self.steps, self.specification.steps, _BLOCK):
            stop = min(start + _BLOCK, self.specification.steps)
            x, y = batches(self.specification, self.number, torch.arange(start, stop))
            yield from zip(x.to(self.device), y.to(self.device), strict=True)

    def _step(self, x: Tensor, y: Tensor) -> None:
        self.module.zero_grad()
        found = self.module(x)
        (self.loss(found, y) + self._terms()).backward()
        for parameter in self._resting():
            parameter.grad = None
        self._update()
        for layer in self.layers:
            layer.clamp_()
        if self.hyper["saturation"] or math.isfinite(self.hyper["restart_above"]):
            self._follow(float(self.loss(found.detach().double(), y.double())))
        self.steps += 1

    def _follow(self, loss: float) -> None:
        """What depends on the loss of the step's batch."""
        if self.hyper["saturation"] and self.steps > self.hyper["saturation_start"]:
            self._saturate(loss)
        if math.isfinite(self.hyper["restart_above"]):
            place, before = divmod(self.steps, self.specification.test_every)
            kept = self.row.curves[place, 2:]
            sums = torch.tensor([loss, loss * loss], dtype=torch.float64)
            kept.copy_(kept + sums if before else sums)

    def _saturate(self, loss: float) -> None:
        """After a step with that loss, one on the saturation alone.

        Source: the code of Schlör, Ring and Hotho 2020, "iNALU".
        """
        if loss < self.hyper["saturation_below"]:
            self.module.zero_grad()
            (self.hyper["saturation"] * saturation(self.module.parameters())).backward()
            self._update()

    def _update(self) -> None:
        """A step of the optimizer, with gradients clipped. Those that rest count it too, as of one
        optimizer in TensorFlow, which counts for all."""
        self._clip()
        for parameter in self.module.parameters():
            state = self.optimizer.state[parameter]
            for name in self._names():
                if name is not None:
                    state.setdefault(name, torch.zeros_like(parameter))
            state["step"] = torch.tensor(float(self.steps))
        self.optimizer.step()

    def _clip(self) -> None:
        if math.isfinite(self.hyper["clip_value"]):
            value = self.hyper["clip_value"]
            nn.utils.clip_grad_value_(self.module.parameters(), value, foreach=False)
        if math.isfinite(self.hyper["clip_norm"]):
            norm = self.hyper["clip_norm"]
            nn.utils.clip_grad_norm_(self.module.parameters(), norm, foreach=False)

    def _terms(self) -> Tensor:
        """What is added to the loss."""
        hyper = self.hyper
        total = torch.zeros((), dtype=self.specification.dtype, device=self.device)
        weight = hyper["regularizer"] * self._ramp() if hyper["regularizer"] else 0.0
        if weight:
            total = total + weight * regularizer(self.module)
        if hyper["l1"]:
            stairs = Stairs(hyper["l1"], hyper["l1_last"], int(hyper["l1_every"]))
            size = torch.stack([parameter.abs().sum() for parameter in self.module.parameters()])
            total = total + stairs(self.steps) * size.sum()
        return total

    def _ramp(self) -> float:
        """The share of the regularizer that counts in this step."""
        start, stop = self.hyper["ramp_start"], self.hyper["ramp_stop"]
        if not self.steps > start:
            return 0.0
        tested = self.steps // self.specification.test_every
        inside = float(self.row.curves[tested - 1, 0]) if tested else math.nan
        if math.isfinite(self.hyper["regularizer_below"]) and not (
            inside < self.hyper["regularizer_below"]
        ):
            return 0.0
        return (self.steps - start) / (stop - start) if self.steps < stop else 1.0

    def _test(self, outside: bool) -> tuple[Tensor, Tensor]:
        x = self.specification.test_inputs(self.number, outside=outside)
        y = self.specification.test_targets(self.number, x, outside=outside)
        return x.to(self.device), y.to(self.device)

    @torch.no_grad()
    def _judge(self) -> int:
        """Tests, records, and returns the status."""
        self.module.eval()
        inside, outside = (
            float((self.module(x) - y).double().square().mean())
            for x, y in (self.inside, self.outside)
        )
        self.module.train()
        scores = self.row.scores
        place = (self.steps - 1) // self.specification.test_every
        self.row.curves[place, :2] = torch.tensor([inside, outside], dtype=torch.float64)
        best = math.isfinite(inside) and not inside >= float(scores[BEST_INSIDE])
        if best:
            scores[BEST_INSIDE], scores[OUTSIDE_AT_BEST] = inside, outside
            scores[BEST_STEP] = self.steps
            self.row.best.copy_(self._flat())
        below = outside < self.threshold
        if below and math.isnan(float(scores[FIRST_BELOW])):
            scores[FIRST_BELOW] = self.steps
        if bool(self._flat().isnan().any()):
            return DIVERGED
        if best and below and self.specification.stop == "solved":
            return SOLVED
        if self.steps < self.specification.steps:
            if self._is_stuck():
                self._begin_anew()
            return RUNNING
        return SOLVED if float(scores[OUTSIDE_AT_BEST]) < self.threshold else OUT_OF_STEPS

    def _flat(self) -> Tensor:
        return nn.utils.parameters_to_vector(self.module.parameters()).detach()

    def _noisy(self, layer: SNMU, place: int, input: Tensor) -> Tensor:
        """What an SNMU computes, with the noise of its place among the stack's SNMUs."""
        if not layer.training:
            return nmu(input, layer.W)
        seed = int(self.specification.columns.seeds[self.number])
        u = stream.drawn(seed, stream.NOISE + place, self.steps, *input.shape).to(input)
        noise = spread(low_and_width(check_noise(layer.noise), u.dtype), u, input)
        return snmu(input, layer.W, noise)

    def _resting(self) -> list[nn.Parameter]:
        """The parameters that this step leaves as they are."""
        for_weights, for_gates = int(self.hyper["weight_steps"]), int(self.hyper["gate_steps"])
        if not for_weights + for_gates:
            return []
        of_weights = self.steps % (for_weights + for_gates) < for_weights
        return [
            parameter
            for name, parameter in self.module.named_parameters()
            if (name.rpartition(".")[2] in OF_GATES) == of_weights
        ]

    def _optimizer(self) -> torch.optim.Optimizer:
        """torch's, in the state that the row has."""
        chosen = self.hyper
        lr, decay, momentum = chosen["lr"], chosen["weight_decay"], chosen["momentum"]
        parameters = self.module.parameters()
        optimizer: torch.optim.Optimizer
        if self.specification.optimizer == "adam":
            optimizer = torch.optim.Adam(
                parameters,
                lr=lr,
                betas=(chosen["beta1"], chosen["beta2"]),
                eps=chosen["eps"],
                weight_decay=decay,
                foreach=False,
            )
        elif self.specification.optimizer == "rmsprop":
            optimizer = torch.optim.RMSprop(
                parameters,
                lr=lr,
                alpha=chosen["beta2"],
                eps=chosen["eps"],
                weight_decay=decay,
                momentum=momentum,
                foreach=False,
            )
        else:
            optimizer = torch.optim.SGD(
                parameters, lr=lr, momentum=momentum, weight_decay=decay, foreach=False
            )
        if self.steps:
            self._restore(optimizer)
        return optimizer

    def _names(self) -> list[str | None]:
        first, second = _MOMENTS[self.specification.optimizer]
        if first == "momentum_buffer" and not self.hyper["momentum"]:
            return [None, second]
        return [first, second]

    def _restore(self, optimizer: torch.optim.Optimizer) -> None:
        for moments, name in zip(self.row.moments, self._names(), strict=True):
            if name is not None:
                values = self.specification.stack.state(moments.to(self.device)).values()
                for parameter, value in zip(self.module.parameters(), values, strict=True):
                    optimizer.state[parameter][name] = value.clone()

    def _save(self) -> None:
        self.row.parameters.copy_(self._flat())
        state = self.optimizer.state
        for moments, name in zip(self.row.moments, self._names(), strict=True):
            if name is not None:
                held = [
                    state.get(parameter, {}).get(name, torch.zeros_like(parameter)).flatten()
                    for parameter in self.module.parameters()
                ]
                moments.copy_(torch.cat(held))

    def _is_stuck(self) -> bool:
        """Whether the losses since the last beginning do not fall any more, and are large.

        Source: Schlör, Ring and Hotho 2020, "iNALU", section 3.3, and the authors' code.
        """
        begun, every = float(self.row.scores[BEGUN]), self.specification.test_every
        start = 0 if math.isnan(begun) else int(begun)
        above, after = self.hyper["restart_above"], self.hyper["restart_after"]
        if math.isinf(above) or not self.steps - start > after:
            return False
        means = self.row.curves[start // every : self.steps // every, 2:] / every
        first, second = means[: len(means) // 2, 0], means[len(means) // 2 :]
        mean, square = map(float, second.mean(0))
        variance = square - mean * mean
        deviation = math.sqrt(variance) if variance > 0 else 0.0  # also of NaN
        return float(first.mean()) <= mean + deviation and mean > above

    def _begin_anew(self) -> None:
        """Draws all parameters; the moments stay."""
        seed = int(self.specification.columns.seeds[self.number])
        drawn = stream.restarted(
            seed, self.steps, self.specification.stack.size, self.specification.dtype
        )
        nn.utils.vector_to_parameters(drawn.to(self.device), self.module.parameters())
        self.row.scores[BEGUN] = self.steps


def batches(specification: Specification, number: int, steps: Tensor) -> tuple[Tensor, Tensor]:
    """The training batches of run ``number`` at these steps.

    Returns:
        x (len(steps), batch_size, in_features) and y (len(steps), batch_size, out_features).
    """
    task, batch = specification.task, specification.batch_size
    seed = int(specification.columns.seeds[number])
    if isinstance(task, Data):
        samples = steps.unsqueeze(1) * batch + torch.arange(batch)
        chosen = stream.shuffled(seed, samples, len(task.x))
        return task.x.to(specification.dtype)[chosen], task.y.to(specification.dtype)[chosen]
    range = specification.training_range(number)
    x = task.batches(range, seed, steps, batch, specification.dtype)
    if isinstance(task, Arithmetic):
        start_a, start_b = specification.starts(torch.tensor([number]))[0].tolist()
        return x, task.targets(x, (start_a, start_b))
    return x, task.answers(x)
