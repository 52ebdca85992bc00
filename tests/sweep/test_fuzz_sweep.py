"""Random specifications: the kernel trains the valid ones as the reference does, and what is not
valid is refused before anything runs."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skips_here import needs_trainer
from torch import nn

from nalu_kernels import (
    GNALU,
    INALU,
    NAC,
    NACNMU,
    NALU,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    SNMU,
    NACSigma,
    RealNPU,
    sweep,
)
from nalu_kernels.layers.base import Layer
from nalu_kernels.sweep.runs import _BESIDE
from nalu_kernels.sweep.specification import _SATURATING
from nalu_kernels.sweep.state import DIVERGED

F64 = torch.float64
EXAMPLES = int(os.environ.get("NALU_KERNELS_FUZZ_EXAMPLES", "40"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


# The layers of a stack, and what their options are drawn from.
LAYERS: list[tuple[Any, dict[str, list[Any]]]] = [
    (nn.Linear, {"bias": [False, True]}),
    (NAC, {"log_space": [False, True], "eps": [1e-2]}),
    (NACSigma, {"eps": [1e-2]}),
    (NACNMU, {"eps": [1e-2]}),
    (
        NALU,
        {
            "tied": [False, True],
            "gate_bias": [False, True],
            "gate": ["output", "sample"],
            "eps": [1e-2],
        },
    ),
    (GNALU, {"eps": [1e-2]}),
    (NAU, {}),
    (NMU, {}),
    (SNMU, {}),
    (
        INALU,
        {
            "gate": ["independent", "matrix", "vector"],
            "tied": [False, True],
            "eps": [1e-2],
            "omega": [1.0, 20.0],
        },
    ),
    (NPU, {"eps": [1e-2], "gate_gradient": ["straight-through", "clamped"]}),
    (
        RealNPU,
        {
            "eps": [1e-2],
            "gate_gradient": ["straight-through", "clamped"],
            "modified": [False, True],
        },
    ),
    (NRU, {}),
    (NMRU, {}),
]


@st.composite
def stacks(draw: st.DrawFn, inputs: int, outputs: int) -> nn.Module:
    """One to four layers; sizes fit."""
    sizes = [inputs, *draw(st.lists(st.integers(1, 5), max_size=3)), outputs]
    layers: list[nn.Module] = []
    for width, after in itertools.pairwise(sizes):
        kind, options = draw(st.sampled_from(LAYERS))
        chosen = {name: draw(st.sampled_from(values)) for name, values in options.items()}
        layers.append(kind(width, after, **chosen))
        layers.append(draw(st.sampled_from([nn.Identity, nn.ReLU, nn.ReLU6]))())
    return nn.Sequential(*layers[:-1])


# What is learnt beside the error, by column; l1_last is at least l1, ramp_stop ramp_start.
TERMS: dict[str, Any] = {
    "regularizer": st.floats(0, 10),
    "ramp_start": st.integers(0, 4),
    "ramp_stop": st.integers(4, 6),
    "regularizer_below": st.one_of(st.none(), st.floats(0, 10)),
    "l1": st.floats(0, 0.1),
    "l1_last": st.one_of(st.none(), st.floats(0.1, 1)),
    "l1_every": st.integers(1, 3),
    "saturation": st.floats(0, 10),
    "saturation_start": st.integers(0, 4),
    "saturation_below": st.one_of(st.none(), st.floats(0, 10)),
}


RANGES = st.sampled_from(
    [(1.0, 2.0), ((-2.0, -1.0), (1.0, 2.0)), sweep.Normal(1.0, 0.5), sweep.Normal(0, 1, -1, 2)]
)


@st.composite
def specifications(draw: st.DrawFn) -> dict[str, Any]:
    inputs = draw(st.integers(2, 9))
    kind = draw(st.sampled_from(["arithmetic", "function", "data"]))
    ranges = {"train": draw(RANGES), "test": draw(RANGES), "samples": draw(st.integers(1, 30))}
    ranges |= {"per_seed": draw(st.booleans()), "test_seed": draw(st.integers(0, 2**62))}
    task: Any
    if kind == "arithmetic":
        operation = draw(st.sampled_from(["+", "-", "*", "/", "a^2", "sqrt(a)"]))
        task = sweep.Arithmetic(operation, inputs, 0.5, draw(st.floats(0, 1)), **ranges)
    elif kind == "function":
        task = sweep.Function(lambda x: x.sum(1, keepdim=True).expand(-1, 2), inputs, **ranges)
    else:
        x = torch.linspace(0.5, 2, 11 * inputs, dtype=F64).view(11, inputs)
        task = sweep.Data(x, x.mean(1), x + 1, x.mean(1) + 1)
    optimizer = draw(st.sampled_from(["adam", "rmsprop", "sgd"]))
    runs: dict[str, list[Any]] = {
        "seed": draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3))
    }
    count = len(runs["seed"])
    runs["lr"] = [draw(st.floats(1e-5, 1e-3)) for _ in range(count)]
    for name in draw(st.sets(st.sampled_from(["weight_decay", "clip_value", "clip_norm"]))):
        runs[name] = [draw(st.floats(0.01, 1)) for _ in range(count)]
    stack = draw(stacks(inputs, 2 if kind == "function" else 1))
    terms = draw(st.sets(st.sampled_from(list(TERMS))))
    if not any(isinstance(layer, Layer) and layer._has_regularizer for layer in stack.modules()):
        terms.discard("regularizer")
    if not all(isinstance(layer, _SATURATING) for layer in stack if [*layer.parameters()]):
        terms.discard("saturation")
    for name in terms:
        if _BESIDE.get(name, name) in terms:
            runs[name] = [draw(TERMS[name]) for _ in range(count)]
    if optimizer != "adam":
        runs["momentum"] = [draw(st.sampled_from([0.0, 0.9])) for _ in range(count)]
    steps = draw(st.integers(1, 6))
    return {
        "stack": stack,
        "task": task,
        "runs": runs,
        "steps": steps,
        "batch_size": draw(st.integers(1, 140)),
        "test_every": draw(st.integers(1, 7)),
        "optimizer": optimizer,
        "loss": draw(st.sampled_from(["mse", "l1"])),
        "success": draw(st.sampled_from([1e-5, 10.0])),
        "stop": draw(st.sampled_from([None, "solved"])),
        "dtype": F64,
    }


@needs_trainer
@fuzz
@given(specification=specifications())
def test_the_kernel_trains_as_the_reference(specification: dict[str, Any]) -> None:
    found, expected = (
        sweep.run(**specification, backend=backend)._state for backend in ("cpu", "reference")
    )
    assert found.progress.equal(expected.progress)
    # Of a NaN torch's ReLU6 makes one gradient or another, by its place in the tensor.
    sound = expected.progress[:, 1] != DIVERGED
    torch.testing.assert_close(
        found.parameters[sound], expected.parameters[sound], rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(found.curves, expected.curves, rtol=1e-5, atol=1e-8, equal_nan=True)


SPOILT: dict[str, list[Any]] = {
    "stack": [nn.Tanh(), nn.Sequential(), None, NAC(10, 1), nn.Sequential(NAC(2, 3), NAC(2, 1))],
    "task": [None, "a + b", sweep.Arithmetic("+", 12)],
    "steps": [0, -1, 2.5, None, True, "1"],
    "batch_size": [0, None, 1.0],
    "test_every": [0, "1"],
    "optimizer": ["adamw", None, 3],
    "loss": ["huber", None],
    "success": ["weights", 0, -1.0, []],
    "stop": ["early", 1],
    "dtype": [torch.float16, "float32"],
    "runs": [None, {}, {"seed": [-1]}, {"seed": [0], "lr": [float("nan")]}, {"seeds": [1]}]
    + [{"seed": [0], name: [wrong]} for name in TERMS for wrong in (-1.0, "1", True)]
    + [{"seed": [0], name: [float("inf")]} for name in ("regularizer", "ramp_stop", "l1")]
    + [{"seed": [0], "l1": [0.5], "l1_last": [0.1]}, {"seed": [0], "l1_every": [0]}],
    "seconds": [0, -1, "1"],
    "threads": [0, 1.5],
    "callback": [1],
    "executor": [1],
    "backend": ["gpu", 1],
}


@fuzz
@given(specification=specifications(), data=st.data())
def test_what_is_wrong_is_refused_before_anything_runs(
    specification: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(SPOILT)))
    wrong = data.draw(st.sampled_from(SPOILT[name]))
    arguments = {
        "callback": lambda event: pytest.fail("it has begun"),
        "backend": "reference",
        **specification,
        name: wrong,
    }
    with pytest.raises((TypeError, ValueError), match=r"^\w"):
        sweep.run(**arguments)
