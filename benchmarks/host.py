"""The host's time for a call of the Triton back end, measured without a GPU.

    python -m benchmarks.host

Everything is done but the launch itself: the driver's few microseconds for each kernel are not in
these figures. Tiny layers take as long as this on any GPU, unless a CUDA graph replays them. The
floor is an autograd.Function that does nothing.
"""

from __future__ import annotations

import statistics

import torch
from torch import Tensor

from nalu_kernels.autograd import with_gradients
from nalu_kernels.operators import Operators
from nalu_kernels.triton import launch

from .contenders import EMPTY, Empty
from .stubbed_gpu import pretend
from .timing import Call, interleave

SHAPES = ((64, 2, 1), (128, 100, 2), (128, 100, 100), (4096, 1024, 1024))
REPEATED, NEW = "repeated", "with its recipe made anew"


def calls(operators: Operators, shape: tuple[int, int, int]) -> dict[str, Call]:
    """Forward and backward of a tied NALU."""
    B, I, O = shape  # noqa: E741
    x = torch.rand(B, I, requires_grad=True)
    parameters = [torch.rand(O, I, requires_grad=True) for _ in range(3)]
    tensors = (x, *parameters)
    dy = torch.rand(B, O)

    def backward(y: Tensor) -> None:
        torch.autograd.grad(y, tensors, dy)

    def new() -> None:
        launch.forward.cache_clear()
        launch.backward.cache_clear()
        backward(with_gradients["nalu"](operators["nalu"], 1e-7, *tensors))

    return {
        REPEATED: lambda: backward(with_gradients["nalu"](operators["nalu"], 1e-7, *tensors)),
        NEW: new,
        EMPTY: lambda: backward(Empty.apply(O, *tensors)),
    }


def main() -> None:
    torch.set_num_threads(1)
    print("Forward and backward of a tied NALU, median microseconds of the host:")
    launches: list[object] = []
    operators = pretend(lambda *_: launches.append(None))
    for shape in SHAPES:
        contenders = calls(operators, shape)
        for name in (REPEATED, NEW):  # compiled before
            contenders[name]()
        launches.clear()
        contenders[REPEATED]()
        count = len(launches)
        samples = interleave(contenders, budget_s=3.0)
        figures = {name: 1e6 * statistics.median(times) for name, times in samples.items()}
        text = ", ".join(f"{name} {figure:.1f}" for name, figure in figures.items())
        print(f"  {shape[0]}x{shape[1]}->{shape[2]}, {count} launches: {text}")


if __name__ == "__main__":
    main()
