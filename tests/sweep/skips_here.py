"""What tests of the compiled trainer need."""

from __future__ import annotations

import pytest

import nalu_kernels

needs_trainer = pytest.mark.skipif(
    not nalu_kernels.backends()["cpu"].usable, reason="no compiled kernels here"
)
