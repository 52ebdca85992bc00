"""What frozen tensors save: the time of a tied NALU's backward where something needs no gradient.

    python -m benchmarks.frozen

A backward of everything is six matrix products: three for the input (through the sum, the product
and the gate), two for W and one for G. What is frozen leaves some of them; their share is printed
beside the measured ratio. Tiny layers are nearly all autograd's own time, which the empty call
shows, an autograd.Function that computes nothing. One thread, as other work disturbs it least.
"""

from __future__ import annotations

import statistics

import torch
from torch import Tensor

import nalu_kernels

from .cases import shape_name
from .contenders import EMPTY, Empty
from .timing import Call, Samples, interleave, ratio

SHAPES = ((64, 2, 1), (128, 100, 100), (256, 512, 512))
ALL = "nothing frozen"
PRODUCTS = 6
FROZEN = {  # what needs no gradient, and the products that are left
    ALL: ((), PRODUCTS),
    "W frozen": (("W_hat", "M_hat"), 4),
    "G frozen": (("G",), 5),
    "input without gradient": (("input",), 3),
    "all but G frozen": (("input", "W_hat", "M_hat"), 1),
}


def calls(shape: tuple[int, int, int]) -> dict[str, Call]:
    """The backwards alone, each again and again on a graph of its own."""
    batch, in_features, out_features = shape
    layer = nalu_kernels.NALU(in_features, out_features)
    tensors: dict[str, Tensor] = {"input": torch.randn(batch, in_features)}
    tensors.update(layer.named_parameters())
    grad_output = torch.randn(batch, out_features)

    def backward(frozen: tuple[str, ...], empty: bool = False) -> Call:
        leaves = {
            name: tensor.detach().clone().requires_grad_(name not in frozen)
            for name, tensor in tensors.items()
        }
        if empty:
            output = Empty.apply(out_features, *leaves.values())
        else:
            output = nalu_kernels.nalu(*leaves.values())
        wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
        return lambda: torch.autograd.grad(output, wanted, grad_output, retain_graph=True)

    contenders = {name: backward(frozen) for name, (frozen, _) in FROZEN.items()}
    return {**contenders, EMPTY: backward((), empty=True)}


def lines(samples: Samples) -> list[str]:
    """The medians, as parts of the whole backward's, and the parts that the products are."""
    rows = []
    for name, times in samples.items():
        median = 1e6 * statistics.median(times)
        row = f"  {name:<24}{median:>10,.1f} us{ratio(samples, name, ALL):>8.2f}"
        if name in FROZEN:
            left = FROZEN[name][1]
            row += f"{left / PRODUCTS:>10.2f}  ({left} of {PRODUCTS} products)"
        rows.append(row)
    return rows


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    used, why = nalu_kernels.which_backend(torch.empty(1))
    print(f"Backward of a tied NALU on {used} ({why}), one thread:")
    print("the median, its ratio to that of everything, and the share of the products.")
    for shape in SHAPES:
        print(shape_name(shape))
        print("\n".join(lines(interleave(calls(shape), budget_s=4.0))))


if __name__ == "__main__":
    main()
