"""Every kind of layer and short trainings, once each: what compute-sanitizer watches.

    python -m benchmarks.gpu.small_set --share I/N [--until TIME] [--dry-run]

Odd shapes leave no tile full. The first is one tile, the second several each way; the extension has
the products of the third made by cuBLAS. Triton, and it alone here, takes those of the last two
through tensor cores, of the second of them with weights that were transformed before: no smaller
layer is large to it. The cheap ones come first, for the tools make the others very slow.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from typing import Any, NamedTuple

import torch

from nalu_kernels import (
    INALU,
    NAC,
    NALU,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    SNMU,
    RealNPU,
    sweep,
    use_backend,
)

from ..sweep import NETWORKS, Network
from . import tensors
from .cases import HIGHEST, PRECISIONS
from .device import Device, choose
from .providers import library_backends

SMALL, SEVERAL_TILES, LONG_BATCH = (7, 31, 5), (70, 67, 45), (2049, 9, 5)
FEW_ROWS, MANY_ROWS = (300, 257, 131), (517, 131, 127)
ONLY_TRITON = (FEW_ROWS, MANY_ROWS)
NOT_RUN = "not run:"
# What tensors.precision does not know is a dtype.
DTYPES = {"float16": torch.float16, "float64": torch.float64}

# A layer's class and options.
KINDS: dict[str, tuple[type[torch.nn.Module], dict[str, Any]]] = {
    "nac": (NAC, {}),
    "log nac": (NAC, {"log_space": True}),
    **{
        f"nalu {gate}{' bias' if bias else ''} {'tied' if tied else 'untied'}": (
            NALU,
            {"gate": gate, "gate_bias": bias, "tied": tied},
        )
        for gate, bias, tied in product(("output", "sample"), (False, True), (True, False))
    },
    "nau": (NAU, {}),
    "nmu": (NMU, {}),
    "snmu": (SNMU, {}),
    **{f"inalu {gate}": (INALU, {"gate": gate}) for gate in ("independent", "matrix", "vector")},
    "inalu tied": (INALU, {"tied": True}),
    "npu": (NPU, {}),
    "real npu": (RealNPU, {}),
    "nru": (NRU, {}),
    "nmru": (NMRU, {}),
}
# Whose kernels go through a batch and its weights as those of NACs and NALUs do.
PRODUCTS = tuple(kind for kind in KINDS if KINDS[kind][0] in (NAC, NALU))
# Those that have between them every path of the kernels.
TELLING = (
    *("nac", "log nac", "nalu output tied", "nalu sample bias untied"),
    *("nmu", "inalu independent", "npu"),
)


class Call(NamedTuple):
    kind: str
    precision: str
    shape: tuple[int, int, int]


def calls(dry_run: bool) -> list[Call]:
    """All kinds in float32 at its highest, the telling ones in everything else; in a dry run, whose
    interpreter is slow, the first of these alone."""
    shapes = (SMALL,) if dry_run else (SMALL, SEVERAL_TILES, LONG_BATCH, *ONLY_TRITON)
    others = [precision for precision in (*PRECISIONS, *DTYPES) if precision != HIGHEST]
    found = []
    for shape in shapes:
        kinds = PRODUCTS if shape in ONLY_TRITON else tuple(KINDS)
        found += [Call(kind, HIGHEST, shape) for kind in kinds]
        telling = [kind for kind in TELLING if kind in kinds and shape != MANY_ROWS]
        telling = telling[:1] if dry_run else telling
        found += [Call(*one, shape) for one in product(telling, others)]
    return found


def everything(dry_run: bool) -> list[Call | Network]:
    """The calls, and behind every kind of layer's smallest the trainings."""
    found: list[Call | Network] = [*calls(dry_run)]
    found[len(KINDS) : len(KINDS)] = NETWORKS[:1] if dry_run else NETWORKS
    return found


def words(call: Call | Network) -> str:
    named = ("training", call.name) if isinstance(call, Network) else call
    return " ".join(map(str, named))


def train(network: Network, device: Device) -> None:
    """A few steps with their tests, of more runs than one."""
    of_products = {NAC, NALU}.issuperset(network.layers)
    for name in library_backends(torch.empty(0, device=device.name)):
        if name == "triton" and not of_products:  # it refuses them
            continue
        sweep.run(
            network.module(),
            sweep.Arithmetic(network.task.operation, network.features[0], samples=130),
            {"seed": [0, 1, 2]},
            steps=3,
            test_every=2,
            batch_size=130,
            backend=name,
            device=device.name,
        )


def run(call: Call | Network, device: Device) -> None:
    if isinstance(call, Network):
        train(call, device)
        return
    batch, in_features, out_features = call.shape
    known = call.precision not in DTYPES
    with tensors.precision(call.precision if known else HIGHEST) as dtype:
        dtype = DTYPES.get(call.precision, dtype)
        kind, options = KINDS[call.kind]
        layer = kind(in_features, out_features, **options).to(device.name, dtype)
        input = torch.randn(batch, in_features, dtype=dtype, device=device.name)
        for name in library_backends(input):
            if call.shape in ONLY_TRITON and name != "triton":
                continue
            with use_backend(name):
                output = layer(input.requires_grad_())
            output.backward(torch.randn_like(output))
    device.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.small_set")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--share", required=True)
    parser.add_argument(
        "--until", type=float, default=float("inf"), help="begin none after time.time() is this"
    )
    chosen = parser.parse_args()
    share, shares = map(int, chosen.share.split("/"))
    device = choose(chosen.dry_run)
    mine = everything(chosen.dry_run)[share::shares]
    for call in mine:
        if time.time() > chosen.until:
            print(NOT_RUN, words(call), flush=True)
            continue
        print(words(call), flush=True)
        run(call, device)


if __name__ == "__main__":
    main()
