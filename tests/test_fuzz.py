"""Whatever a caller may pass: hypothesis draws layers of any shape, layout, dtype and number, and
calls with wrong arguments.

The first must obey the rule of parity.py or, where that has no formulas of the function, of
shaken.py; write to nothing that they were given, and read nothing beside it, which is NaN. Where
the rule cannot judge, because an infinity or a NaN hangs on the rounding of a last bit, the call
has at least to return. The second must be refused by an exception that names an argument.

``make fuzz`` draws 10,000 layers; NALU_KERNELS_FUZZ_EXAMPLES any number.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any, NamedTuple

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, strategies
from torch import Tensor

import nalu_kernels
from conftest import SEED, Backend
from layers import KINDS, Kind, Layer, draw, numbers, outcome
from nalu_kernels import dispatch
from nalu_kernels.execute import _REFUSALS
from nalu_kernels.family import COMPOSED, FAMILY
from nalu_kernels.sweep import stream
from parity import Judge, threads
from selection import only
from shaken import Shaken
from test_layouts import LAYOUTS, constant, expanded

EXAMPLES = int(os.environ.get("NALU_KERNELS_FUZZ_EXAMPLES", 300))
# A kernel that is interpreted or emulated takes as much longer.
SHARE = {("cuda", "cpu"): 3, ("triton", "cpu"): 30}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LARGEST_HALF = torch.finfo(torch.float16).max

inf, nan = torch.inf, torch.nan
SETTLED = (0.0, -0.0, 30.0, -30.0, inf, -inf, nan)
MOST_FACTORS = 33  # whose product is far from the ends of float32; of more, each is nearer to 1
EXTREME = (1e-40, -1e-30, 1e30, 1e-310)
SPECIALS = SETTLED + EXTREME
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


def sprinkle(
    rng: torch.Generator, tensor: Tensor, share: float, values: tuple[float, ...] = SPECIALS
) -> Tensor:
    chosen = torch.tensor(values, dtype=torch.float64)
    chosen = chosen[torch.randint(len(values), tensor.shape, generator=rng)]
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


# What a function's options are drawn from: by name, else by type.
OPTIONS: dict[Any, Any] = {
    "eps": strategies.sampled_from([1e-7, 1e-3, 1.0]),
    "omega": strategies.sampled_from([20.0, 1.0, 80.0]),
    "noise": strategies.sampled_from([(1.0, 5.0), (0.5, 0.5)]),
    "seed": strategies.integers(0, 2**63 - 1),
    bool: strategies.booleans(),
}
# Functions of others' kernels, which take other options, or not all of their tensors.
OWN_OPTIONS = {"snmu": {"noise": tuple, "seed": int}}
OWN_TENSORS = {"gnalu": ("input", "W_hat", "M_hat", "G"), "real_npu": ("input", "W_re", "g")}


class Call(NamedTuple):
    """Of a function of the family's table, or of one that is made of another."""

    function: str
    options: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]  # of the tensors, the input's first
    dtype: torch.dtype
    layouts: tuple[Any, ...]
    specials: dict[int, float]  # by the tensor's place
    extreme: bool  # special values whose products leave the type in one order, not in another
    wanted: set[int]
    threads: int
    seed: int

    @property
    def out_features(self) -> int:
        return list(self.shapes.values())[1][0]

    def layer(self, device: str) -> Layer:
        rng = torch.Generator().manual_seed(self.seed)
        kernels = COMPOSED.get(self.function, self.function)
        tensors = numbers(rng, kernels, self.shapes)
        width = self.shapes["input"][-1]
        if width > MOST_FACTORS and "W" in tensors:
            tensors["W"] *= MOST_FACTORS / width
        if self.options.get("training") and self.seed % 2:
            tensors["W"] /= 1000  # within the slope of tanh(1000 W)
        rows = (*self.shapes["input"][:-1], self.out_features)
        tensors["grad_output"] = torch.randn(rows, generator=rng, dtype=torch.float64)
        for place, name in enumerate(tensors):
            values = SPECIALS if self.extreme else SETTLED
            tensor = sprinkle(rng, tensors[name], self.specials.get(place, 0.0), values)
            if name == "g" and self.options.get("straight_through"):
                # Plain PyTorch has no way to pass a gradient on through a number that is infinite.
                tensor = tensor.nan_to_num(nan=nan, posinf=1e30, neginf=-1e30)
            tensor = tensor.to(self.dtype).to(device)
            tensors[name] = self.layouts[place](tensor) if tensor.numel() else tensor
        grad_output = tensors.pop("grad_output")
        return Layer(self.function, tensors, dict(self.options), grad_output)


