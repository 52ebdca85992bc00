"""What the trainer's kernel is compiled for: the layers of a stack, and where a run keeps what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

# As csrc/training.h numbers them.
KINDS = ("nac", "nac_log_space", "nalu", "linear", "relu", "relu6")
OPTIMIZERS = ("sgd", "rmsprop", "adam")
LOSSES = ("mse", "l1")
SOURCES = ("arithmetic", "given", "table")
OPERATIONS = ("add", "subtract", "multiply", "divide", "square", "root")

_ROWS = {torch.float32: 128, torch.float64: 64}  # of a batch or a test at a time: more would spill
_FEW_INPUTS = 16  # of a first layer whose batches are kept, not drawn again for the backward
_TILE = 4  # outputs at a time: more would spill
_ELEMENTS = 128  # parameters at a time
_WARP = 32


class Unit(NamedTuple):
    """A layer. ``linear`` and ``log_space`` are the paths that it has; ``at``: where its parameters
    begin among the run's, ``mul``: where W_hat_mul does.

    The rest are places in the run's scratch, -1 where the layer has none. A matrix of values is
    (features, rows). ``W``, and ``W_mul`` of the log-space path, are transformed weights, each
    followed by its two factors; ``x`` the inputs and ``logs`` their logarithms; ``a``, ``m`` and
    ``g`` what the backward needs; ``y`` the outputs and ``y_logs`` what is ``logs`` of the next
    layer, taken with its ``y_eps``; ``dy`` and ``dx`` gradients.
    """

    kind: str
    I: int  # noqa: E741
    O: int  # noqa: E741
    gates: int
    bias: bool
    untied: bool
    eps: float
    linear: bool
    log_space: bool
    streamed: bool
    tile: int
    at: int
    mul: int
    W: int
    W_mul: int
    x: int
    logs: int
    a: int
    m: int
    g: int
    y: int
    y_logs: int
    y_eps: float
    dy: int
    dx: int


class TrainForm(NamedTuple):
    """A kind of training. ``streamed``: the first layer's inputs are drawn, or read where they lie,
    in each pass; else they are kept in scratch, from ``x`` on. ``target``: of an arithmetic task,
    kept there for a block of rows; ``grads``: of the parameters. ``scratch``: numbers a run."""

    units: tuple[Unit, ...]
    depth: int
    I: int  # noqa: E741
    O: int  # noqa: E741
    parameters: int
    elements: int
    batch: int
    rows: int
    optimizer: str
    loss: str
    stop_when_solved: bool
    source: str
    operation: str
    subset: int
    normal: bool
    two_parts: bool
    streamed: bool
    x: int
    logs: int
    eps: float
    target: int
    grads: int
    scratch: int


class _Room:
    """Hands out places, in numbers."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, count: int) -> int:
        place = self.used
        self.used += -(-count // 64) * 64
        return place


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def parameters(kind: int, I: int, O: int, gates: int, bias: int, untied: int) -> int:  # noqa: E741
    """How many a layer of a program has."""
    if KINDS[kind] in ("relu", "relu6"):
        return 0
    if KINDS[kind] == "linear":
        return I * O + O * bias
    return (2 + 2 * untied) * I * O + gates * I + gates * bias


def form(
    program: Sequence[Sequence[int]],
    eps: Sequence[float],
    settings: Sequence[int],
    constants: Sequence[float],
    dtype: torch.dtype,
) -> TrainForm:
    """Of the operator's arguments of these names."""
    batch, _, _, optimizer, loss, stop, source, operation, distribution, subset = settings[:10]
    rows = min(_ROWS[dtype], max(_WARP, _power_of_two(batch)))
    units, room, at = _units(program, eps, rows)
    first, last = units[0], units[-1]
    return TrainForm(
        units=units,
        depth=len(units),
        I=first.I,
        O=last.O,
        parameters=at,
        elements=min(_ELEMENTS, max(_WARP, _power_of_two(at))),
        batch=batch,
        rows=rows,
        optimizer=OPTIMIZERS[optimizer],
        loss=LOSSES[loss],
        stop_when_solved=bool(stop),
        source=SOURCES[source],
        operation=OPERATIONS[operation],
        subset=subset,
        normal=bool(distribution),
        two_parts=tuple(constants[:2]) != tuple(constants[2:4]),
        streamed=first.streamed,
        x=first.x,
        logs=first.logs if first.log_space else -1,
        eps=first.eps,
        target=room.take(rows),
        grads=room.take(at),
        scratch=room.used,
    )


def _units(
    program: Sequence[Sequence[int]], eps: Sequence[float], rows: int
) -> tuple[tuple[Unit, ...], _Room, int]:
    room, at, made = _Room(), 0, list[dict[str, Any]]()
    widest = max(row[2] for row in program)
    passed = [room.take(widest * rows) for _ in range(2)]  # gradients of the layers' outputs
    for number, ((kind_number, I, O, gates, bias, untied, *_), own_eps) in enumerate(  # noqa: E741
        zip(program, eps, strict=True)
    ):
        kind = KINDS[kind_number]
        weighted, log_space = kind_number < 3, kind in ("nac_log_space", "nalu")
        tile = min(_TILE, _power_of_two(O))
        streamed = number == 0 and I > _FEW_INPUTS and O <= tile and kind_number < 4
        W = room.take(3 * I * O) if weighted else -1
        x = made[-1]["y"] if made else -1 if streamed else room.take(I * rows)
        logs = room.take(I * rows) if log_space and not streamed else -1
        if made:
            made[-1].update(y_logs=logs, y_eps=own_eps)
        unit = {
            "kind": kind,
            "I": I,
            "O": O,
            "gates": gates,
            "bias": bool(bias),
            "untied": bool(untied),
            "eps": own_eps,
            "linear": kind in ("nac", "nalu", "linear"),
            "log_space": log_space,
            "streamed": streamed,
            "tile": tile,
            "at": at,
            "mul": at + 2 * I * O + gates * I + gates * bias,
            "W": W,
            "W_mul": room.take(3 * I * O) if untied else W,
            "x": x,
            "logs": logs,
            "y": room.take(O * rows),
            "y_logs": -1,
            "y_eps": 0.0,
            "dy": passed[number % 2],
            "dx": passed[(number + 1) % 2] if made else -1,
        }
        unit.update({name: room.take(O * rows) if kind == "nalu" else -1 for name in "am"})
        unit["g"] = room.take(gates * rows) if kind == "nalu" else -1
        made.append(unit)
        at += parameters(kind_number, I, O, gates, bias, untied)
    return tuple(Unit(**unit) for unit in made), room, at
