"""Whatever a caller may pass: hypothesis draws layers of any shape, layout, dtype and number, and
calls with wrong arguments.

The first must obey the rule of parity.py, write to nothing that they were given, and read nothing
beside it, which is NaN. Where the rule cannot judge, because an infinity or a NaN hangs on the
rounding of a last bit, the call has at least to return. The second must be refused by an exception.

``make fuzz`` draws 10,000 layers; NALU_KERNELS_FUZZ_EXAMPLES any number.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import hypothesis
import torch
from hypothesis import HealthCheck, strategies
from torch import Tensor

import nalu_kernels
from conftest import SEED, Backend
from layers import FULLEST, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import dispatch
from nalu_kernels.execute import _REFUSALS
from parity import Judge, threads
from selection import only
from test_layouts import LAYOUTS, constant, expanded

EXAMPLES = int(os.environ.get("NALU_KERNELS_FUZZ_EXAMPLES", 300))
# A kernel that is interpreted or emulated takes as much longer.
SHARE = {("cuda", "cpu"): 3, ("triton", "cpu"): 30}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LARGEST_HALF = torch.finfo(torch.float16).max

inf, nan = torch.inf, torch.nan
SPECIALS = (0.0, -0.0, 30.0, -30.0, inf, -inf, nan, 1e-40, -1e-30, 1e30, 1e-310)
sizes = strategies.one_of(strategies.integers(0, 9), strategies.sampled_from([16, 17, 31, 33, 65]))
seeds = strategies.integers(0, 2**32 - 1)
layouts = strategies.sampled_from([torch.clone, torch.clone, *LAYOUTS])
TENSORS = ("input", "W_hat", "M_hat", "G", "gate_bias", "W_hat_mul", "M_hat_mul", "grad_output")


class Case(NamedTuple):
    kind: Kind
    leading: tuple[int, ...]
    in_features: int
    out_features: int
    dtype: torch.dtype
    eps: float
    layouts: tuple[Any, ...]  # of TENSORS
    specials: dict[str, float]  # the share of its elements, by name
    wanted: set[str]
    threads: int
    seed: int


@strategies.composite
def shapes(draw: Any) -> tuple[tuple[int, ...], int, int]:
    """Mostly small ones; now and then weights, or batches, that BLAS multiplies."""
    which = draw(strategies.integers(0, 19))
    if which == 0:
        return (draw(strategies.integers(0, 40)),), 128 + draw(sizes), 96 + draw(sizes)
    if which == 1:
        return (2040 + draw(sizes),), draw(strategies.integers(0, 5)), 3
    leading = draw(strategies.lists(strategies.integers(0, 4), max_size=2))
    return (*leading, draw(sizes)), draw(sizes), draw(sizes)


cases = strategies.builds(
    lambda kind, shape, *rest: Case(kind, *shape, *rest),
    strategies.sampled_from(KINDS),
    shapes(),
    strategies.sampled_from(DTYPES),
    strategies.sampled_from([1e-7, 1e-7, 1e-3, 1.0, 1e-30]),
    strategies.tuples(*[layouts] * len(TENSORS)),
    strategies.dictionaries(
        strategies.sampled_from(TENSORS), strategies.sampled_from([0.05, 0.3]), max_size=2
    ),
    strategies.sets(strategies.sampled_from(TENSORS[:-1])),
    strategies.integers(1, 3),
    seeds,
)


def sprinkle(rng: torch.Generator, tensor: Tensor, share: float) -> Tensor:
    values = torch.tensor(SPECIALS, dtype=torch.float64)
    chosen = values[torch.randint(len(values), tensor.shape, generator=rng)]
    return torch.where(torch.rand(tensor.shape, generator=rng) < share, chosen, tensor)


def layer_of(case: Case, device: str) -> Layer:
    rng = torch.Generator().manual_seed(case.seed)
    rows = torch.Size(case.leading).numel()
    shape = (rows, case.in_features, case.out_features)
    layer = draw(rng, case.kind, shape, torch.float64)
    layer = layer.with_(
        input=layer.tensors["input"].view(*case.leading, case.in_features),
        grad_output=layer.grad_output.view(*case.leading, case.out_features),
    )
    tensors = {**layer.tensors, "grad_output": layer.grad_output}
    for name, share in case.specials.items():
        if name in tensors:
            tensors[name] = sprinkle(rng, tensors[name], share)
    for name, layout in zip(TENSORS, case.layouts, strict=True):
        if name in tensors:
            tensor = tensors[name].to(case.dtype).to(device)
            tensors[name] = layout(tensor) if tensor.numel() else tensor
    layer = layer.with_(**tensors)
    layer.options["eps"] = case.eps
    return layer


def memory(layer: Layer) -> list[Tensor]:
    """A copy of every tensor's bytes, and of all that lies around it."""
    tensors = [*layer.tensors.values(), layer.grad_output]
    bytes_of = (torch.empty(0, dtype=torch.uint8, device=t.device) for t in tensors)
    return [b.set_(t.untyped_storage()).clone() for b, t in zip(bytes_of, tensors, strict=True)]


