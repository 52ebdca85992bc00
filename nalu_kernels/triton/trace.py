"""What a layer launches, on a chip that need not be here: for the tools that compile and count."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import launch, launch_power, launch_reduction, launch_unroll, train_plan
from . import train as trainer
from .arguments import describe
from .device import Chip
from .forms import Weights
from .recipe import Recipe
from .train_step import train_kernel

_EPS = 1e-7


class Launch(NamedTuple):
    """``kernel[grid](*args, **options)``."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    options: dict[str, Any]


class Sample(NamedTuple):
    """A layer and its batch; ``gates`` is 0, 1 or O. A bias without gates is that of a gate for
    each output that sees no input. ``units``: so many of them side by side; 0: one alone."""

    B: int
    I: int  # noqa: E741
    O: int  # noqa: E741
    dtype: torch.dtype = torch.float32
    linear: bool = True
    log_space: bool = True
    gates: int = 0
    bias: bool = False
    untied: bool = False
    units: int = 0
    device: torch.device = torch.device("meta")  # tensors with a shape and no memory

    def empty(self, *shape: int) -> Tensor:
        units = (self.units,) if self.units else ()
        return torch.empty((*units, *shape), dtype=self.dtype, device=self.device)

    def saved(self, size: int) -> Tensor:
        """Numbers that a forward keeps: ``size`` for each unit."""
        compute = torch.float64 if self.dtype == torch.float64 else torch.float32
        return self.empty(size).to(compute)

    def tensors(self) -> list[Tensor | None]:
        """x and the weights."""
        matrices = [self.empty(self.O, self.I) for _ in range(4)]
        weights = Weights(*matrices[:2])
        if self.gates:
            weights = weights._replace(G=self.empty(self.gates, self.I))
        if self.bias:
            weights = weights._replace(gate_bias=self.empty(self.gates or self.O))
        if self.untied:
            weights = weights._replace(W_hat_mul=matrices[2], M_hat_mul=matrices[3])
        return [self.empty(self.B, self.I), *weights]

    def call(self, chip: Chip, tensors: list[Tensor | None]) -> tuple[Any, ...]:
        described = tuple(map(describe, tensors))
        units = bool(self.units)
        return chip, _EPS, self.linear, self.log_space, described, "nalu", 0.0, units


def forward_recipe(
    sample: Sample, chip: Chip, *, save: bool, setting: str = "highest"
) -> tuple[Recipe, list[Tensor | None]]:
    """The recipe of a forward, and the tensors that it is given."""
    tensors = sample.tensors()
    save = save and sample.gates > 0
    return launch.forward(setting, save, *sample.call(chip, tensors)), tensors


def backward_recipe(
    sample: Sample, chip: Chip, *, needed: int = -1, setting: str = "highest"
) -> tuple[Recipe, list[Tensor | None]]:
    tensors = sample.tensors()
    call = sample.call(chip, tensors)
    dy, saved = sample.empty(sample.B, sample.O), None
    if sample.gates:
        saved = sample.saved(sample.B * (2 * sample.O + sample.gates))
    elif sample.log_space:
        saved = sample.empty(sample.B, sample.O)
    recipe = launch.backward(setting, needed, describe(dy), describe(saved), *call)
    return recipe, [*tensors, dy, saved]


def forward(sample: Sample, chip: Chip, *, save: bool, setting: str = "highest") -> list[Launch]:
    """The launches of a forward; with ``save`` it keeps what the backward needs.

    ``setting``: as of torch.get_float32_matmul_precision.
    """
    return _launches(*forward_recipe(sample, chip, save=save, setting=setting))


def backward(
    sample: Sample, chip: Chip, *, needed: int = -1, setting: str = "highest"
) -> list[Launch]:
    """The launches of a backward; bit i of ``needed``: whether tensor i wants a gradient."""
    return _launches(*backward_recipe(sample, chip, needed=needed, setting=setting))


def reduction(layer: str, sample: Sample, chip: Chip) -> list[Launch]:
    """The launches of a product over the inputs and of all its gradients."""
    B, I, O = sample.B, sample.I, sample.O  # noqa: E741
    x, y = sample.empty(B, I), sample.empty(B, O)
    W = sample.empty(O, 2 * I if layer == "nmru" else I)
    call = (chip, layer, _EPS, (describe(x), describe(W)), bool(sample.units))
    saved = sample.saved(launch_reduction.Reduction(*call).saved_size)
    forward = launch_reduction.forward(True, *call)
    backward = launch_reduction.backward(-1, describe(y), describe(saved), *call)
    return _launches(forward, [x, W]) + _launches(backward, [x, W, y, saved])


