"""Triton is imported when a GPU tensor needs it, and the library works where there is none."""

from __future__ import annotations

import os
import subprocess
import sys

TRAIN = """
import sys
{before}
import torch, nalu_kernels
x = torch.rand(4, 3, requires_grad=True)
layer = nalu_kernels.NALU(3, 2)
layer(x).sum().backward()
assert x.grad is not None and layer.G.grad is not None
print(nalu_kernels.which_backend(x)[0], "|", nalu_kernels.backends()["triton"].reason)
print(*(name for name in sys.modules if name.partition(".")[0] == "triton"))
"""
# As where it is not installed.
WITHOUT_TRITON = """
import importlib.abc
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            return None
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "triton" else find_spec(name, *a)
"""


def train(before: str = "", **environment: str) -> list[str]:
    merged = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", **environment}
    if "TRITON_INTERPRET" not in environment:
        merged.pop("TRITON_INTERPRET", None)
    code = TRAIN.format(before=before)
    printed = subprocess.check_output([sys.executable, "-c", code], env=merged, text=True)
    return printed.split("\n")


def test_cpu_tensors_do_not_need_it() -> None:
    which, modules, *_ = train()
    assert which == "cpu | no CUDA or ROCm device is visible to torch"
    assert modules == ""


def test_without_it_the_other_back_ends_work() -> None:
    which, modules, *_ = train(WITHOUT_TRITON, TRITON_INTERPRET="1")
    assert which == "cpu | triton is not installed (pip install triton)"
    assert modules == ""


def test_a_broken_one_is_named() -> None:
    broken = "import types; sys.modules['triton'] = broken = types.ModuleType('triton')\n"
    broken += "import importlib.machinery\n"
    broken += "broken.__spec__ = importlib.machinery.ModuleSpec('triton', None)"
    which, *_ = train(broken, TRITON_INTERPRET="1")
    assert which.startswith("cpu | triton: ImportError: cannot import name")


def test_interpreted_kernels_are_never_chosen_by_themselves() -> None:
    which, *_ = train(TRITON_INTERPRET="1")
    assert which.startswith("cpu | ")


OLD_GPU = """
import torch
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_capability = [(7, 5), (6, 1)].__getitem__
"""


def test_gpus_that_are_too_old_are_named() -> None:
    which, modules, *_ = train(OLD_GPU)
    assert which == (
        "cpu | the Triton kernels need compute capability 8.0 or newer, the GPU here has 7.5"
    )
    assert modules == ""