def can_be_judged(judge: Judge, case: Case) -> bool:
    if case.dtype == torch.float16:
        truths = torch.cat([truth.abs().flatten() for truth in judge.truth.values()])
        if ((truths > LARGEST_HALF / 4) & (truths < 4 * LARGEST_HALF)).any():
            return False
        # Its backward starts from the output as it was returned: infinite.
        if case.kind.log_space and (judge.truth["output"].abs() > LARGEST_HALF / 4).any():
            return False
    # The truth about float64 is a sum in float64, whose roundings go one way where all terms are
    # alike: beyond what the rule allows where there are thousands.
    alike = {expanded, constant} & set(case.layouts)
    if case.dtype == torch.float64 and alike and torch.Size(case.leading).numel() > 1000:
        return False
    return not judge.near_cliff


def fuzz(test: Any, strategy: Any, examples: int) -> None:
    """Runs ``test`` on that many draws: others in each run, the same for the same SEED."""
    settings = hypothesis.settings(
        max_examples=max(1, examples),
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.seed(SEED)(settings(hypothesis.given(strategy)(test)))()


@only(lambda backend: backend.has_kernels)
def test_any_layer(backend: Backend) -> None:
    judged, seen = 0, 0

    def test(case: Case) -> None:
        nonlocal judged, seen
        layer = layer_of(case, backend.device)
        wanted = case.wanted & set(layer.tensors)
        before = memory(layer)
        with threads(case.threads):
            found = outcome(nalu_kernels, layer, wanted)
        assert all(map(torch.equal, memory(layer), before))
        judge = Judge(layer, backend.large_products(case.dtype))
        seen += 1
        if can_be_judged(judge, case):
            judged += 1
            faults = judge.faults(found)
            assert not faults, "\n".join([*faults, str(layer)])

    fuzz(test, cases, EXAMPLES // SHARE.get((backend.name, backend.device), 1))
    assert judged > seen / 2


def wrong_values(device: str) -> list[Any]:
    """What may come where a tensor is expected."""
    like = {"device": device}
    return [
        None,
        1.0,
        torch.rand(3, 2, **like),
        torch.rand(2, 3, **like),
        torch.rand(2, **like),
        torch.rand((), **like),
        torch.rand(0, 2, **like),
        torch.rand(1, 2, **like),
        torch.rand(2, 2, 2, **like),
        torch.rand(3, 2, **like).double(),
        torch.ones(3, 2, dtype=torch.int64, **like),
        torch.rand(3, 2, **like).to(torch.complex64),
        torch.rand(3, 2, device="meta"),
        torch.rand(3, 2, **like).to_sparse(),
        torch.rand(1, 1, 1, 1, 1, **like).expand(5, 4, 3, 2, 2),
    ]


operators = strategies.sampled_from(
    ["nac_forward", "nac_backward", "nalu_forward", "nalu_backward"]
)
changes = strategies.dictionaries(
    strategies.integers(0, 9), strategies.integers(0, 14), min_size=1, max_size=3
)
options = strategies.tuples(
    strategies.sampled_from([1e-7, 0.0, -1.0, inf, nan, 1e300]),
    strategies.sampled_from([True, False]),
    strategies.one_of(strategies.integers(0, 127), strategies.sampled_from([-1, 2**62])),
)


@only(lambda backend: backend.has_kernels)
def test_any_wrong_argument(backend: Backend) -> None:
    """Of an operator itself, whose callers may be others than this library."""
    found = dispatch._load(backend.name)[0]
    assert found is not None
    values = wrong_values(backend.device)
    layer = draw(torch.Generator().manual_seed(SEED), FULLEST, (5, 2, 3), device=backend.device)
    tensors = list(layer.tensors.values())
    saved = found["nalu"].forward(1e-7, True, *tensors)[1]
    nac = {"nac_forward": tensors[:3], "nac_backward": [layer.grad_output, None, *tensors[:3]]}
    nalu = {"nalu_forward": tensors, "nalu_backward": [layer.grad_output, saved, *tensors]}
    right = {**nac, **nalu}
    refused = 0

    def test(case: tuple[str, dict[int, int], tuple[float, bool, int]]) -> None:
        nonlocal refused
        name, changed, (eps, flag, needed) = case
        arguments = list(right[name])
        for where, value in changed.items():
            if where < len(arguments):
                arguments[where] = values[value]
        second = needed if "backward" in name else flag
        try:
            function, _, way = name.partition("_")
            getattr(found[function], way)(eps, second, *arguments)
        except _REFUSALS:
            refused += 1

    draws = EXAMPLES // SHARE.get((backend.name, backend.device), 1)
    fuzz(test, strategies.tuples(operators, changes, options), draws)
    assert refused