def tensors_of(function: str, draw: Any) -> tuple[str, ...]:
    row = FAMILY[COMPOSED.get(function, function)]
    if function in OWN_TENSORS:
        return OWN_TENSORS[function]
    if function == "npu" or (row.optional and draw(strategies.booleans())):
        return row.tensors
    return ("input", *row.weights)


@strategies.composite
def calls(draw: Any, functions: list[str]) -> Call:
    function = draw(strategies.sampled_from(functions))
    row = FAMILY[COMPOSED.get(function, function)]
    types = OWN_OPTIONS.get(function, row.options)
    options = {name: draw(OPTIONS.get(name, OPTIONS.get(of))) for name, of in types.items()}
    leading, I, O = draw(shapes())  # noqa: E741
    gates = draw(strategies.sampled_from([1, O]))
    own: dict[str, dict[str, tuple[int, ...]]] = {
        "nalu": {"G": (gates, I), "gate_bias": (gates,)},
        "inalu": {"g": (1, I) if options.get("per_sample") else (O,) if gates == 1 else (O, I)},
        "npu": {"g": (I,)},
        "nmru": {"W": (O, 2 * I)},
    }
    sizes = {"input": (*leading, I), **own.get(row.name, {})}
    places = strategies.integers(0, len(row.tensors))
    return Call(
        function,
        options,
        {name: sizes.get(name, (O, I)) for name in tensors_of(function, draw)},
        draw(strategies.sampled_from(DTYPES)),
        draw(strategies.tuples(*[layouts] * (len(row.tensors) + 1))),
        draw(strategies.dictionaries(places, strategies.sampled_from([0.05, 0.3]), max_size=2)),
        draw(strategies.booleans()),
        draw(strategies.sets(places)),
        draw(strategies.integers(1, 3)),
        draw(seeds),
    )


def judge_of(call: Call, layer: Layer, wanted: set[str]) -> Shaken:
    width = call.shapes["input"][-1]
    per_output = {"gate_bias"} | ({"g"} if call.shapes.get("g") == (call.out_features,) else set())
    if layer.function in ("npu", "real_npu"):
        per_output = set()
    inputs = {
        name: 0 if name in per_output else 2 if call.function == "nmru" and name == "W" else 1
        for name in call.shapes
    }
    if call.function == "snmu":
        wide = torch.float64 if call.dtype == torch.float64 else torch.float32
        rows = torch.Size(call.shapes["input"][:-1]).numel()
        u = stream.draw(call.options["seed"], stream.NOISE, 0, rows, width)
        noise = stream.uniform(u, (call.options["noise"],), wide)
        layer = replace(layer, tensors={**layer.tensors, "noise": noise}, options={})
        inputs["noise"] = 1
    return Shaken(layer, inputs, wanted, torch.Generator().manual_seed(call.seed))


JUDGED_BY_PARITY = {kind.function for kind in KINDS}
OTHERS = [name for name in [*FAMILY, *COMPOSED] if name not in JUDGED_BY_PARITY]


