"""Recurrent cells: all steps of a sequence in one call against a loop of single calls.

    python -m benchmarks.recurrence                     the sizes for which a speed is needed
    python -m benchmarks.recurrence --cells NAUCell --sizes 64x10x10x1000
    python -m benchmarks.recurrence --compile           also torch.compile of the plain step
    python -m benchmarks.recurrence --results benchmarks/results/recurrence.json    the pages'

A size is batch x input x hidden x steps. Each contender does a forward over all steps and its
backward to the parameters and the input. "loop" calls the cell for each step, "plain" the formulas
as their users write them, with the weights transformed once; "rnn" is torch.nn.RNN of the same
size, which computes something else. Memory is what a forward and its backward add to the process at
most.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nalu_kernels import INALUCell, NACCell, NALUCell, NAUCell, NMUCell, RealNPUCell

from . import command, machine, markdown, memory
from .contenders import Empty
from .family import inalu, nau, nmu, real_npu
from .timing import interleave, ratio

Sizes = tuple[int, int, int, int]  # batch, input, hidden, steps
Results = dict[str, Any]
Call = Callable[[], Sequence[Tensor]]
CELLS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (NACCell, NALUCell, NAUCell, NMUCell, INALUCell, RealNPUCell)
}
# How many times faster than the loop of single calls unroll has to be, for NACCell and NALUCell.
NEEDED: dict[Sizes, float] = {
    (64, 10, 10, 10): 6.0,
    (64, 10, 10, 1000): 15.0,
    (128, 1, 2, 1000): 40.0,
    (32, 32, 32, 100): 3.0,
    (256, 128, 128, 100): 1.0,
}
MEMORY_SIZES: Sizes = (64, 10, 10, 1000)
# Numbers of a row's step that a forward and its backward multiply by weights: once, and twice.
_PASSES = 3


_FORMULAS: dict[str, Callable[..., Tensor]] = {
    "NAUCell": nau,
    "NMUCell": nmu,
    "INALUCell": inalu,
    "RealNPUCell": real_npu,
}


def _weight(W_hat: Tensor, M_hat: Tensor) -> Tensor:
    return torch.tanh(W_hat) * torch.sigmoid(M_hat)


def _prepared(name: str, parameters: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """A step of the plain formulas on [x, h], what depends on the weights alone computed before."""
    if name == "NACCell":
        W = _weight(*parameters)
        return lambda columns: linear(columns, W)
    if name == "NALUCell":
        V, G = _weight(*parameters[:2]), parameters[2]

        def nalu(columns: Tensor) -> Tensor:
            gate = torch.sigmoid(linear(columns, G))
            product = torch.exp(linear(torch.log(columns.abs() + 1e-7), V))
            return gate * linear(columns, V) + (1 - gate) * product

        return nalu
    formula = _FORMULAS[name]
    return lambda columns: formula(columns, *parameters)


def _stepped(step: Callable[[Tensor, Tensor], Tensor], x: Tensor, hidden: int) -> Tensor:
    h, states = x.new_zeros(x.shape[1], hidden), []
    for row in x.unbind(0):
        h = step(row, h)
        states.append(h)
    return torch.stack(states)


def calls(name: str, sizes: Sizes, compiled: bool, device: str = "cpu") -> dict[str, Call]:
    """A forward over all steps and its backward, by each contender; each returns the gradients."""
    batch, features, hidden, steps = sizes
    torch.manual_seed(0)
    cell = CELLS[name](features, hidden, device=device)
    rnn = nn.RNN(features, hidden, bias=False, device=device)
    x = torch.rand(steps, batch, features, device=device, requires_grad=True)
    dy = torch.randn(steps, batch, hidden, device=device)
    parameters = list(cell.parameters())

    def passes(function: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Call:
        def call() -> Sequence[Tensor]:
            return torch.autograd.grad(function(), leaves, dy)

        return call

    def plain() -> Tensor:
        prepared = _prepared(name, parameters)
        return _stepped(lambda row, h: prepared(torch.cat((row, h), dim=-1)), x, hidden)

    # A loop of 1,000 steps as one graph takes the compiler minutes: it is given a step.
    step = torch.compile(
        lambda row, h, *weights: _prepared(name, weights)(torch.cat((row, h), dim=-1))
    )

    own = [x, *parameters]
    found = {
        "unroll": passes(lambda: cell.unroll(x), own),
        "loop": passes(lambda: _stepped(cell, x, hidden), own),
        "plain": passes(plain, own),
        "rnn": passes(lambda: rnn(x)[0], [x, *rnn.parameters()]),
        "empty": passes(
            lambda: Empty.apply(hidden, x.reshape(-1, features), *parameters).view_as(dy), own
        ),
    }
    if compiled:
        found["compiled"] = passes(
            lambda: _stepped(lambda row, h: step(row, h, *parameters), x, hidden), own
        )
    return found


def _products(name: str, sizes: Sizes) -> float:
    """Seconds that the matrix products alone take at the rate of torch's BLAS on these threads."""
    batch, features, hidden, steps = sizes
    A, B = torch.randn(512, 512), torch.randn(512, 512)
    samples = interleave({"product": lambda: A @ B}, budget_s=0.2)
    rate = 512**3 / min(samples["product"])
    paths = {"NALUCell": 3, "INALUCell": 3, "RealNPUCell": 2}.get(name, 1)
    return _PASSES * paths * batch * steps * (features + hidden) * hidden / rate


