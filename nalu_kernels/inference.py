"""W, kept between the calls of a layer that is not being trained.

In eval() and without gradients a layer's W stays what it is, and in a large layer with few rows it
takes longer to make than to use. So the CPU's kernels keep it, until a parameter has been replaced
or changed in place, which PyTorch counts (``Tensor._version``). Fused optimizers change parameters
uncounted: after a step of any optimizer nothing is kept, nor after a call with gradients, nor when
the layer's mode is set. docs/inference.md says what cannot be noticed.
"""

from __future__ import annotations

import functools
from types import NoneType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from .dispatch import _load, select
from .operators import Operators


class _Kept(NamedTuple):
    """``W``, as long as the parameters are these objects, with this memory and in these versions.
    The memory is kept too, so that no other tensor gets its address."""

    parameters: tuple[Tensor, Tensor]
    memory: tuple[Tensor, Tensor]
    versions: tuple[int, int]
    W: Tensor

    def is_of(self, W_hat: Tensor, M_hat: Tensor) -> bool:
        return (
            self.parameters[0] is W_hat
            and self.parameters[1] is M_hat
            and self.versions == (W_hat._version, M_hat._version)
            and self.memory[0].data_ptr() == W_hat.data_ptr()
            and self.memory[1].data_ptr() == M_hat.data_ptr()
        )


_kept: WeakKeyDictionary[nn.Module, dict[str, _Kept]] = WeakKeyDictionary()


@functools.cache
def _forget_at_steps() -> None:
    register_optimizer_step_post_hook(lambda *_: _kept.clear())


def forget(layer: nn.Module) -> None:
    """Has W made anew at the next call."""
    _kept.pop(layer, None)


def nac(layer: Any, input: Tensor) -> Tensor | None:
    """What the layer returns, by the W that is kept; None if that is not how it is computed."""
    try:
        if torch.is_grad_enabled():
            forget(layer)
            return None
        if not _applies(layer, input):
            return None
        W = _weight(layer, "W_hat", "M_hat")
        return torch.ops.nalu_kernels.nac_of_W(layer.eps, layer.log_space, input, W)
    except RuntimeError:  # the usual way has the words for what is wrong
        return None


def nalu(layer: Any, input: Tensor) -> Tensor | None:
    """What the layer returns, by the W that is kept; None if that is not how it is computed."""
    try:
        if torch.is_grad_enabled():
            forget(layer)
            return None
        if not _applies(layer, input):
            return None
        W = _weight(layer, "W_hat", "M_hat")
        W_mul = None if layer.tied else _weight(layer, "W_hat_mul", "M_hat_mul")
        parameters = layer._parameters
        return torch.ops.nalu_kernels.nalu_of_W(
            layer.eps, input, W, parameters["G"], parameters["gate_bias"], W_mul
        )
    except RuntimeError:
        return None


def _applies(layer: Any, input: Tensor) -> bool:
    """Whether a plain tensor meets the CPU's kernels and parameters that are the layer's own."""
    W_hat = layer._parameters.get("W_hat")
    return (
        type(input) is Tensor
        and W_hat is not None
        and type(layer.eps) is float  # an operator would take True for 1.0
        and W_hat.dtype in (torch.float32, torch.float64)
        and all(type(given) in (nn.Parameter, NoneType) for given in layer._parameters.values())
        and not torch._C._is_any_autocast_enabled()
        and not _memory_may_be_filled()
        and _is_for_the_cpu(select(input))
    )


def _is_for_the_cpu(operators: Operators | None) -> bool:
    return operators is not None and operators is _load("cpu")[0]


def _memory_may_be_filled() -> bool:
    """Whether other processes' numbers may come into parameters uncounted, as ``fully_shard`` has
    them come at every call: into the same objects, memory and versions."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _weight(layer: Any, W_name: str, M_name: str) -> Tensor:
    parameters = layer._parameters
    W_hat, M_hat = parameters[W_name], parameters[M_name]
    of_layer = _kept.setdefault(layer, {})
    kept = of_layer.get(W_name)
    if kept is None or not kept.is_of(W_hat, M_hat):
        versions = (W_hat._version, M_hat._version)  # first: a change from here on is noticed
        W = torch.ops.nalu_kernels.transform(W_hat, M_hat)
        if W_hat.is_shared() or M_hat.is_shared():  # another process may change them, uncounted
            return W
        _forget_at_steps()
        kept = _Kept((W_hat, M_hat), (W_hat.detach(), M_hat.detach()), versions, W)
        of_layer[W_name] = kept
    return kept.W
