"""Layers of the family against eager PyTorch: forward and backward, and the memory of both.

    python -m benchmarks.family                 the shapes for which a speed is needed
    python -m benchmarks.family --grid          and the shapes of the grid
    python -m benchmarks.family --layers NMU --threads 1
    python -m benchmarks.family --grid --results benchmarks/results/family.json      the pages'

Eager is each layer's formula written plainly, as its users have it: an NMU's factors are B×O×I
numbers. The floor beside it is an autograd.Function that computes nothing. An input that is learnt
wants a gradient too (--inner).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nalu_kernels import (
    GNALU,
    INALU,
    NACNMU,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    SNMU,
    NACSigma,
    RealNPU,
)

from . import command, machine, markdown, memory
from .cases import GRID, shape_name
from .contenders import Empty
from .timing import interleave, ratio

Sizes = tuple[int, int, int]  # B, I, O
Results = dict[str, Any]
# How many times faster than eager PyTorch a forward with its backward has to be.
NEEDED: dict[tuple[str, Sizes], float] = {
    ("NMU", (128, 100, 2)): 2.5,
    ("NMU", (1024, 64, 64)): 25.0,
    ("INALU", (128, 100, 2)): 5.0,
    ("INALU", (1024, 64, 64)): 20.0,
    ("RealNPU", (128, 100, 2)): 3.5,
    ("RealNPU", (1024, 64, 64)): 1.5,
    ("NAU", (128, 100, 2)): 1.3,
    ("NAU", (1024, 64, 64)): 1.3,
}
JUDGED = {name for name, _ in NEEDED}
NEEDED_ON_GRID = 1 / 1.05  # of these; the others are measured only
MEMORY_SHAPE = (1024, 256, 256)
LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (NMU, INALU, RealNPU, NAU, NPU, NRU, NMRU, SNMU, GNALU, NACSigma, NACNMU)
}
_HAVE_FACTORS = ("NMU", "INALU", "NRU", "NMRU", "SNMU")
_MOST_FACTORS = 2**27  # that eager may allocate: beyond, it is not timed


def nau(x: Tensor, W: Tensor) -> Tensor:
    return linear(x, W.clamp(-1, 1))


def nmu(x: Tensor, W: Tensor) -> Tensor:
    return (W * x.unsqueeze(-2) + 1 - W).prod(-1)


def snmu(x: Tensor, W: Tensor) -> Tensor:
    noise = 1 + 4 * torch.rand(x.shape)
    return nmu(x * noise, W) / nmu(noise, W)


def inalu(
    x: Tensor, W_hat: Tensor, M_hat: Tensor, g: Tensor, W_mul: Tensor, M_mul: Tensor
) -> Tensor:
    W, V = torch.tanh(W_hat) * torch.sigmoid(M_hat), torch.tanh(W_mul) * torch.sigmoid(M_mul)
    m = torch.exp(torch.clamp(linear(torch.log(x.abs().clamp(min=1e-7)), V), max=20))
    sign = (torch.sign(x).unsqueeze(-2) * V.abs() + 1 - V.abs()).prod(-1)
    gate = torch.sigmoid(g)
    return gate * linear(x, W) + (1 - gate) * m * sign


def _polar(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    gate = g.clamp(0, 1)
    size = gate * (x.abs() + torch.finfo(x.dtype).eps) + 1 - gate
    return torch.log(size), torch.pi * gate * (x < 0)


def real_npu(x: Tensor, W_re: Tensor, g: Tensor) -> Tensor:
    log, angle = _polar(x, g)
    return torch.exp(linear(log, W_re)) * torch.cos(linear(angle, W_re))


def npu(x: Tensor, W_re: Tensor, g: Tensor, W_im: Tensor) -> Tensor:
    log, angle = _polar(x, g)
    size = torch.exp(linear(log, W_re) - linear(angle, W_im))
    return size * torch.cos(linear(angle, W_re) + linear(log, W_im))


def nru(x: Tensor, W: Tensor) -> Tensor:
    part = torch.tanh(1000 * W) ** 2
    power = torch.sign(x).unsqueeze(-2) * x.abs().unsqueeze(-2) ** W
    return (part * power + 1 - part).prod(-1)


def nmru(x: Tensor, W: Tensor) -> Tensor:
    X = torch.cat((x, 1 / (x + 2**-23)), -1)
    product = (W * X.abs().unsqueeze(-2) + 1 - W).prod(-1)
    return product * torch.cos(linear(torch.pi * (X < 0).to(x.dtype), W))


def gnalu(x: Tensor, W_hat: Tensor, M_hat: Tensor, G: Tensor) -> Tensor:
    c = math.log((1 + math.sqrt(5)) / 2)
    W = torch.tanh(c * W_hat) * torch.sigmoid(c * M_hat)
    gate = torch.sigmoid(c * linear(x, G))
    return gate * linear(x, W) + (1 - gate) * nac_nmu(x, W)


def nac_nmu(x: Tensor, W: Tensor) -> Tensor:
    return torch.exp(linear(torch.log(x.abs() + 1e-7), W))


def nac_sigma(x: Tensor, W_hat: Tensor) -> Tensor:
    return nac_nmu(x, torch.sigmoid(W_hat))


EAGER: dict[str, Callable[..., Tensor]] = {
    "NMU": nmu,
    "INALU": inalu,
    "RealNPU": real_npu,
    "NAU": nau,
    "NPU": npu,
    "NRU": nru,
    "NMRU": nmru,
    "SNMU": snmu,
    "GNALU": gnalu,
    "NACSigma": nac_sigma,
    "NACNMU": nac_nmu,
}


def calls(name: str, sizes: Sizes, inner: bool) -> dict[str, Callable[[], Sequence[Tensor]]]:
    """A forward in training and its backward, by the library, by eager PyTorch, and by a call of
    nothing. Each returns what has a gradient then."""
    B, I, O = sizes  # noqa: E741
    torch.manual_seed(0)
    layer = LAYERS[name](I, O)
    x, dy = torch.randn(B, I, requires_grad=inner), torch.randn(B, O)
    parameters = list(layer.parameters())

    leaves = [x, *parameters] if inner else parameters

    def passes(function: Callable[[], Tensor]) -> Callable[[], Sequence[Tensor]]:
        def call() -> Sequence[Tensor]:
            for leaf in leaves:
                leaf.grad = None
            function().backward(dy)
            return leaves

        return call

    return {
        "ours": passes(lambda: layer(x)),
        "eager": passes(lambda: EAGER[name](x, *parameters)),
        "empty": passes(lambda: Empty.apply(O, x, *parameters)),
    }


def cases(names: list[str], grid: bool) -> Iterator[tuple[str, Sizes]]:
    for name in names:
        yield from (case for case in NEEDED if case[0] == name)
        for sizes in GRID if grid else ():
            if name not in _HAVE_FACTORS or math.prod(sizes) <= _MOST_FACTORS:
                yield name, sizes


def _peak(name: str, which: str, sizes: Sizes) -> int:
    """Bytes that a forward and its backward add to the process at most."""
    call = calls(name, (1, *sizes[1:]), False)[which]
    call()
    return memory.peak(calls(name, sizes, False)[which])


def peaks(name: str, sizes: Sizes) -> dict[str, int]:
    """Each in a process of its own."""
    found = {}
    for which in ("ours", "eager"):
        with get_context("spawn").Pool(1) as pool:
            found[which] = pool.apply(_peak, (name, which, sizes))
    return found


def measure(names: list[str], grid: bool, inner: bool, seconds: float) -> Results:
    rows = []
    for name, sizes in cases(names, grid):
        samples = interleave(calls(name, sizes, inner), budget_s=seconds)
        rows.append(
            {
                "layer": name,
                "sizes": list(sizes),
                "median_us": {
                    who: round(1e6 * statistics.median(times), 2) for who, times in samples.items()
                },
                "times_faster": round(ratio(samples, "eager", "ours"), 3),
            }
        )
        print(f"{name} {shape_name(sizes)}: {rows[-1]['times_faster']} times faster", flush=True)
    results: Results = {"rows": rows}
    if "NMU" in names and memory.is_known():
        results["peak_bytes"] = peaks("NMU", MEMORY_SHAPE)
    return results


def _named(row: dict[str, Any]) -> bool:
    return (row["layer"], tuple(row["sizes"])) in NEEDED


def _needed(row: dict[str, Any]) -> float:
    """0 where nothing is."""
    on_grid = NEEDED_ON_GRID if row["layer"] in JUDGED else 0
    return NEEDED.get((row["layer"], tuple(row["sizes"])), on_grid)


def _rows(results: Results, chosen: Callable[[dict[str, Any]], bool]) -> list[list[str]]:
    head = ["layer", "B×I→O", "nalu_kernels, µs", "eager, µs", "empty, µs", "times faster"]
    table = [[*head, "needed"]]
    for row in filter(chosen, results["rows"]):
        figures = [f"{row['median_us'][who]:,.0f}" for who in ("ours", "eager", "empty")]
        verdict = [f"{row['times_faster']:.2f}", f"{_needed(row):.2f}" if _needed(row) else "–"]
        table.append([row["layer"], shape_name(tuple(row["sizes"])), *figures, *verdict])
    return table


def _missed(results: Results) -> str:
    missed = [row for row in results["rows"] if row["times_faster"] < _needed(row)]
    named = ", ".join(
        f"{row['layer']} {shape_name(tuple(row['sizes']))} {row['times_faster']:.2f}"
        for row in missed
    )
    said = f"Below what is needed: {named}." if missed else "Nowhere below what is needed."
    return f"{said} That is asked of {', '.join(sorted(JUDGED))}: {NEEDED_ON_GRID:.2f} on the grid."


def _memory(results: Results) -> str:
    found = results["peak_bytes"]
    return (
        f"Peak memory of an NMU {shape_name(MEMORY_SHAPE)}: {found['ours'] / 2**20:.1f} MiB, eager "
        f"{found['eager'] / 2**20:.0f} MiB: {found['ours'] / max(1, found['eager']):.1%}."
    )


def text(results: Results) -> str:
    said = [markdown.align(_rows(results, lambda row: True), left=2), _missed(results)]
    return "\n".join([*said, *([_memory(results)] if "peak_bytes" in results else [])])


def section(results: Results) -> str:
    """For docs/speed.md."""
    used = results["machine"]
    others = [row for row in results["rows"] if not _named(row)]
    faster = [row["times_faster"] for row in others]
    return "\n\n".join(
        [
            "Forward and backward in float32, with the gradients of the weights, against each "
            "layer's formula written plainly in PyTorch. Medians; the contenders of a row take "
            f'turns, on {machine.ran_on(used)}{machine.busy(used)}. "Empty" is an '
            "autograd.Function that computes nothing.",
            markdown.table(_rows(results, _named), left=2),
            f"Over {len(others)} more, of 1 to 1024 rows and of 1→1 to 1024→1024, it is "
            f"{statistics.median(faster):.1f} times faster in the median and {min(faster):.2f} at "
            f"worst. {_missed(results)} {_memory(results)}",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = command.parser(
        "family", __doc__, "a shape", "writes them there; the pages' are of --grid"
    )
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--grid", action="store_true", help="all shapes of the grid, too")
    parser.add_argument("--inner", action="store_true", help="the input wants a gradient")
    given = parser.parse_args(arguments)
    results = command.begin(given.threads)
    results |= measure(given.layers, given.grid, given.inner, given.seconds)
    command.finish(results, text, given.results)


if __name__ == "__main__":
    main()
