"""Tensor parallelism: NAC and NALU in the plans of ``parallelize_module``.

Data parallelism, by DistributedDataParallel or ``fully_shard``, needs nothing of this: these layers
are modules like others. docs/distributed.md says what is possible and what it costs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import (
    DTensor,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import style
from torch.distributed.tensor.placement_types import Placement

from .layers import NAC, NALU

__all__ = ["ColwiseParallel", "RowwiseParallel"]


class ColwiseParallel(style.ColwiseParallel):
    """Shards a NAC or NALU by its outputs: each process computes its own of them, by the kernels.

    W_hat, M_hat, W_hat_mul, M_hat_mul and one gate per output are ``Shard(0)``; one gate per sample
    (``gate="sample"``) is replicated. Nothing is exchanged forward but what the layouts ask for;
    backward, the input's gradient is added up, and that of a gate per sample.

    Other layers get torch's style of the same name, so that one style can serve a whole plan.

    Args:
        input_layouts: how a plain input lies, ``Replicate()`` unless given. A DTensor says so
            itself.
        output_layouts: how the output is to lie, ``Shard(-1)`` unless given.
        use_local_output: return the process's own part of the output, not a DTensor.

    Raises:
        ValueError: the layer is parametrized, or a local input has not the size of its shard.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, (NAC, NALU)):
            return super()._apply(module, device_mesh)

        def placement(name: str) -> Placement:
            whole = name in ("G", "gate_bias") and getattr(module, "gate_per", "") == "sample"
            return Replicate() if whole else Shard(0)

        return _distribute(self, module, device_mesh, placement)


class RowwiseParallel(style.RowwiseParallel):
    """Shards a NAC or NALU by its inputs: each process computes its share of every sum.

    All weights are ``Shard(1)``, gate_bias is replicated. A linear NAC is all kernels, and its
    shares are added up as ``output_layouts`` asks (all-reduce or reduce-scatter; half-precision
    ones in float32, by an all-reduce). The log-space NAC and the NALU apply exp and a sigmoid to
    whole sums: an all-reduce adds these up first, and the rest is plain PyTorch.

    Other layers get torch's style of the same name, so that one style can serve a whole plan.

    Args:
        input_layouts: how a plain input lies, ``Shard(-1)`` unless given. A DTensor says so itself.
        output_layouts: how the output is to lie, ``Replicate()`` unless given.
        use_local_output: return the process's own part of the output, not a DTensor.

    Raises:
        ValueError: the layer is parametrized, or a local input has not the size of its shard.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, (NAC, NALU)):
            return super()._apply(module, device_mesh)

        def placement(name: str) -> Placement:
            return Replicate() if name == "gate_bias" else Shard(1)

        return _distribute(self, module, device_mesh, placement)


def _distribute(
    style: ColwiseParallel | RowwiseParallel, layer: NAC | NALU, mesh: DeviceMesh, placement: Any
) -> nn.Module:
    if nn.utils.parametrize.is_parametrized(layer):
        raise ValueError(
            f"{type(layer).__name__}: expected parameters of the layer's own, got parametrized "
            "ones, which are computed from others; remove the parametrizations first "
            "(torch.nn.utils.parametrize.remove_parametrizations)"
        )

    def partition(name: str, module: nn.Module, mesh: DeviceMesh) -> None:
        for key, parameter in list(module.named_parameters(recurse=False)):
            shards = distribute_tensor(
                parameter, mesh, [placement(key)], src_data_rank=style.src_data_rank
            )
            wanted = parameter.requires_grad
            module.register_parameter(key, nn.Parameter(shards, requires_grad=wanted))

    def prepare_input(layer: Any, inputs: Any, mesh: DeviceMesh) -> Any:
        if not inputs or not isinstance(inputs[0], Tensor) or isinstance(inputs[0], DTensor):
            return inputs
        return _annotated(inputs[0], mesh, style.input_layouts, layer.in_features)

    def prepare_output(layer: Any, output: Any, mesh: DeviceMesh) -> Any:
        if output.placements != style.output_layouts:
            output = output.redistribute(placements=style.output_layouts)
        return output.to_local() if style.use_local_output else output

    return distribute_module(layer, mesh, partition, prepare_input, prepare_output)


def _annotated(
    input: Tensor, mesh: DeviceMesh, layouts: tuple[Placement, ...], in_features: int
) -> DTensor:
    """A process's own input as a DTensor that lies so; shards of the features may be uneven."""
    (layout,) = layouts
    if not isinstance(layout, Shard) or layout.dim % input.dim() != input.dim() - 1:
        return DTensor.from_local(input, mesh, layouts, run_check=False)
    share = -(-in_features // mesh.size())
    mine = max(0, min(share, in_features - mesh.get_local_rank() * share))
    if input.shape[-1] != mine:
        raise ValueError(
            f"input: expected a last dimension of {mine}, process {mesh.get_local_rank()}'s shard "
            f"of in_features = {in_features} among {mesh.size()} processes, got shape "
            f"{tuple(input.shape)}"
        )
    shape = torch.Size((*input.shape[:-1], in_features))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(input, mesh, layouts, run_check=False, shape=shape, stride=stride)
