"""Independent layers side by side in one call against the ways that there are without.

    python -m benchmarks.units                    the shapes for which a speed is needed
    python -m benchmarks.units --grid             and the shapes of the grid
    python -m benchmarks.units --units 8 --layers NALU NMU
    python -m benchmarks.units --grid --results benchmarks/results/units.json    the pages'

A forward with a loss's gradient of the output, and its backward to the parameters. "separate"
calls the layers one after the other, "vmap" is torch.func.vmap of the plain formulas on stacked
parameters, "bmm" the same formulas with batched products, "rows" one layer on all units' rows:
about the least that the work can take.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nalu_kernels import NALU, NAU, NMU

from . import command, machine, markdown
from .cases import GRID, shape_name
from .family import nau, nmu
from .timing import interleave, ratio

Sizes = tuple[int, int, int]  # rows, inputs, outputs
Results = dict[str, Any]
Call = Callable[[], Sequence[Tensor]]
# How many times faster than the separate layers, and than vmap, 64 NALUs have to be.
NEEDED: dict[Sizes, tuple[float, float]] = {(64, 2, 1): (25.0, 3.0), (128, 100, 2): (8.0, 6.0)}
_MOST_NUMBERS = 2**26  # of a shape's inputs and weights together
LAYERS: dict[str, type[Any]] = {"NALU": NALU, "NAU": NAU, "NMU": NMU}


def nalu(x: Tensor, W_hat: Tensor, M_hat: Tensor, G: Tensor) -> Tensor:
    W = torch.tanh(W_hat) * torch.sigmoid(M_hat)
    g = torch.sigmoid(x @ G.mT)
    return g * (x @ W.mT) + (1 - g) * torch.exp(torch.log(x.abs() + 1e-7) @ W.mT)


def _nau(x: Tensor, W: Tensor) -> Tensor:
    return x @ W.clamp(-1, 1).mT


def _nmu(x: Tensor, W: Tensor) -> Tensor:
    W = W.unsqueeze(-3)
    return (W * x.unsqueeze(-2) + 1 - W).prod(-1)


ONE: dict[str, Callable[..., Tensor]] = {"NALU": nalu, "NAU": nau, "NMU": nmu}
BATCHED: dict[str, Callable[..., Tensor]] = {"NALU": nalu, "NAU": _nau, "NMU": _nmu}


def calls(name: str, sizes: Sizes, units: int, device: str = "cpu") -> dict[str, Call]:
    B, I, O = sizes  # noqa: E741
    torch.manual_seed(0)
    kind = LAYERS[name]
    layers = [kind(I, O, device=device) for _ in range(units)]
    whole = kind.stack(layers)
    x, dy = (torch.rand(units, B, of, device=device) for of in (I, O))
    stacked = [parameter.detach().clone().requires_grad_() for parameter in whole.parameters()]
    mapped = torch.func.vmap(ONE[name])

    def passes(function: Callable[[], Tensor], of: nn.Module | list[Tensor]) -> Call:
        leaves = list(of.parameters()) if isinstance(of, nn.Module) else of

        def call() -> Sequence[Tensor]:
            return torch.autograd.grad(function(), leaves, dy)

        return call

    def separate() -> Sequence[Tensor]:
        return [
            grad
            for layer, own, of in zip(layers, x, dy, strict=True)
            for grad in torch.autograd.grad(layer(own), list(layer.parameters()), of)
        ]

    return {
        "units": passes(lambda: whole(x), whole),
        "separate": separate,
        "vmap": passes(lambda: mapped(x, *stacked), stacked),
        "bmm": passes(lambda: BATCHED[name](x, *stacked), stacked),
        "rows": passes(lambda: layers[0](x), layers[0]),
    }


def shapes(name: str, units: int, grid: bool) -> list[Sizes]:
    found = list(NEEDED)
    for sizes in GRID if grid else ():
        factors = math.prod(sizes) if name == "NMU" else 0
        numbers = units * (sizes[0] * (sizes[1] + sizes[2]) + sizes[1] * sizes[2] + factors)
        if sizes not in NEEDED and numbers <= _MOST_NUMBERS:
            found.append(sizes)
    return found


def measure(name: str, sizes: Sizes, units: int, seconds: float) -> Results:
    samples = interleave(calls(name, sizes, units), budget_s=seconds)
    return {
        "layer": name,
        "sizes": list(sizes),
        "us": {which: round(1e6 * statistics.median(of), 1) for which, of in samples.items()},
        "ratios": {
            which: round(ratio(samples, which, "units"), 3) for which in samples if which != "units"
        },
    }


def _rows(results: Results, chosen: Callable[[Results], bool]) -> list[list[str]]:
    others = ("separate", "vmap", "bmm", "rows")
    table = [["layer", "B×I→O", "units, µs", *(f"{which} ÷" for which in others)]]
    for row in filter(chosen, results["rows"]):
        table.append(
            [
                row["layer"],
                shape_name(tuple(row["sizes"])),
                f"{row['us']['units']:,.0f}",
                *(f"{row['ratios'][which]:.2f}" for which in others),
            ]
        )
    return table


def _named(row: Results) -> bool:
    return tuple(row["sizes"]) in NEEDED


def _missed(results: Results) -> str:
    missed = []
    for row in results["rows"]:
        needed = dict(zip(("separate", "vmap"), NEEDED.get(tuple(row["sizes"]), ()), strict=False))
        for which in ("separate", "vmap", "bmm"):
            least = needed.get(which, 1 / 1.05) if row["layer"] == "NALU" else 1 / 1.05
            if row["ratios"][which] < least:
                shape = shape_name(tuple(row["sizes"]))
                missed.append(f"{row['layer']} {shape} {which} {row['ratios'][which]:.2f}")
    said = f"Below what is needed: {'; '.join(missed)}." if missed else "Nowhere too slow."
    return (
        f"{said} Needed of NALU: "
        + "; ".join(
            f"{shape_name(sizes)} separate {one:g}, vmap {other:g}"
            for sizes, (one, other) in NEEDED.items()
        )
        + "; else 0.95."
    )


def text(results: Results) -> str:
    return "\n".join([markdown.align(_rows(results, lambda row: True), left=2), _missed(results)])


def section(results: Results) -> str:
    """For docs/speed.md."""
    used, others = results["machine"], [row for row in results["rows"] if not _named(row)]
    worst = min(
        min(row["ratios"][which] for which in ("separate", "vmap", "bmm")) for row in others
    )
    return "\n\n".join(
        [
            f"{results['units']} layers of each shape, forward and backward in float32 to the "
            "parameters. ÷: how many times longer it takes to call the layers one after the other, "
            "to map the plain formulas over stacked parameters with torch.func.vmap, to write them "
            "with batched products, and to call one layer on all rows. Medians of the rounds' "
            f"ratios; {machine.ran_on(used)}.",
            markdown.table(_rows(results, _named), left=2),
            f"Over {len(others)} more shapes the worst of these ratios, but the last, is "
            f"{worst:.2f}. {_missed(results)}",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = command.parser(
        "units", __doc__, "a shape", "writes them there; the pages' are of --grid"
    )
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), default=["NALU"])
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--grid", action="store_true", help="all shapes of the grid, too")
    given = parser.parse_args(arguments)
    results: Results = {**command.begin(given.threads), "units": given.units, "rows": []}
    for name in given.layers:
        for sizes in shapes(name, given.units, given.grid):
            results["rows"].append(measure(name, sizes, given.units, given.seconds))
            row = results["rows"][-1]
            print(f"{name} {shape_name(sizes)}: {row['ratios']}", flush=True)
    command.finish(results, text, given.results)


if __name__ == "__main__":
    main()
