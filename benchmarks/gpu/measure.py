"""Measures a unit: errors, memory, wall time and device time of each provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch

from nalu_kernels import reference

from .. import accuracy
from ..contenders import layer_of
from ..timing import Call, Samples, interleave
from . import roofline, tensors
from .cases import GpuCase, Unit
from .device import Device
from .providers import PRODUCTS, Provider, build
from .roofline import Roofline
from .tensors import Set

NAMES = ("output", "input", "W_hat", "M_hat", "G")
Result = TypeVar("Result")


class Measured(NamedTuple):
    """Everything by provider's name; a provider that fails has no more entries from there on.
    ``roofline`` is of ``roofline.BACKEND``, where that is one of them."""

    unit: Unit
    sets: int
    set_bytes: int
    errors: dict[str, dict[str, float]]
    peak_bytes: dict[str, int | None]
    wall: Samples
    replay: Samples
    roofline: Roofline | None
    failed: dict[str, str]


def describe(error: Exception) -> str:
    """The first line says what; the rest, which some compilers fill pages with, does not matter."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:500]


class _Trials:
    """Providers that have not failed yet."""

    def __init__(self, providers: list[Provider]) -> None:
        self.providers = {provider.name: provider for provider in providers}
        self.failed: dict[str, str] = {}

    def each(self, what: str, trial: Callable[[Provider], Result]) -> dict[str, Result]:
        """What ``trial`` returns for each, in the state that the provider's calls need."""
        found = {}
        for name, provider in list(self.providers.items()):
            try:
                with provider.forced():
                    found[name] = trial(provider)
            except Exception as error:  # recorded, and the others go on
                self.failed[name] = f"{what}: {describe(error)}"
                del self.providers[name]
        return found


def _errors(case: GpuCase, found: Set, truth: tuple[Any, ...]) -> Callable[..., Any]:
    def errors(provider: Provider) -> dict[str, float]:
        if provider.name == PRODUCTS:
            return {}
        results = tensors.results(provider, found, case.backward)
        pairs = zip(results, truth, strict=True)
        return dict(zip(NAMES, (accuracy.error(one, true) for one, true in pairs), strict=False))

    return errors


def _truth(unit: Unit, found: Set) -> tuple[torch.Tensor, ...]:
    """In float64, of the same numbers."""
    leaves = tuple(
        leaf.detach().double().requires_grad_(unit.case.backward) for leaf in found.leaves
    )
    exact = Provider("float64", layer_of(unit.case.layer, reference))
    return tensors.results(exact, Set(leaves, found.grad_output.double()), unit.case.backward)


def _rounds(
    calls: Mapping[str, Call], providers: Mapping[str, Provider], device: Device
) -> dict[str, list[float]]:
    names = {id(call): name for name, call in calls.items()}

    def seconds(call: Call, times: int) -> float:
        with providers[names[id(call)]].forced():
            return device.seconds(call, times)

    return interleave(
        calls, budget_s=device.budget_s, min_rounds=device.min_rounds, seconds=seconds
    )


def measure(unit: Unit, device: Device) -> Measured:
    case = unit.case
    with tensors.precision(case.precision) as dtype, torch.set_grad_enabled(case.backward):
        found = tensors.sets(case, dtype, device)
        first = found[0]
        trials = _Trials(build(case.layer, first.leaves[0], device, autotune=unit.autotune))
        truth = _truth(unit, first)
        errors = trials.each("call", _errors(case, first, truth))
        del truth

        def one(provider: Provider) -> Call:
            return tensors.call(provider, first, case.backward)

        peak_bytes = trials.each("memory", lambda provider: device.peak_bytes(one(provider)))
        calls = trials.each("call", one)
        wall = _rounds(calls, trials.providers, device)

        def capture(provider: Provider) -> Call:
            return device.capture([tensors.call(provider, one, case.backward) for one in found])

        graphs = trials.each("capture", capture)
        replays = _rounds(graphs, trials.providers, device)
        replay = {name: [one / len(found) for one in times] for name, times in replays.items()}
        least = None
        if roofline.BACKEND in trials.providers:
            least = roofline.of(case, dtype, first.grad_output.device, device.peaks)
    return Measured(
        unit, len(found), first.bytes, errors, peak_bytes, wall, replay, least, trials.failed
    )
