"""The rule by which every result of a back end is judged. It stands here and nowhere else.

The truth is ``reference.py`` in float64 on the same (rounded) tensors. Eager is ``reference.py``
in the type that the library computes in: float32, or float64 for float64. Element by element,
for the output and for every gradient,

    |found - truth|  <=  2 |eager - truth|  +  SLACK bound  (+ one rounding to half precision)

where ``bound`` (error_bound.py) is what the roundings of straightforward code can add up to at
that element, so SLACK counts ulps of the scale that the conditioning of that element sets: a
draw on which eager happens to be exact gives no false alarm, and a large error elsewhere in the
tensor hides nothing. float64, whose truth is eager itself, lives by the slack alone.

For bfloat16 and float16 eager is float32, rounded at the end: stricter than twice the error of
eager in the half-precision dtype itself.

NaN, +inf and -inf must stand exactly where eager has them. Tests that provoke them draw layers
on which that pattern does not hang on the rounding of a last bit (``error_bounds`` says so): no
number within a factor of 4 of the largest, no gate within a few ulps of 1.

tests/test_parity_rule.py shows that the rule catches small faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

import nalu_kernels
from error_bound import FULL, Products, error_bounds
from layers import Layer, outcome
from nalu_kernels import reference

SLACK = 2.0


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch, and so the library, on that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Judge:
    """Knows what is right for one layer, and what ``products`` less than full may cost it."""

    def __init__(self, layer: Layer, products: Products = FULL) -> None:
        self.dtype = layer.grad_output.dtype
        compute = self.dtype if self.dtype == torch.float64 else torch.float32
        here = layer.map(lambda tensor: tensor.detach().cpu())
        self.truth = outcome(reference, here.map(Tensor.double))
        self.bounds, self.near_cliff = error_bounds(here, products)
        eager = outcome(reference, here.map(lambda tensor: tensor.to(compute)))
        self.eager = {name: tensor.to(self.dtype) for name, tensor in eager.items()}

    def allowed(self, name: str) -> Tensor:
        """The largest error that the rule allows."""
        truth = self.truth[name]
        allowed = 2 * (self.eager[name].double() - truth).abs() + SLACK * self.bounds[name].error
        if self.dtype in (torch.bfloat16, torch.float16):
            info = torch.finfo(self.dtype)
            allowed = allowed + info.eps / 2 * truth.abs().clamp(min=info.tiny)
        return allowed

    def faults(self, found: dict[str, Tensor]) -> list[str]:
        """What is wrong with an outcome (or with a part of it), in words."""
        return [fault for name, tensor in found.items() for fault in self._faults(name, tensor)]

    def _faults(self, name: str, tensor: Tensor) -> list[str]:
        truth, eager = self.truth[name], self.eager[name]
        if tensor.shape != truth.shape or tensor.dtype != self.dtype:
            return [f"{name}: {tensor.dtype} {tuple(tensor.shape)}, expected {tuple(truth.shape)}"]
        tensor = tensor.detach().cpu()
        found = []
        for what in (torch.isnan, torch.isposinf, torch.isneginf):
            wrong = what(tensor) != what(eager)
            if wrong.any():
                found.append(_describe(f"{name}: {what.__name__}", wrong, tensor, eager))
        error, allowed = (tensor.double() - truth).abs(), self.allowed(name)
        # A bound that is not finite comes from an overflow, which the pattern has judged.
        wrong = eager.isfinite() & (error > allowed)
        if wrong.any():
            found.append(_describe(f"{name}: error {error[wrong].max():.3g}", wrong, tensor, truth))
        return found


def _describe(what: str, wrong: Tensor, tensor: Tensor, expected: Tensor) -> str:
    where = tuple(wrong.nonzero()[0].tolist())
    return (
        f"{what} at {int(wrong.sum())} of {wrong.numel()} elements; first {where}: "
        f"{tensor[where].item()!r}, expected {expected[where].item()!r}"
    )


def check(layer: Layer, products: Products = FULL) -> None:
    """Fails unless the library's output and gradients for ``layer`` obey the rule."""
    faults = Judge(layer, products).faults(outcome(nalu_kernels, layer))
    assert not faults, "\n".join(faults)
