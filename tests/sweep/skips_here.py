"""What tests of a sweep need: the operator, and packages of the extra."""

from __future__ import annotations

import pytest
import torch

import nalu_kernels

needs_trainer = pytest.mark.skipif(
    not nalu_kernels.backends()["cpu"].usable or not hasattr(torch.ops.nalu_kernels, "train"),
    reason="the binary has no operator train",
)
