"""NAC and NALU on DTensors, and the styles that make a layer's parameters such.

Column-wise (each rank has some of the outputs) a layer is its fused kernels on each rank's columns.
Row-wise (each rank has some of the inputs) the paths' sums are over ranks and have to be complete
before exp and the gate's sigmoid: the paths' products are the kernels', and PyTorch mixes them.
docs/distributed.md has the table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)
from torch.distributed.tensor import parallel as torch_parallel

from . import functional
from .checks import check_nac, check_nalu
from .modules import NAC, NALU


class ColwiseParallel(torch_parallel.ColwiseParallel):
    """torch.distributed.tensor.parallel.ColwiseParallel, for NAC and NALU too: each rank has the
    weights of some of the outputs.

    A gate per sample is everybody's. Arguments and defaults are torch's: the input is replicated,
    the output sharded on its last dimension.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, (NAC, NALU)):
            return super()._apply(module, device_mesh)
        everybodys = {"G", "gate_bias"} if getattr(module, "gate", "") == "sample" else set()
        return _distribute(self, module, device_mesh, Shard(0), everybodys)


class RowwiseParallel(torch_parallel.RowwiseParallel):
    """torch.distributed.tensor.parallel.RowwiseParallel, for NAC and NALU too: each rank has the
    weights of some of the inputs.

    A NALU's three sums, and a log-space NAC's, are completed over the ranks before they are mixed
    (docs/distributed.md). Arguments and defaults are torch's: the input is sharded on its last
    dimension, the output replicated.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, (NAC, NALU)):
            return super()._apply(module, device_mesh)
        self.desired_input_layouts = (Shard(-1),)
        return _distribute(self, module, device_mesh, Shard(1), {"gate_bias"})


def _distribute(
    style: Any, module: nn.Module, mesh: DeviceMesh, shard: Shard, everybodys: set[str]
) -> nn.Module:
    def shard_parameters(_: str, part: nn.Module, mesh: DeviceMesh) -> None:
        for name, parameter in part.named_parameters(recurse=False):
            placement = Replicate() if name in everybodys else shard
            tensor = distribute_tensor(
                parameter.detach(), mesh, [placement], src_data_rank=style.src_data_rank
            )
            wrapped = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
            part.register_parameter(name, wrapped)

    return distribute_module(
        module,
        mesh,
        shard_parameters,
        partial(style._prepare_input_fn, style.input_layouts, style.desired_input_layouts),
        partial(style._prepare_output_fn, style.output_layouts, style.use_local_output),
    )


def nac(input: Any, W_hat: Any, M_hat: Any, *, log_space: bool, eps: float) -> Tensor:
    """:func:`nalu_kernels.nac` of DTensors."""
    _check_kind(input=input, W_hat=W_hat, M_hat=M_hat)
    check_nac(input, W_hat, M_hat, log_space, eps)
    if log_space and _is_row_wise(W_hat):
        return _product(input, W_hat, M_hat, eps)
    function = partial(functional.nac, log_space=log_space, eps=eps)
    return _on_shards(function, input, W_hat=W_hat, M_hat=M_hat)


def nalu(
    input: Any,
    W_hat: Any,
    M_hat: Any,
    G: Any,
    gate_bias: Any,
    W_hat_mul: Any,
    M_hat_mul: Any,
    eps: float,
) -> Tensor:
    """:func:`nalu_kernels.nalu` of DTensors."""
    weights = {"W_hat": W_hat, "M_hat": M_hat, "G": G}
    options = {"gate_bias": gate_bias, "W_hat_mul": W_hat_mul, "M_hat_mul": M_hat_mul}
    weights |= {name: tensor for name, tensor in options.items() if tensor is not None}
    _check_kind(input=input, **weights)
    check_nalu(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps)
    if not _is_row_wise(W_hat):
        return _on_shards(partial(functional.nalu, eps=eps), input, **weights)
    a = _complete(_on_shards(functional.nac, input, W_hat=W_hat, M_hat=M_hat))
    tied = W_hat_mul is None
    m = _product(input, W_hat if tied else W_hat_mul, M_hat if tied else M_hat_mul, eps)
    z = _complete(_on_shards(_linear, input, W_hat=G))
    g = torch.sigmoid(z if gate_bias is None else z + gate_bias)
    return g * a + (1 - g) * m


def _product(input: Any, W_hat: Any, M_hat: Any, eps: float) -> Tensor:
    """Row-wise: the logarithms' sums, completed over the ranks before exp."""
    logs = torch.log(torch.abs(_complete(input)) + eps)
    return torch.exp(_complete(_on_shards(functional.nac, logs, W_hat=W_hat, M_hat=M_hat)))


def _linear(input: Tensor, W_hat: Tensor) -> Tensor:
    return nn.functional.linear(input, W_hat)


def _check_kind(**tensors: object) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            raise TypeError(
                f"{name}: expected a DTensor, as others of the arguments are, "
                f"got {type(tensor).__name__}"
            )


def _is_row_wise(W_hat: Any) -> bool:
    return any(placement.is_shard(1) for placement in W_hat.placements)


def _complete(tensor: Any) -> Any:
    """Sums that the ranks have parts of are made."""
    done = [Replicate() if each.is_partial() else each for each in tensor.placements]
    return tensor.redistribute(placements=done)


def _on_shards(function: Callable[..., Tensor], input: Any, **weights: Any) -> Any:
    """The function of each rank's shards, of a layer whose ``W_hat`` says how it is sharded."""
    W_hat = _complete(weights["W_hat"])
    out_features, last = W_hat.shape[0], input.dim() - 1
    # For each dimension of the mesh, the placements of the input, its gradient and the output.
    of_input: list[Placement] = []
    of_gradient: list[Placement] = []
    of_output: list[Placement] = []
    for x, w in zip(input.placements, W_hat.placements, strict=True):
        if w.is_shard(0):  # each rank its outputs, and so its part of the input's gradient
            of_input.append(Replicate())
            of_gradient.append(Partial())
            of_output.append(Shard(last))
        elif w.is_shard(1):  # each rank its inputs, and so its part of the output
            of_input.append(Shard(last))
            of_gradient.append(Shard(last))
            of_output.append(Partial())
        else:  # each rank its rows, or all
            rows = x if x.is_shard() and not x.is_shard(last) else Replicate()
            for placements in (of_input, of_gradient, of_output):
                placements.append(rows)

    def local(weight: Any) -> Tensor:
        placements: list[Placement] = []
        gradient: list[Placement] = []
        for x, w in zip(of_input, W_hat.placements, strict=True):
            # A gate per sample is everybody's, and each rank has its part of the gradient.
            everybodys = w.is_shard(0) and weight.shape[0] != out_features
            placements.append(Replicate() if everybodys else w)
            apart = everybodys or (w.is_replicate() and x.is_shard())
            gradient.append(Partial() if apart else placements[-1])
        return weight.redistribute(placements=placements).to_local(grad_placements=gradient)

    x = input.redistribute(placements=of_input).to_local(grad_placements=of_gradient)
    y = function(x, **{name: local(weight) for name, weight in weights.items()})
    shape = torch.Size((*input.shape[:-1], out_features))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        y, W_hat.device_mesh, of_output, run_check=False, shape=shape, stride=stride
    )
