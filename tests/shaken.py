"""How far from the truth plain PyTorch lands once its numbers are shaken: a rule for functions that
error_bound.py has no formulas of.

The truth is the reference in float64. A trial is the reference in the type that is computed in, of
the same numbers, each off by some roundings, as is what comes of exp, log and the like; samples and
inputs are in another order. An element may be off by some times what the worst trial is, for trials
show how its conditioning and the order of a sum tell. Where trials and truth do not have NaN and
infinity in the same places, those hang on the last bit, and nothing is said about the element.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from layers import Layer, outcome
from nalu_kernels import reference

TRIALS = 6  # so many that not all of them are near the truth by chance
ROUNDINGS = 16  # that each number of a trial is off by
TIMES = 4  # what the worst trial is off by
SLACK = 16  # roundings of the element itself, beside that, and one for each input
SAMPLES = {"input", "noise", "output"}  # have a row for each
_aten = torch.ops.aten
INEXACT = {_aten.exp, _aten.log, _aten.pow, _aten.tanh, _aten.sigmoid, _aten.cos, _aten.sin}
PATTERNS = (torch.isnan, torch.isposinf, torch.isneginf)


class Shaken:
    """Knows what is right for one layer, whose gradients of ``wanted`` are compared.

    ``inputs`` says of each tensor how often its last dimension counts the inputs: 0, 1 or 2 times.
    """

    def __init__(
        self, layer: Layer, inputs: dict[str, int], wanted: set[str], rng: Generator
    ) -> None:
        self.dtype = layer.grad_output.dtype
        self.compute = self.dtype if self.dtype == torch.float64 else torch.float32
        self.slack = SLACK + layer.tensors["input"].shape[-1]
        if self.dtype == torch.float64:  # the truth rounds too, one way where samples are alike
            self.slack += layer.grad_output.shape[:-1].numel()
        layer = _flat(layer.map(lambda tensor: tensor.detach().cpu()))
        self.truth = outcome(reference, layer.map(Tensor.double), wanted)
        self.trials = [
            _trial(layer.map(lambda tensor: tensor.to(self.compute)), inputs, wanted, rng)
            for _ in range(TRIALS)
        ]

    def faults(self, found: dict[str, Tensor], patterns: bool = True) -> list[str]:
        """What is wrong with an outcome, in words; perhaps of finite numbers alone."""
        return [f for name, tensor in found.items() for f in self._faults(name, tensor, patterns)]

    def _faults(self, name: str, tensor: Tensor, patterns: bool) -> list[str]:
        if tensor.dtype != self.dtype:
            return [f"{name}: {tensor.dtype}"]
        truth, trials = self.truth[name], torch.stack([trial[name] for trial in self.trials])
        found = tensor.detach().cpu().reshape(truth.shape)
        faults = []
        sound = torch.ones_like(truth, dtype=torch.bool)
        rounded = truth.to(self.compute).to(self.dtype)
        for pattern in PATTERNS:
            expected = pattern(rounded)
            agreed = (pattern(trials.to(self.dtype)) == expected).all(0)
            wrong = agreed & (pattern(found) != expected) & patterns
            sound &= agreed & ~expected
            faults += self._described(name, pattern.__name__, wrong, found, rounded)
        sound &= found.isfinite()
        allowed = TIMES * (trials.double() - truth).abs().amax(0)
        for dtype, roundings in ((self.compute, self.slack), (self.dtype, 1)):
            info = torch.finfo(dtype)
            allowed += roundings * info.eps * truth.abs().clamp(min=info.tiny)
        wrong = sound & ((found.double() - truth).abs() > allowed)
        return faults + self._described(name, "error", wrong, found, truth)

    @staticmethod
    def _described(
        name: str, what: str, wrong: Tensor, found: Tensor, expected: Tensor
    ) -> list[str]:
        if not wrong.any():
            return []
        where = tuple(wrong.nonzero()[0].tolist())
        values = f"{found[where].item()!r}, expected {expected[where].item()!r}"
        return [f"{name}: {what} at {where}: {values}"]


def _flat(layer: Layer) -> Layer:
    """With one leading dimension."""
    x, dy = layer.tensors["input"], layer.grad_output
    rows = dy.shape[:-1].numel()
    return layer.with_(
        input=x.reshape(rows, x.shape[-1]), grad_output=dy.reshape(rows, dy.shape[-1])
    )


def _shaken(tensor: Tensor, rng: Generator) -> Tensor:
    off = torch.randn(tensor.shape, generator=rng, dtype=torch.float64).to(tensor)
    return tensor * (1 + ROUNDINGS * torch.finfo(tensor.dtype).eps * off)


class _Inexact(TorchDispatchMode):
    """Shakes what functions come to that nobody rounds correctly, in backwards too."""

    def __init__(self, rng: Generator) -> None:
        super().__init__()
        self.rng = rng

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        return _shaken(result, self.rng) if func.overloadpacket in INEXACT else result


def _trial(
    layer: Layer, inputs: dict[str, int], wanted: set[str], rng: Generator
) -> dict[str, Tensor]:
    rows = torch.randperm(layer.grad_output.shape[0], generator=rng)
    width = layer.tensors["input"].shape[-1]
    inner = torch.randperm(width, generator=rng)
    orders = {
        name: torch.cat([inner + part * width for part in range(count)])
        for name, count in inputs.items()
        if count
    }
    tensors = {name: _shaken(tensor, rng) for name, tensor in layer.tensors.items()}
    for name, order in orders.items():
        tensors[name] = tensors[name][..., order]
    for name in SAMPLES & tensors.keys():
        tensors[name] = tensors[name][rows]
    shift = 1 + ROUNDINGS * torch.finfo(layer.grad_output.dtype).eps
    options = {
        name: value * shift if isinstance(value, float) else value
        for name, value in layer.options.items()
    }
    grad_output = _shaken(layer.grad_output, rng)[rows]
    with _Inexact(rng):
        found = outcome(reference, Layer(layer.function, tensors, options, grad_output), wanted)
    for name in orders.keys() & found.keys():
        found[name] = found[name][..., orders[name].argsort()]
    for name in SAMPLES & found.keys():
        found[name] = found[name][rows.argsort()]
    return found
