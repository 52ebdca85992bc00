"""One module, two numbers: how often it finds the operation, from nine ranges of them.

Source: Mistry, Farrahi and Hare 2022, "A Primer for Neural Arithmetic Logic Modules" (JMLR 23), the
single module arithmetic task, with the ranges and settings of the authors' code. One layer of 2
inputs and 1 output learns a + b, a - b, a * b or a / b in 50,000 steps and is tested on a range
further out; benchmark.py has the rest, published.py the rates and regularisers. As there, each
layer is trained on the operations that it is made for.

The threshold is the revision's: the error of a solution whose weights are off by 1e-4, that is
1e-4 (|a| + |b|) for sums and differences, the factor (1 - 1e-4)^2 for products and (1 - 1e-4) /
(1 + 1e-4) for quotients. The first version had a mean squared error of 1e-5 throughout; its rates
are the last row of each table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from nalu_kernels import GNALU, INALU, NAC, NALU, NAU, NMU, NPU, RealNPU, sweep
from nalu_kernels.published import setting

from . import benchmark
from .benchmark import TASKS, normal_start
from .experiment import Outcome, Scale, Trial
from .ranges import ALL, RANGES, SEEDS, OverRanges, on_every_range
from .training import generator

CELLS = (
    ("NAC", "a + b"),
    ("NAC", "a - b"),
    ("NAC log", "a * b"),
    ("NAC log", "a / b"),
    *(("NALU", task) for task in TASKS),
    ("NAU", "a + b"),
    ("NAU", "a - b"),
    ("NMU", "a * b"),
    ("RealNPU", "a * b"),
    ("RealNPU", "a / b"),
    ("NPU", "a * b"),
    ("NPU", "a / b"),
    *(("GNALU", task) for task in TASKS),
    *(("INALU", task) for task in TASKS),
)
POWERS: dict[str, Any] = {"gate_gradient": "clamped", "eps": 2.0**-23}  # as the authors' code
_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "NAC": lambda: NAC(2, 1),
    "NAC log": lambda: NAC(2, 1, log_space=True),
    "NALU": lambda: NALU(2, 1),
    "NAU": lambda: NAU(2, 1),
    "NMU": lambda: NMU(2, 1),
    "RealNPU": lambda: RealNPU(2, 1, **POWERS),
    "NPU": lambda: NPU(2, 1, **POWERS),
    "GNALU": lambda: GNALU(2, 1),
    "INALU": lambda: INALU(2, 1),
}
_IN_PUBLISHED = {"a + b": "a ± b", "a - b": "a ± b", "a * b": "a · b", "a / b": "a / b"}
_MEANS, _STD = {"W": 0.88, "M": 0.5, "g": 0.0}, 0.2


class Single(OverRanges):
    name = "single"
    title = "how often one module finds the operation on two numbers, for nine ranges"
    source = "Mistry, Farrahi and Hare 2022, the single module arithmetic task"
    differs = (
        "Other random numbers; for quotients none below 2^-24 in size, as the trainer's have 24 "
        "bits, and 0 itself would come up on [-2, 2]. 50,000 updates, not 50,001, and the tests "
        "come after an update, not before. The authors' INALU begins anew where its error stays "
        "above 1, ours never. A seed begins with the same weights on every range, so that the "
        "interval over all ranges is too narrow. The paper's own figures are pictures without "
        "numbers; the authors' note on another layer has those of an NAU's sums and an NMU's "
        "products."
    )
    small = full = Scale(seeds=SEEDS, steps=50_000)
    models = tuple(_LAYERS)
    cells = CELLS
    pairs = on_every_range(CELLS)
    success = "weights_1e-4"
    published: ClassVar[dict[tuple[str, str], dict[str, int]]] = {
        ("NAU", "a + b"): {ALL: 225, **dict.fromkeys(RANGES, 25)},
        ("NMU", "a * b"): {
            ALL: 212,
            **dict.fromkeys(RANGES, 25),
            "[-2, -1]": 20,
            "[-1.2, -1.1]": 17,
        },
    }
    published_by = (
        "Mistry, note on MC-FC (nalm-benchmark, notes/MCFC_findings.pdf), figures 1 and 2"
    )

    def network(self, model: str, operation: str) -> nn.Module:
        return _LAYERS[model]()

    def arithmetic(self, operation: str) -> sweep.Arithmetic:
        return sweep.Arithmetic(operation, in_features=2, samples=benchmark.SAMPLES)

    def training(self, model: str, operation: str) -> dict[str, Any]:
        layer = model.removesuffix(" log")
        return setting(layer, _IN_PUBLISHED[operation], "one layer, 2 inputs").columns()

    def initial(self, trials: Sequence[Trial]) -> dict[str, Tensor] | None:
        if trials[0].model != "INALU":
            return None
        sources = [generator(self.name, "initial", trial.seed) for trial in trials]
        return normal_start(INALU(2, 1, device="meta"), sources, _MEANS, _STD)

    def claims(self, outcome: Outcome) -> list[str]:
        return [*super().claims(outcome), self.speed_claim(outcome)]


EXPERIMENT = Single()