def power(sample: Sample, chip: Chip) -> list[Launch]:
    """The launches of an NPU and of all its gradients."""
    B, I, O = sample.B, sample.I, sample.O  # noqa: E741
    shapes = ((B, I), (O, I), (I,), (O, I))
    tensors: list[Tensor | None] = [sample.empty(*shape) for shape in shapes]
    call = (chip, _EPS, tuple(map(describe, tensors)), bool(sample.units))
    y, saved = sample.empty(B, O), sample.saved(launch_power.Power(*call).saved_size)
    backward = launch_power.backward(-1, False, describe(y), describe(saved), *call)
    forward = launch_power.forward(True, *call)
    return _launches(forward, tensors) + _launches(backward, [*tensors, y, saved])


def _cell(sample: Sample, layer: str) -> tuple[list[Tensor | None], tuple[Any, ...]]:
    """The weights of a cell's layer, and what it takes of ``launch_unroll.Unroll``."""
    W = sample.empty(sample.O, sample.I)
    if layer == "nmu":
        return [W], ()
    if layer == "npu":
        return [W, sample.empty(sample.I), None], (_EPS, True)
    _, W_hat, M_hat, *others = sample.tensors()
    omega = (20.0,) if layer.startswith("inalu") else ()
    of_layer = (_EPS, sample.linear, sample.log_space, *omega)
    return [W_hat, None if layer == "nau" else M_hat, *others], of_layer


def unroll(
    sample: Sample, T: int, chip: Chip, *, layer: str = "nalu", last_only: bool = False
) -> list[Launch]:
    """The launches of a cell over T steps, ragged and with resets, and of all its gradients. The
    sample's I counts x and h, its O is h."""
    T_B = (T, sample.B)
    x = sample.empty(*T_B, sample.I - sample.O)
    hx, all_states = sample.empty(sample.B, sample.O), sample.empty(*T_B, sample.O)
    lengths = torch.empty(sample.B, dtype=torch.int64, device=sample.device)
    reset = torch.empty(T_B, dtype=torch.bool, device=sample.device)
    weights, of_layer = _cell(sample, layer)
    tensors = [x, *weights, hx, lengths, reset]
    call = (chip, layer, of_layer, last_only, tuple(map(describe, tensors)))
    dy, states = all_states, all_states
    if last_only:
        dy, states = hx, sample.empty(launch_unroll.Unroll(*call).kept)
    forward = launch_unroll.forward(True, *call)
    backward = launch_unroll.backward(-1, True, describe(dy), describe(states), *call)
    return _launches(forward, tensors) + _launches(backward, [*tensors, dy, states])


def train(
    program: tuple[tuple[int, ...], ...], dtype: torch.dtype, chip: Chip, optimizer: str
) -> Launch:
    """The launch of a training: an arithmetic task, batches of 128."""
    runs, first = 2, program[0]
    size = sum(train_plan.parameters(*row) for row in program)

    def empty(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=of, device="meta")

    number = train_plan.OPTIMIZERS.index(optimizer)
    settings = [128, 1000, 100, number, 0, 0, 0, 2, 0, max(1, first[1] // 4), 0, 1000]
    tests = empty(1000, first[1])
    call = trainer.call(
        torch.tensor(program),
        torch.full((len(program), 3), _EPS, dtype=torch.float64),
        torch.tensor(settings),
        torch.tensor([1.0, 2.0, 1.0, 2.0, 0.0, 0.0], dtype=torch.float64),
        empty(runs, of=torch.int64),
        empty(runs, 2, of=torch.int64),
        empty(runs, 23, of=torch.float64),
        *(empty(0), empty(0), tests, empty(0), tests, empty(0)),
        *(empty(runs, size), empty(runs, 2, size), empty(runs, size)),
        empty(runs, 2, of=torch.int64),
        empty(runs, 6, of=torch.float64),
        empty(runs, 10, 4, of=torch.float64),
    )
    options = {"FORM": call.form, **trainer.options(chip.family, dtype)}
    return Launch(train_kernel, (runs,), (call.trainings, 1), options)


def _launches(recipe: Recipe, tensors: list[Tensor | None]) -> list[Launch]:
    given: list[Any] = list(tensors)
    for place, prepare in recipe.prepare:
        given[place] = prepare(given[place])
    given += recipe.allocate(given)
    return [
        Launch(step.kernel, step.grid, step.bound(given), step.options) for step in recipe.steps
    ]