@only(lambda backend: backend.has_kernels)
def test_any_function_of_the_family(backend: Backend) -> None:
    def test(call: Call) -> None:
        layer = call.layer(backend.device)
        wanted = {name for i, name in enumerate(layer.tensors) if i in call.wanted}
        before = memory(layer)
        with threads(call.threads):
            found = outcome(nalu_kernels, layer, wanted)
        assert all(map(torch.equal, memory(layer), before))
        if call.extreme:
            return
        # Of no samples, a gradient is 0, or what 0 makes with its weight's infinity. A product of
        # many factors underflows, or does not, before it meets an infinity.
        few = call.shapes["input"][-1] <= MOST_FACTORS
        patterns = few and found["output"].numel() > 0
        faults = judge_of(call, layer, wanted).faults(found, patterns)
        assert not faults, "\n".join([*faults, str(layer)])

    share = SHARE.get((backend.name, backend.device), 1)
    fuzz(test, calls(OTHERS), EXAMPLES // 3 // share)


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


changes = strategies.dictionaries(
    strategies.integers(0, 9), strategies.integers(0, 14), min_size=1, max_size=3
)
# Of an operator: right ones, and others that it may refuse.
ANY_OPTION: dict[type, Any] = {
    float: strategies.sampled_from([1e-7, 0.0, -1.0, inf, nan, 1e300]),
    bool: strategies.booleans(),
}
needed = strategies.one_of(strategies.integers(0, 127), strategies.sampled_from([-1, 2**62]))


@only(lambda backend: backend.has_kernels)
def test_any_wrong_argument(backend: Backend) -> None:
    """Of an operator itself, whose callers may be others than this library."""
    found = dispatch._load(backend.name)[0]
    assert found is not None
    values = wrong_values(backend.device)
    refused = 0

    @strategies.composite
    def cases(draw: Any) -> tuple[Call, bool, dict[int, int], list[Any], int]:
        call = draw(calls([name for name in FAMILY if name in found]))
        types = FAMILY[call.function].types
        drawn = [draw(ANY_OPTION[of]) for of in types]
        return call, draw(strategies.booleans()), draw(changes), drawn, draw(needed)

    def test(case: tuple[Call, bool, dict[int, int], list[Any], int]) -> None:
        nonlocal refused
        call, forward, changed, options, bits = case
        row, kernels = FAMILY[call.function], found[call.function]
        layer = call.layer(backend.device)
        tensors = [layer.tensors.get(name) for name in row.tensors]
        right = list(call.options.values())
        told = len(options) - bool(row.saves_output_if)  # of the options, to the backward
        if forward:
            made = kernels.forward
            flag = [] if row.saves_output_if else [bool(bits % 2)]
            given, before = tensors, [*options, *flag]
        else:
            made = kernels.backward
            saved = None
            if not row.saves_output_if:
                saved = kernels.forward(*right, True, *tensors)[1]
            given, before = [layer.grad_output, saved, *tensors], [*options[:told], bits]
        for where, value in changed.items():
            if where < len(given):
                given[where] = values[value]
        try:
            made(*before, *given)
        except _REFUSALS:
            refused += 1

    draws = EXAMPLES // SHARE.get((backend.name, backend.device), 1)
    fuzz(test, cases(), draws)
    assert refused


# What is no tensor of any call, of the right one.
WRONG_TENSORS: list[Any] = [
    lambda tensor: None,
    lambda tensor: tensor.tolist(),
    lambda tensor: tensor.int(),
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor.to("meta"),
    lambda tensor: tensor.detach().to_sparse(),
    lambda tensor: tensor.new_zeros(*tensor.shape[:-1], tensor.shape[-1] + 1),
    lambda tensor: tensor.new_zeros(()),
]
WRONG_OPTIONS: dict[Any, list[Any]] = {
    float: [nan, inf, -1.0, -inf, "1", True, [1.0]],
    bool: [None, 1, "yes"],
    int: [1.5, -1, 2**63, "1"],
    tuple: [(2.0, 1.0), (0.0, 1.0), (1.0, inf), (1.0,), "all", None],
}


@strategies.composite
def wrong_calls(draw: Any) -> tuple[Call, str, Any]:
    """A call, and one argument of it with what takes its place."""
    call = draw(calls([*FAMILY, *COMPOSED]))
    types = OWN_OPTIONS.get(
        call.function, FAMILY[COMPOSED.get(call.function, call.function)].options
    )
    name = draw(strategies.sampled_from([*call.shapes, *types]))
    wrong = WRONG_TENSORS if name in call.shapes else WRONG_OPTIONS[types[name]]
    if name == "gate_bias":
        wrong = wrong[1:]  # None leaves it out
    return call, name, draw(strategies.sampled_from(wrong))


def test_any_wrong_call(backend: Backend) -> None:
    """It is refused, with or without gradients, by words that begin with an argument's name."""

    def test(case: tuple[Call, str, Any]) -> None:
        call, name, wrong = case
        layer = call.layer(backend.device)
        tensors = {
            each: tensor.requires_grad_() if i in call.wanted else tensor
            for i, (each, tensor) in enumerate(layer.tensors.items())
        }
        arguments = {**tensors, **layer.options}
        arguments[name] = wrong(arguments[name]) if callable(wrong) else wrong
        with pytest.raises((TypeError, ValueError)) as raised:
            getattr(nalu_kernels, call.function)(**arguments)
        named = re.match(r"(\w+)(\[\d\])?: ", str(raised.value))
        assert named and named[1] in arguments, raised.value

    fuzz(test, wrong_calls(), EXAMPLES // 3 // SHARE.get((backend.name, backend.device), 1))
