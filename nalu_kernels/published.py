"""The settings that the papers train these layers with: a row for each layer and task.

``SETTINGS`` has them; :func:`settings` and :func:`setting` find a layer's. Each row is what its
source's code does where that and the paper's text differ, and ``notes`` says where they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from .layers import Ramp, Stairs

Weight = float | Ramp | Stairs

_MADSEN = "Madsen and Johansen 2020, arXiv 2001.05016; AndreasMadsen/stable-nalu"
_PRIMER = "Mistry, Farrahi and Hare 2022, arXiv 2101.09530; bmistry4/nalm-benchmark"
_DIVISION = "Mistry, Farrahi and Hare 2022, arXiv 2110.05177; bmistry4/nalm-division"
_ROBUST = "Mistry, Farrahi and Hare 2022, arXiv 2211.05624; bmistry4/nalm-robust-nmu"
_HEIM = "Heim, Pevný and Šmídl 2020, arXiv 2006.01681; nmheim/NeuralPowerUnits"
_SCHLÖR = "Schlör, Ring and Hotho 2020, arXiv 2003.07629; daschloer/inalu"


class Setting(NamedTuple):
    """How a paper trains a layer on a task.

    Attributes:
        layer: its name here, or those of a stack, from the input on.
        task: what it learns.
        optimizer: its name in ``torch.optim``, with torch's defaults but for the rate, and for what
            ``also`` has.
        lr: the rate.
        batch: samples a step.
        steps: of the optimizer; None where the notes have epochs.
        regularizer: the weight of each term in the loss, a number or a schedule: "regularizer" is
            that of :func:`nalu_kernels.regularizer` and so is "l1", "inputs" is that of
            :class:`nalu_kernels.input_regularizer`.
        notes: what else belongs to it.
        source: the paper, and the repository that was read.
        also: more columns of a sweep's table, by name.

    The bounds within which weights are put after each step are the layer's: ``layer.clamp_()``.
    """

    layer: str
    task: str
    optimizer: str
    lr: float
    batch: int
    steps: int | None
    regularizer: Mapping[str, Weight]
    notes: str
    source: str
    also: Mapping[str, float] = MappingProxyType({})

    def columns(self) -> dict[str, float]:
        """Rate, terms and ``also`` as columns of :func:`nalu_kernels.sweep.run`'s table. What the
        notes say comes on top.

        Raises:
            ValueError: a term, or its schedule, that a sweep has no columns for.
        """
        columns = {"lr": self.lr}
        for term, weight in self.regularizer.items():
            if term == "l1" and isinstance(weight, Stairs) and weight.factor == 10:
                columns |= {"l1": weight.first, "l1_last": weight.last, "l1_every": weight.every}
            elif term == "regularizer" and isinstance(weight, Ramp):
                columns |= {"regularizer": weight.scale, "ramp_start": weight.start}
                columns["ramp_stop"] = weight.stop
            elif term in ("regularizer", "l1") and isinstance(weight, (int, float)):
                columns[term] = weight
            else:
                raise ValueError(
                    "regularizer: expected of a sweep 'regularizer' with a number or a Ramp, or "
                    f"'l1' with a number or Stairs of factor 10, got {term!r} with {weight}"
                )
        return {**columns, **self.also}


def _sparse(start: int, stop: int, scale: float) -> dict[str, Weight]:
    return {"regularizer": Ramp(start, stop, scale)}


def _modified(start: int, stop: int) -> dict[str, Weight]:
    return {"l1": Stairs(1e-9, 1e-7), **_sparse(start, stop, 1.0)}


_SINGLE = "one layer, 2 inputs"
_TEN = "one layer, 2 of 10 inputs"
_SUMS, _PRODUCT = "100 inputs, two sums, their", "100 inputs, two sums, their product"
_POWERS = 'gate_gradient="clamped", eps=2⁻²³'
# The term counts from epoch 11 of 100 on; a training begins anew at the 10,000th step at the
# earliest, with the test that follows it, and so at most 9 times.
_BY_TURNS = {
    "clip_value": 0.1, "weight_steps": 8, "gate_steps": 2,
    "restart_above": 1.0, "restart_after": 9_999,
    "saturation": 0.05, "saturation_start": 10_999, "saturation_below": 1.0,
}  # fmt: skip
_SATURATED = {
    "ramp_start": 10_000, "ramp_stop": 10_000, "regularizer_below": 1.0, "clip_value": 0.1,
}  # fmt: skip

SETTINGS: tuple[Setting, ...] = (
    Setting("NAC", f"a ± b, {_SINGLE}", "Adam", 1e-3, 128, 50_000, {}, "", _PRIMER),
    Setting("NAC", f"a · b, a / b, {_SINGLE}", "Adam", 1e-3, 128, 50_000, {},
            "log_space=True", _PRIMER),
    Setting("NAC, NAC", f"{_SUMS} sum, difference or product", "Adam", 1e-3, 128, 5_000_000, {},
            "the product: log_space=True in the second", _MADSEN),
    Setting("NALU", f"a ± b, a · b, a / b, {_SINGLE}", "Adam", 1e-3, 128, 50_000, {}, "", _PRIMER),
    Setting("NALU, NALU", f"{_SUMS} sum, difference or product", "Adam", 1e-3, 128, 5_000_000, {},
            "", _MADSEN),
    Setting("GNALU", f"a ± b, a · b, a / b, {_SINGLE}", "Adam", 1e-3, 128, 50_000, {}, "", _PRIMER),
    Setting("NAU", f"a ± b, {_SINGLE}", "Adam", 1e-3, 128, 50_000,
            _sparse(20_000, 35_000, 0.01), "", _PRIMER),
    Setting("NAU", "a ± b, one layer, 2 of 10 or 100 inputs", "Adam", 1e-3, 128, 100_000,
            _sparse(50_000, 75_000, 0.01), "", _PRIMER),
    Setting("NAU, NAU", f"{_SUMS} sum or difference", "Adam", 1e-3, 128, 5_000_000,
            _sparse(5_000, 50_000, 0.01), "", _MADSEN),
    Setting("NMU", f"a · b, {_SINGLE}", "Adam", 1e-3, 128, 50_000,
            _sparse(20_000, 35_000, 10.0), "", _PRIMER),
    Setting("NAU, NMU", _PRODUCT, "Adam", 1e-3, 128, 5_000_000,
            _sparse(1_000_000, 2_000_000, 10.0), "one weight for both layers", _MADSEN),
    Setting("NAC, NACSigma", _PRODUCT, "Adam", 1e-3, 128, 5_000_000, {}, "", _MADSEN),
    Setting("NAU, NACNMU", _PRODUCT, "Adam", 1e-3, 128, 5_000_000,
            _sparse(1_000_000, 2_000_000, 10.0), "one weight for both layers", _MADSEN),
    Setting("NAUCell", "the sum of 10 images of digits", "Adam", 1e-3, 64, None,
            {**_sparse(10_000, 100_000, 10.0), "inputs": 1.0},
            "1,001 epochs; the cell is given what a small convolutional network makes of an image",
            _MADSEN),
    Setting("NMUCell", "the product of 2 images of digits, from a state of 1", "Adam", 1e-3, 64,
            None, {**_sparse(10_000, 100_000, 10.0), "inputs": 1.0}, "as for the sum", _MADSEN),
    Setting("SNMU", f"a · b, {_SINGLE}", "Adam", 1e-3, 128, 50_000,
            _sparse(20_000, 35_000, 10.0), "noise=(1, 5)", _ROBUST),
    Setting("SNMU", "the product of two digits in an image", "Adam", 1e-3, 128, 704_704,
            _sparse(21_120, 28_160, 100.0),
            "noise=(1, 5) or 'batch'; 1,001 epochs of 704 steps, the term's weight changes with "
            "the epoch; the layer is given what a convolutional network makes of the image",
            _ROBUST),
    Setting("NAU, SNMU", _PRODUCT, "Adam", 1e-3, 128, 2_000_000,
            _sparse(1_000_000, 2_000_000, 10.0),
            "noise=(1, 5) or 'batch'; one weight for both layers", _ROBUST),
    Setting("INALU", "a ± b, a · b, a / b, 64,000 samples of 2 inputs", "Adam", 1e-3, 64,
            100_000, {},
            "the code has RMSProp at 0.01, which does not lead to the published numbers; where the "
            "loss stays above 1 in epochs 10, 20, ..., all parameters are redrawn on (-2, 2)",
            _SCHLÖR, _BY_TURNS),
    Setting("INALU", f"a ± b, a · b, a / b, {_SINGLE}", "Adam", 1e-3, 128, 50_000,
            {"regularizer": 0.05},
            "means of 0.88, 0.5 and 0 with 0.2 to begin with; all parameters are redrawn as at "
            "first where the error stays above 1", _PRIMER, _SATURATED),
    Setting("INALU", f"a + b, {_TEN}", "Adam", 1e-3, 128, 50_000, {"regularizer": 0.05},
            "as for 2 inputs", _PRIMER, _SATURATED),
    Setting("NPU", f"a · b, {_SINGLE}", "Adam", 5e-3, 128, 50_000, {"l1": Stairs(1e-7, 1e-5)},
            _POWERS, _PRIMER),
    Setting("NPU", f"a / b, {_SINGLE}", "Adam", 5e-3, 128, 50_000, {"l1": Stairs(1e-9, 1e-7)},
            _POWERS, _PRIMER),
    Setting("NAU, NPU", f"{_SUMS} sum", "RMSprop", 1e-2, 128, 100_000, {"l1": Stairs(1e-5, 1e-4)},
            "weights begin uniform on (0, 0.1), gates with 1; L1 of both layers; Sobol samples",
            _HEIM),
    Setting("NAU, NPU", _PRODUCT, "RMSprop", 5e-3, 128, 100_000, {"l1": Stairs(1e-5, 1e-4)},
            "as for the sum; the paper's table has 1e-7 for the last L1 weight", _HEIM),
    Setting("NAU, NPU", "100 inputs, a sum's reciprocal", "RMSprop", 5e-3, 128, 100_000,
            {"l1": Stairs(1e-9, 1e-7)}, "as for the sum", _HEIM),
    Setting("NAU, NPU", "100 inputs, a sum's square root", "RMSprop", 5e-3, 128, 100_000,
            {"l1": Stairs(1e-6, 1e-4)}, "as for the sum", _HEIM),
    Setting("RealNPU", f"a · b, {_SINGLE}", "Adam", 5e-3, 128, 50_000, {"l1": Stairs(1e-7, 1e-5)},
            _POWERS, _PRIMER),
    Setting("RealNPU", f"a / b, {_SINGLE}", "Adam", 5e-3, 128, 50_000, {"l1": Stairs(1e-9, 1e-7)},
            _POWERS, _DIVISION),
    Setting("RealNPU", f"a / b, {_SINGLE}", "Adam", 5e-3, 128, 50_000, _modified(40_000, 50_000),
            f"modified=True, {_POWERS}", _DIVISION),
    Setting("RealNPU", f"a / b, {_TEN}", "Adam", 5e-3, 128, 100_000, {"l1": Stairs(1e-9, 1e-7)},
            _POWERS, _DIVISION),
    Setting("RealNPU", f"a / b, {_TEN}", "Adam", 5e-3, 128, 100_000, _modified(50_000, 75_000),
            f"modified=True, {_POWERS}", _DIVISION),
    Setting("NRU", f"a / b, {_SINGLE}", "Adam", 1.0, 128, 50_000,
            _sparse(20_000, 35_000, 10.0), "", _DIVISION),
    Setting("NRU", f"a / b, {_TEN}", "Adam", 1e-3, 128, 100_000,
            _sparse(50_000, 75_000, 10.0), "", _DIVISION),
    Setting("NMRU", f"a / b, {_SINGLE}", "Adam", 1e-2, 128, 50_000,
            _sparse(20_000, 35_000, 10.0), "", _DIVISION, {"clip_norm": 1.0}),
    Setting("NMRU", f"a / b, {_TEN}", "Adam", 1e-2, 128, 100_000,
            _sparse(50_000, 75_000, 10.0), "", _DIVISION, {"clip_norm": 1.0}),
)  # fmt: skip


def settings(stack: str, *words: str) -> tuple[Setting, ...]:
    """The rows of exactly this layer or stack whose task and notes have all the words.

    Args:
        stack: a layer's name, or those of a stack from the input on: "NMU", "NAU, NMU".
        words: such as "2 inputs" or "modified".

    Raises:
        TypeError: an argument is no str.
        ValueError: there is none.
    """
    for name in (stack, *words):
        if not isinstance(name, str):
            raise TypeError(f"stack, words: expected str, got {type(name).__name__}")
    names = _names(stack)
    of_stack = [row for row in SETTINGS if _names(row.layer) == names]
    if not of_stack:
        known = ", ".join(dict.fromkeys(repr(row.layer) for row in SETTINGS))
        raise ValueError(f"stack: expected one of {known}, got {stack!r}")
    found = [row for row in of_stack if all(word in _about(row) for word in words)]
    if not found:
        known = ", ".join(map(repr, map(_about, of_stack)))
        raise ValueError(
            f"words: no setting of {stack!r} has {' and '.join(map(repr, words))}, those that "
            f"there are have {known}"
        )
    return tuple(found)


def setting(stack: str, *words: str) -> Setting:
    """The first of :func:`settings`.

    Raises:
        TypeError, ValueError: as of :func:`settings`.
    """
    return settings(stack, *words)[0]


def _about(row: Setting) -> str:
    return f"{row.task}; {row.notes}" if row.notes else row.task


def _names(stack: str) -> list[str]:
    return [name.strip() for name in stack.split(",")]


def table() -> str:
    """All rows as a table of Markdown."""
    head = ("layers", "task", "optimizer", "batch", "steps", "terms", "also", "notes", "source")
    rows = [
        (
            f"`{row.layer}`",
            row.task,
            f"{row.optimizer} {row.lr:g}",
            str(row.batch),
            f"{row.steps:,}" if row.steps else "",
            ", ".join(f"{term} {_in_words(weight)}" for term, weight in row.regularizer.items()),
            ", ".join(f"{name} {_in_words(value)}" for name, value in row.also.items()),
            row.notes,
            row.source,
        )
        for row in SETTINGS
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _in_words(weight: Weight) -> str:
    if isinstance(weight, Ramp):
        return f"0 to {weight.scale:g} over {weight.start:,} to {weight.stop:,}"
    if isinstance(weight, Stairs):
        return (
            f"{weight.first:g} to {weight.last:g}, times {weight.factor:g} every {weight.every:,}"
        )
    return f"{weight:,}" if isinstance(weight, int) else f"{weight:g}"