def measure(name: str, sizes: Sizes, seconds: float, compiled: bool) -> Results:
    samples = interleave(calls(name, sizes, compiled), budget_s=seconds, min_rounds=5)
    others = [other for other in samples if other not in ("unroll", "empty")]
    return {
        "cell": name,
        "sizes": list(sizes),
        "us": {which: round(1e6 * statistics.median(of), 1) for which, of in samples.items()},
        "floor_us": round(1e6 * (statistics.median(samples["empty"]) + _products(name, sizes)), 1),
        "ratios": {other: round(ratio(samples, other, "unroll"), 3) for other in others},
        "needed": NEEDED.get(sizes) if name in ("NACCell", "NALUCell") else None,
    }


def _peak(name: str, which: str) -> int:
    """Bytes that a forward and its backward add to the process at most."""
    small = calls(name, (1, *MEMORY_SIZES[1:3], 2), False)[which]
    small()
    call = calls(name, MEMORY_SIZES, False)[which]
    return memory.peak(call)


def peaks(name: str) -> dict[str, int]:
    """Each in a process of its own."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {which: pool.apply(_peak, (name, which)) for which in ("unroll", "loop")}


def _rows(results: Results) -> list[list[str]]:
    shown = [
        name for name in ("loop", "plain", "compiled", "rnn") if name in results["rows"][0]["us"]
    ]
    head = ["cell", "batch×input→hidden, steps", "unroll, ms", "floor, ms"]
    rows = [[*head, *(f"{name} ÷" for name in shown), "needed"]]
    for row in results["rows"]:
        batch, features, hidden, steps = row["sizes"]
        rows.append(
            [
                row["cell"],
                f"{batch}×{features}→{hidden}, {steps:,}",
                f"{row['us']['unroll'] / 1e3:,.2f}",
                f"{row['floor_us'] / 1e3:,.2f}",
                *(f"{row['ratios'][name]:.1f}" for name in shown),
                f"{row['needed']:g}" if row["needed"] else "–",
            ]
        )
    return rows


def _missed(results: Results) -> str:
    missed = [
        f"{row['cell']} {_rows({'rows': [row]})[1][1]} {row['ratios']['loop']:.1f}"
        for row in results["rows"]
        if row["needed"] and row["ratios"]["loop"] < row["needed"]
    ]
    slower = [
        f"{row['cell']} {_rows({'rows': [row]})[1][1]} {row['ratios']['rnn']:.2f}"
        for row in results["rows"]
        if row["needed"] and row["ratios"]["rnn"] < 1
    ]
    said = (
        f"Below what is needed: {'; '.join(missed)}." if missed else "Nowhere below what is needed."
    )
    return f"{said} Slower than nn.RNN: {'; '.join(slower)}." if slower else said


def _memory(results: Results) -> str:
    batch, features, hidden, steps = MEMORY_SIZES
    found = ", ".join(
        f"{name} {peaks['unroll'] / 2**20:.1f} of {peaks['loop'] / 2**20:.1f} MiB "
        f"({peaks['unroll'] / max(1, peaks['loop']):.0%})"
        for name, peaks in results["peak_bytes"].items()
    )
    return (
        f"Peak memory at {batch}×{features}→{hidden}, {steps:,} steps, unroll of the loop: {found}."
    )


def text(results: Results) -> str:
    said = [markdown.align(_rows(results), left=2), _missed(results)]
    return "\n".join([*said, *([_memory(results)] if "peak_bytes" in results else [])])


def section(results: Results) -> str:
    """For docs/speed.md."""
    used = results["machine"]
    return "\n\n".join(
        [
            "A forward over all steps and its backward, in float32; a cell's `unroll` against a "
            "loop of its single calls, the formulas written plainly in a loop, and torch.nn.RNN of "
            "the same size. ÷: how many times longer these take, medians of the rounds' ratios; "
            f"{machine.ran_on(used)}. The floor is an empty autograd call and the matrix products "
            "at the rate of torch's BLAS.",
            markdown.table(_rows(results), left=2),
            f"{_missed(results)} {_memory(results)}",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = command.parser("recurrence", __doc__, "a cell and size", "writes them there")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=["NACCell", "NALUCell"])
    parser.add_argument("--sizes", nargs="+", type=_sizes, default=list(NEEDED))
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile of the plain step too"
    )
    given = parser.parse_args(arguments)
    results: Results = {**command.begin(given.threads), "rows": []}
    for name in given.cells:
        for sizes in given.sizes:
            results["rows"].append(measure(name, sizes, given.seconds, given.compile))
            print(_rows({"rows": results["rows"][-1:]})[1], flush=True)
    if memory.is_known():
        results["peak_bytes"] = {name: peaks(name) for name in given.cells}
    command.finish(results, text, given.results)


def _sizes(text: str) -> Sizes:
    batch, features, hidden, steps = map(int, text.split("x"))
    return batch, features, hidden, steps


if __name__ == "__main__":
    main()
