"""What it saves to keep W between calls: with keep_weights(layer) against without.

    python -m benchmarks.inference

The floor is three Linear layers of the same shape. One thread.
"""

from __future__ import annotations

import statistics

import torch

from nalu_kernels import NALU, keep_weights, which_backend

from .timing import interleave, ratio

SHAPES = ((64, 2, 1), (1, 100, 2), (1, 100, 100), (1, 512, 512), (1, 1024, 1024), (256, 512, 512))


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)  # other work disturbs it least
    print(f"Forward of a tied NALU without gradients, on {which_backend(torch.ones(1))[0]}:")
    for B, I, O in SHAPES:  # noqa: E741
        kept, made, x = NALU(I, O), NALU(I, O), torch.rand(B, I)
        linears = [torch.nn.Linear(I, O, bias=False) for _ in range(3)]
        calls = {
            "kept": lambda kept=kept, x=x: kept(x),
            "made": lambda made=made, x=x: made(x),
            "linears": lambda linears=linears, x=x: [linear(x) for linear in linears],
        }
        with keep_weights(kept):
            samples = interleave(calls, budget_s=2.0)
        figures = {name: 1e6 * statistics.median(times) for name, times in samples.items()}
        text = ", ".join(f"{name} {figure:.1f} us" for name, figure in figures.items())
        print(f"  {B}x{I}->{O}: {text}; {ratio(samples, 'made', 'kept'):.2f} times faster")


if __name__ == "__main__":
    main()
