"""What frozen tensors save in a backward.

    python -m benchmarks.frozen

The floor is the share of the nine products that are left: forward 3; backward 3 for the input, 2
for W_hat and M_hat, 1 for G.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from nalu_kernels import nalu, which_backend

from .timing import interleave, ratio

SHAPES = ((64, 2, 1), (128, 100, 100), (256, 512, 512))
# What wants a gradient, and how many of the backward's six products that takes.
TRAINED = {
    "everything": (("input", "W_hat", "M_hat", "G"), 6),
    "all but the input": (("W_hat", "M_hat", "G"), 3),
    "all but W": (("input", "G"), 4),
    "G alone": (("G",), 1),
}


def step(B: int, I: int, O: int, trained: tuple[str, ...]) -> Callable[[], object]:  # noqa: E741
    tensors = {"input": torch.rand(B, I)}
    tensors |= {name: torch.randn(O, I) for name in ("W_hat", "M_hat", "G")}
    leaves = [tensors[name].requires_grad_() for name in trained]
    upstream = torch.rand(B, O)
    x, W_hat, M_hat, G = tensors.values()
    return lambda: torch.autograd.grad(nalu(x, W_hat, M_hat, G), leaves, upstream)


def main() -> None:
    print(f"Forward and backward of a tied NALU, on {which_backend(torch.ones(1))[0]}:")
    for shape in SHAPES:
        calls = {name: step(*shape, trained) for name, (trained, _) in TRAINED.items()}
        samples = interleave(calls, budget_s=3.0)
        print(f"  {shape[0]}x{shape[1]}->{shape[2]}")
        for name, (_, products) in TRAINED.items():
            part = ratio(samples, name, "everything")
            median = 1e6 * statistics.median(samples[name])
            left = (3 + products) / 9
            print(f"    {name}: {median:.1f} us, {part:.2f} of all; products {left:.2f}")


if __name__ == "__main__":
    main()
