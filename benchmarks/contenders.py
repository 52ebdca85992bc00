"""Who runs: this library, eager PyTorch, torch.compile, and two floors below which none can get.

The floors are the matrix products that a layer cannot do without (as many Linear layers, of the
same shape) and an autograd.Function of the layer's inputs that computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import linear

import nalu_kernels
from nalu_kernels import reference

from .cases import FORWARD, Case
from .timing import Call

LIBRARY, EAGER, COMPILED = "nalu_kernels", "eager", "torch.compile"
LINEARS, EMPTY = "linears", "empty call"
NAMES = (LIBRARY, EAGER, COMPILED, LINEARS, EMPTY)

Function = Callable[..., Any]


class Contenders(NamedTuple):
    calls: dict[str, Call]
    skipped: dict[str, str]  # name: why it does not run here
    saved_bytes: dict[str, int]  # name: kept between forward and backward, beside the inputs


class Empty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out_features: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return tensors[0].new_empty(tensors[0].shape[0], out_features)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        saved = zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        return None, *(torch.empty_like(tensor) if need else None for tensor, need in saved)


def linears(input: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    return tuple(linear(input, weight) for weight in weights)


def layer_of(case: Case, module: Any) -> Function:
    """The layer as a function of its input and parameters, from either of the two libraries."""
    if case.layer == "nalu":
        return lambda x, W, M, G: module.nalu(x, W, M, G)
    if case.layer == "nalu untied":
        return lambda x, W, M, G, W_mul, M_mul: module.nalu(
            x, W, M, G, W_hat_mul=W_mul, M_hat_mul=M_mul
        )
    log_space = {"nac": False, "log nac": True}[case.layer]
    return lambda x, W, M: module.nac(x, W, M, log_space=log_space)


def _parameters(case: Case) -> list[Tensor]:
    _, in_features, out_features = case.shape
    layer: torch.nn.Module
    if case.layer.startswith("nalu"):
        layer = nalu_kernels.NALU(in_features, out_features, tied=case.layer == "nalu")
    else:
        layer = nalu_kernels.NAC(in_features, out_features)
    return list(layer.parameters())


def _call(case: Case, function: Function, input: Tensor, parameters: list[Tensor]) -> Call:
    if case.what == FORWARD:
        return lambda: function(input, *parameters)

    leaves = [tensor for tensor in (input, *parameters) if tensor.requires_grad]
    first = function(input, *parameters)
    outputs = len(first) if isinstance(first, tuple) else 1
    grads = (torch.randn(case.shape[0], case.shape[2]),) * outputs

    def forward_backward() -> None:
        for leaf in leaves:
            leaf.grad = None
        output = function(input, *parameters)
        torch.autograd.backward(output, grads)

    return forward_backward


def _saved_bytes(function: Function, input: Tensor, parameters: list[Tensor]) -> int:
    known = {tensor.untyped_storage().data_ptr() for tensor in (input, *parameters)}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = function(input, *parameters)  # alive until counted: no address is used twice
    del output
    return sum(saved.values())


def build(case: Case, compile: Function = torch.compile) -> Contenders:
    """The contenders of a case, warmed up; on the same input, with the same parameters.

    A forward alone is inference: build it and call it under ``torch.no_grad()``.
    """
    torch.manual_seed(0)
    batch, _, out_features = case.shape
    input = torch.randn(batch, case.shape[1], requires_grad=case.inner)
    parameters = _parameters(case)
    eager = layer_of(case, reference)
    functions = {
        LIBRARY: layer_of(case, nalu_kernels),
        EAGER: eager,
        LINEARS: linears,
        EMPTY: lambda *tensors: Empty.apply(out_features, *tensors),
    }
    products = 3 if case.layer.startswith("nalu") else 1
    weights = {LINEARS: parameters[:products]}
    calls = {
        name: _call(case, function, input, weights.get(name, parameters))
        for name, function in functions.items()
    }

    skipped = {}
    # Nothing kept from the last case's shape, and compiled for this very shape: at its best.
    torch._dynamo.reset()
    try:
        compiled = _call(case, compile(eager, dynamic=False), input, parameters)
        compiled()
        calls[COMPILED] = compiled
    except Exception as error:
        # Inductor's own exceptions differ by what is missing: a compiler, its headers, support.
        first_line = str(error).strip().partition("\n")[0]
        skipped[COMPILED] = f"{type(error).__name__}: {first_line}"

    saved = {}
    if case.what != FORWARD:
        for name in (LIBRARY, EAGER):
            saved[name] = _saved_bytes(functions[name], input, parameters)
    return Contenders({name: calls[name] for name in NAMES if name in calls}, skipped, saved)
