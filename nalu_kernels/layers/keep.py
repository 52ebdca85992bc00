"""keep_weights: W, kept between the calls of layers whose parameters stay as they are.

In a large layer with few rows W takes longer to make than to use. Whether it is still that of the
parameters cannot be told by looking at PyTorch's counters, which miss what is written through
``.data``, NumPy or a fused optimizer; so nothing is kept but where the user says so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function

from ..dispatch import _load, select
from .base import TanhSigmoidLayer


class _Weight(NamedTuple):
    """W, and the parameters that it was made of."""

    W_hat: Tensor
    M_hat: Tensor
    W: Tensor


@dataclass
class _Kept:
    """What is kept of a layer, by the name of its W_hat, within this many blocks."""

    blocks: int = 0
    weights: dict[str, _Weight] = field(default_factory=dict)


_layers: WeakKeyDictionary[TanhSigmoidLayer, _Kept] = WeakKeyDictionary()
_lock = threading.Lock()
# Whether there are any, which is all that a call elsewhere pays for.
active = False


@contextmanager
def keep_weights(model: nn.Module) -> Iterator[None]:
    r"""Has a model's layers make :math:`W = \tanh(\hat W) \odot \sigma(\hat M)` once in a block::

        with torch.no_grad(), nalu_kernels.keep_weights(model):
            for x in batches:
                y = model(x)

    It is a context and nothing else: a call of it without ``with`` does nothing.

    One rule: within the block the parameters stay as they are. If they have changed when it ends,
    it says so. Weights that are swapped in the block and swapped back (an average of weights for a
    test) it cannot see: swap them outside.

    It is for calls without gradients, of float32 and float64 layers on the CPU's compiled kernels:
    the same bits, sooner where W is large and rows are few. Other calls, and layers whose
    parameters are parametrized, shared out (DTensors) or swapped by ``torch.func.functional_call``,
    are computed as they are outside. Kept are out_features x in_features numbers a layer, twice
    that where weights are untied, until the block ends.

    Args:
        model: a :class:`nalu_kernels.NAC`, a :class:`nalu_kernels.NALU`, or a module that holds
            some.

    Raises:
        TypeError: model is not a module.
        RuntimeError: at the block's end, parameters are not those that W was made of; it names
            the layers, whose outputs may have been those of old weights.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    global active
    named = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, TanhSigmoidLayer)
    ]
    with _lock:
        for _, layer in named:
            _layers.setdefault(layer, _Kept()).blocks += 1
        active = bool(_layers)
    changed = []
    try:
        yield
        changed = [name or "the model itself" for name, layer in named if _changed(_layers[layer])]
    finally:
        with _lock:
            for _, layer in named:
                _layers[layer].blocks -= 1
                if not _layers[layer].blocks:
                    del _layers[layer]
            active = bool(_layers)
    if changed:
        raise RuntimeError(
            f"keep_weights: the parameters of {', '.join(changed)} have changed within the block; "
            "outputs may have been those of the old ones"
        )


@torch.no_grad()
def _changed(kept: _Kept) -> bool:
    for W_hat, M_hat, W in kept.weights.values():
        if W_hat.dtype != W.dtype or W_hat.device != W.device or W_hat.shape != W.shape:
            return True
        now = torch.ops.nalu_kernels.transform(W_hat, M_hat)
        if not ((now == W) | (now.isnan() & W.isnan())).all():
            return True
    return False


def nac(layer: Any, input: Tensor) -> Tensor | None:
    """What the layer returns, by the W that is kept; None if that is not how it is computed."""
    try:
        kept = _kept(layer, input)
        if kept is None:
            return None
        W = _weight(kept, layer, "W_hat", "M_hat")
        return torch.ops.nalu_kernels.nac_of_W(layer.eps, layer.log_space, input, W)
    except RuntimeError:  # the usual way has the words for what is wrong
        return None


def nalu(layer: Any, input: Tensor) -> Tensor | None:
    """As :func:`nac`."""
    try:
        kept = _kept(layer, input)
        if kept is None:
            return None
        W = _weight(kept, layer, "W_hat", "M_hat")
        W_mul = None if layer.tied else _weight(kept, layer, "W_hat_mul", "M_hat_mul")
        own = layer._parameters
        return torch.ops.nalu_kernels.nalu_of_W(
            layer.eps, input, W, own["G"], own["gate_bias"], W_mul
        )
    except RuntimeError:
        return None


def _kept(layer: Any, input: Tensor) -> _Kept | None:
    """What is kept of the layer, if a plain tensor meets the CPU's kernels, without gradients, and
    parameters that are the layer's own."""
    kept = _layers.get(layer)
    W_hat = layer._parameters.get("W_hat")
    applies = (
        kept is not None
        and not torch.is_grad_enabled()
        and type(input) is Tensor
        and not has_torch_function((input,))  # of a mode, which is to see each call
        and W_hat is not None
        and W_hat.dim() == 2  # not of units
        and type(layer.eps) is float  # an operator would take True for 1.0
        and W_hat.dtype in (torch.float32, torch.float64)
        and all(type(given) in (nn.Parameter, NoneType) for given in layer._parameters.values())
        and not torch._C._is_any_autocast_enabled()
        and _is_for_the_cpu(input)
    )
    return kept if applies else None


def _is_for_the_cpu(input: Tensor) -> bool:
    operators = select(input)
    return operators is not None and operators is _load("cpu")[0]


def _weight(kept: _Kept, layer: Any, W_name: str, M_name: str) -> Tensor:
    W_hat, M_hat = layer._parameters[W_name], layer._parameters[M_name]
    found = kept.weights.get(W_name)
    if found is None:
        W = torch.ops.nalu_kernels.transform(W_hat, M_hat)
        found = kept.weights[W_name] = _Weight(W_hat, M_hat, W)
    if found.W_hat is W_hat and found.M_hat is M_hat:
        return found.W
    return torch.ops.nalu_kernels.transform(W_hat, M_hat)  # swapped for others
