"""Triton's products over the inputs: memory, and batches in parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator

pytest.importorskip("triton", reason="triton is not installed")

import nalu_kernels
from conftest import Backend
from nalu_kernels import reference
from nalu_kernels.triton import launch_reduction, tiles
from nalu_kernels.triton.arguments import describe
from nalu_kernels.triton.device import Chip
from selection import only


@pytest.mark.parametrize("family", tiles.FAMILIES)
def test_a_backward_has_no_room_for_every_factor(family: str) -> None:
    B, I, O = 1024, 256, 256  # noqa: E741
    x, W, y = (torch.empty(shape, device="meta") for shape in ((B, I), (O, I), (B, O)))
    call = (Chip(family, 132), "nmu", 0.0, (describe(x), describe(W)))
    recipe = launch_reduction.backward(
        3, describe(y), describe(torch.empty(0, device="meta")), *call
    )
    assert sum(math.prod(room.shape) for room in recipe.rooms) < B * I * O / 4


@only(lambda backend: backend.interpreted)
def test_a_batch_in_one_part_and_in_several(
    backend: Backend, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same gradients, and the same bits in every run."""
    B, I, O = 21, 5, 3  # noqa: E741
    tensors = [torch.randn(shape, generator=rng).double() for shape in ((B, I), (O, I))]
    x, W = (tensor.requires_grad_() for tensor in tensors)
    expected = torch.autograd.grad(reference.nmu(x, W).sum(), (x, W))
    monkeypatch.setattr(tiles, "reduction", lambda *_: tiles.Tile(4, 2, 2, 4, 1))
    for splits in ((1, 6), (3, 2)):
        monkeypatch.setattr(tiles, "reduction_splits", lambda *_, splits=splits: splits)
        launch_reduction.backward.cache_clear()
        launch_reduction.forward.cache_clear()
        found, again = (torch.autograd.grad(nalu_kernels.nmu(x, W).sum(), (x, W)) for _ in "12")
        assert all(map(torch.equal, found, again))
        torch.testing.assert_close(found, expected)
    launch_reduction.backward.cache_clear()
    launch_reduction.forward.cache_clear()
