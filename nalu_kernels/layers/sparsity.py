"""How far weights are from the -1, 0 and 1 that make a formula."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import is_dtensor
from .base import Layer


def sparsity_error(model: nn.Module) -> float:
    r"""The largest distance of a weight of the model's layers from the nearest of -1, 0, 1.

    .. math::
        \max_{i,j} \; \min(|W_{ij}|,\; |1 - |W_{ij}||)

    of every layer's W (an NAU's as it is used, clamped), of W_mul where a NALU's or an iNALU's
    weights are untied, and of an NPU's W_re, W_im and clamped gate: 0 where all weights are whole,
    and at most 0.5 where none is beyond ±1. NaN if a weight is NaN. Where weights are DTensors,
    every process has to call it.

    Args:
        model: a layer, or a module that holds layers (also in cells) anywhere.

    Raises:
        TypeError: model is not a module.
        ValueError: it holds no layer that has weights.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 4.1 (sparsity error).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    with torch.no_grad():
        weights = [
            weight
            for layer in model.modules()
            if isinstance(layer, Layer)
            for weight in layer._weights()
            if weight.numel()
        ]
        if not weights:
            raise ValueError(
                "model: expected a layer of this library with weights in it, found none"
            )
        return torch.stack([_farthest(weight).cpu().double() for weight in weights]).max().item()


def _farthest(W: Tensor) -> Tensor:
    size = W.abs()
    farthest = torch.minimum(size, (1 - size).abs()).max()
    return farthest.full_tensor() if is_dtensor(farthest) else farthest  # type: ignore[attr-defined]
