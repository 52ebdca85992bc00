"""A compact check of the CPU kernels, for a process of its own; prints which ones it checked.

test_capability.py sets its ATEN_CPU_CAPABILITY and switches off the cache of malloc.
"""

from __future__ import annotations

import sys

import torch

import nalu_kernels
from layers import KINDS, draw
from parity import check, threads
from poison import poisoned_memory

SHAPES = [(1, 1, 1), (5, 7, 3), (33, 129, 49), (2, 17, 31), (300, 2, 1), (0, 3, 2), (2, 257, 256)]


def main(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    with nalu_kernels.use_backend("cpu"), poisoned_memory(), threads(1):
        for kind in KINDS:
            for shape in SHAPES:
                check(draw(rng, kind, shape))
            for dtype in (torch.float64, torch.bfloat16, torch.float16):
                for shape in SHAPES[:3]:
                    check(draw(rng, kind, shape, dtype))
    print(torch.backends.cpu.get_cpu_capability(), nalu_kernels.backends()["cpu"].reason)


if __name__ == "__main__":
    main(int(sys.argv[1]))
