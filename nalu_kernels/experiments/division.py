"""One module that divides: two of 2 or of 10 numbers, from nine ranges of them.

Source: Mistry, Farrahi and Hare 2022, "Exploring the Learning Mechanisms of Neural Division
Modules" (TMLR), the single module task, with the ranges and settings of the authors' code. One
layer of 1 output learns a / b, where a and b are two neighbours among its inputs that the seed
chooses. Of 2 inputs it has 50,000 steps, of 10 twice as many, and has succeeded if its mean squared
error outside is below 1e-5; benchmark.py has the rest, published.py the rates and regularisers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn

from nalu_kernels import NMRU, NRU, RealNPU, sweep
from nalu_kernels.published import setting
from nalu_kernels.sweep.success import FLAT

from . import benchmark
from .experiment import Scale, Settings, Trial
from .ranges import ALL, SEEDS, OverRanges, on_every_range
from .single import POWERS

INPUTS = {"2 inputs": 2, "10 inputs": 10}
_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "RealNPU": lambda inputs: RealNPU(inputs, 1, **POWERS),
    "RealNPU modified": lambda inputs: RealNPU(inputs, 1, modified=True, **POWERS),
    "NRU": lambda inputs: NRU(inputs, 1),
    "NMRU": lambda inputs: NMRU(inputs, 1),
}
CELLS = tuple((model, task) for task in INPUTS for model in _LAYERS)


class Division(OverRanges):
    name = "division"
    title = "how often one module learns to divide two of its inputs, for nine ranges"
    source = "Mistry, Farrahi and Hare 2022, neural division modules, the single module task"
    differs = (
        "Other random numbers; none below 2^-24 in size, as the trainer's have 24 bits, and 0 "
        "itself would come up on [-2, 2]. 50,000 updates of 2 inputs and 100,000 of 10, not one "
        "more, and the tests come after an update, not before. A seed begins with the same "
        "weights on every range, so that the interval over all ranges is too narrow. Rates for "
        "each range are pictures without numbers, so those of the abstract alone stand beside "
        "ours; the RealNPU's is the modified one's less the difference that is printed there."
    )
    small = full = Scale(seeds=SEEDS, steps=50_000)
    models, tasks = tuple(_LAYERS), tuple(INPUTS)
    cells = CELLS
    pairs = on_every_range(CELLS)
    success = FLAT
    published: ClassVar[dict[tuple[str, str], dict[str, int]]] = {
        ("RealNPU", "10 inputs"): {ALL: 158},
        ("RealNPU modified", "10 inputs"): {ALL: 192},
        ("NMRU", "10 inputs"): {ALL: 206},
    }
    published_by = "Mistry, Farrahi and Hare 2022, abstract"

    def network(self, model: str, operation: str) -> nn.Module:
        return _LAYERS[model](INPUTS[operation])

    def arithmetic(self, operation: str) -> sweep.Arithmetic:
        return sweep.Arithmetic(
            "a / b",
            INPUTS[operation],
            subset=1 / INPUTS[operation],
            overlap=0.0,
            samples=benchmark.SAMPLES,
        )

    def training(self, model: str, operation: str) -> dict[str, Any]:
        layer, _, kind = model.partition(" ")
        return setting(layer, "a / b", operation, kind).columns()

    def steps(self, trial: Trial, settings: Settings) -> int:
        operation, _ = self.operation_and_range(trial.task)
        return settings.steps * (2 if INPUTS[operation] > 2 else 1)


EXPERIMENT = Division()
