r"""The family's functions of DTensors: every process runs the kernels on its own shards.

What is computed along a dimension of the mesh follows from how the weights lie on it:

=================  ===============  ==================  ===========================================
weights            input            output              gradients
=================  ===============  ==================  ===========================================
``Replicate()``    as it is         as the input        of weights: sums over the batch's shards
``Shard(0)``       ``Replicate()``  ``Shard(-1)``       of the input: a sum over the outputs' shards
``Shard(1)``       ``Shard(-1)``    ``Partial()`` or    whole
                                    ``Replicate()``
=================  ===============  ==================  ===========================================

Where the inputs are sharded, a process knows but its share of each sum. With R processes

.. math::
    a = \sum_r x_r W_r^\top, \qquad
    \log m = \sum_r \log(|x_r| + \epsilon) W_r^\top, \qquad
    z = \sum_r x_r G_r^\top

A linear NAC is done then: its output is ``Partial()``. All else applies exp or a sigmoid to the
whole sum, so the sums are added up first, in one all-reduce. (The product of the processes' exp
would be the same number, but overflows where one process's factor does; and the gradient of every
share takes the whole y, which no process would have.) exp, sigmoid and mixing are plain PyTorch
then; the products with W stay the kernels'.

Of the functions after NALU no inputs are sharded: most of them multiply over all inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement
from torch.nn.functional import linear

from .autocast import disabled, wide
from .execute import execute
from .family import NAC, NALU, Function

_REPLICATE, _OUTPUTS, _INPUTS = Replicate(), Shard(0), Shard(1)


def execute_sharded(
    function: Function, options: tuple[Any, ...], tensors: tuple[Any, ...]
) -> Tensor:
    """The function's output of DTensors, whose types and shapes have been checked.

    Raises:
        ValueError: the tensors lie on several meshes, or in a way that has no meaning here.
    """
    own = _OWN.get(function.name)
    return _by_outputs(function, options, tensors) if own is None else own(*options, *tensors)


def _by_outputs(function: Function, options: tuple[Any, ...], tensors: tuple[Any, ...]) -> Tensor:
    """Each process has the outputs, or the rows of the batch, whose shards it has."""
    input, *weights = tensors
    named = dict(zip(function.tensors[1:], weights))  # noqa: B905 - some may be left out
    first, W = function.weights[0], weights[0]
    _check_mesh(input, named)
    if not {_REPLICATE, _OUTPUTS}.issuperset(W.placements):
        raise ValueError(
            f"{first}: expected Replicate() or Shard(dim=0) (outputs) along every dimension of the "
            f"mesh, for {function.name} takes all inputs at once, got {W.placements}; "
            f"{first}.redistribute(placements=...) lays it so"
        )
    for name, weight in named.items():
        if weight is not None:
            shared = name in function.per_input or weight.shape[0] != W.shape[0]
            lie = _replacing(W.placements, _OUTPUTS) if shared else tuple(W.placements)
            _check_placements(name, weight, lie)
    plan = _plan(input, {first: W}, None, None)
    local = [weight if weight is None else plan.local(weight) for weight in weights]
    with disabled(input):
        return plan.whole(execute(function, options, (plan.local_input(input), *local)))


def nac(eps: float, log_space: bool, input: Any, W_hat: Any, M_hat: Any) -> Tensor:
    """As :func:`execute_sharded`."""
    weights = {"W_hat": W_hat, "M_hat": M_hat}
    plan = _plan(input, weights, None, None)
    x, W, M = plan.local_input(input), plan.local(W_hat), plan.local(M_hat)
    with disabled(input):
        if not plan.summed:
            return plan.whole(execute(NAC, (eps, log_space), (x, W, M)))
        if not log_space and wide(x) is x:
            return plan.shares(_linear_nac(x, W, M))
        x, W, M = wide(x), wide(W), wide(M)
        if log_space:
            y = torch.exp(plan.added_up(_linear_nac(_log(x, eps), W, M)))
        else:
            y = plan.added_up(_linear_nac(x, W, M))
        return plan.whole(y.to(input.dtype))


def nalu(
    eps: float,
    input: Any,
    W_hat: Any,
    M_hat: Any,
    G: Any,
    gate_bias: Any = None,
    W_hat_mul: Any = None,
    M_hat_mul: Any = None,
) -> Tensor:
    """As :func:`execute_sharded`."""
    weights = {"W_hat": W_hat, "M_hat": M_hat}
    if W_hat_mul is not None and M_hat_mul is not None:
        weights |= {"W_hat_mul": W_hat_mul, "M_hat_mul": M_hat_mul}
    plan = _plan(input, weights, G, gate_bias)
    x = plan.local_input(input)
    W, M, *mul = (plan.local(weight) for weight in weights.values())
    gate, bias = plan.local(G), None if gate_bias is None else plan.local(gate_bias)
    with disabled(input):
        if not plan.summed:
            return plan.whole(execute(NALU, (eps,), (x, W, M, gate, bias, *(mul or (None, None)))))
        x, W, M, gate, bias, *mul = map(wide, (x, W, M, gate, bias, *mul))
        a = _linear_nac(x, W, M)
        log_m = _linear_nac(_log(x, eps), *(mul or (W, M)))
        z = linear(x, gate)
        sums = plan.added_up(torch.cat([a, log_m, z], -1))
        a, log_m, z = sums.split([a.shape[-1], log_m.shape[-1], z.shape[-1]], -1)
        g = torch.sigmoid(z if bias is None else z + bias)
        return plan.whole((g * a + (1 - g) * torch.exp(log_m)).to(input.dtype))


_OWN: dict[str, Callable[..., Tensor]] = {"nac": nac, "nalu": nalu}


def _linear_nac(x: Tensor, W_hat: Tensor, M_hat: Tensor) -> Tensor:
    return execute(NAC, (1.0, False), (x, W_hat, M_hat))  # whose eps is of no use


def _log(x: Tensor, eps: float) -> Tensor:
    return torch.log(torch.abs(x) + eps)


class _Along(NamedTuple):
    """What is computed along one dimension of the mesh."""

    input: Placement  # what the input is to be
    output: Placement  # what comes out, unless sums are to be added up
    grad_input: Placement
    grads_are_shares: bool  # of what is replicated among the parameters
    summed: bool  # over shards of the inputs


class _Plan(NamedTuple):
    """What is computed, along every dimension of the mesh."""

    input: DTensor
    out_features: int
    along: tuple[_Along, ...]

    @property
    def summed(self) -> bool:
        return any(along.summed for along in self.along)

    def local_input(self, input: DTensor) -> Tensor:
        wanted = [along.input for along in self.along]
        return _local(input, wanted, [along.grad_input for along in self.along])

    def local(self, parameter: DTensor) -> Tensor:
        return _local(
            parameter,
            parameter.placements,
            [
                Partial() if along.grads_are_shares and placement.is_replicate() else placement
                for along, placement in zip(self.along, parameter.placements, strict=True)
            ],
        )

    def added_up(self, shares: Tensor) -> Tensor:
        """The sums over all shards of the inputs, of which this process has these shares."""
        # The mesh's other dimensions take no part: nothing is exchanged along what is replicated.
        mesh = self.input.device_mesh
        before = [Partial() if along.summed else _REPLICATE for along in self.along]
        after = [_REPLICATE] * mesh.ndim
        added: DTensor = DTensor.from_local(shares, mesh, before, run_check=False)
        # Each process goes on with the whole sums, so it has the whole of their gradients.
        return added.redistribute(placements=after).to_local(grad_placements=after)

    def shares(self, local: Tensor) -> Tensor:
        """The output, of which this process has this share."""
        return self._output(local, [Partial() if a.summed else a.output for a in self.along])

    def whole(self, local: Tensor) -> Tensor:
        """The output, of which this process has this shard."""
        return self._output(local, [along.output for along in self.along])

    def _output(self, local: Tensor, placements: Sequence[Placement]) -> Tensor:
        if local.requires_grad:
            local.register_hook(_refuse_graph)
        shape = torch.Size((*self.input.shape[:-1], self.out_features))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            local,
            self.input.device_mesh,
            placements,
            run_check=False,
            shape=shape,
            stride=stride,
        )


def _refuse_graph(grad: Tensor) -> None:
    """The ways between tensors and DTensors lose or miscount gradients of gradients: torch 2.11
    returns None for them, torch 2.13 counts those of an all-reduce wrongly."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "functions of DTensors: no gradients of gradients (create_graph=True); for these, "
            "call them with plain tensors"
        )


def _local(
    tensor: DTensor, placements: Sequence[Placement], grad_placements: Sequence[Placement]
) -> Tensor:
    """This process's part of a tensor once it is placed so; its gradient's lie is given."""
    # Redistributing what lies right already costs nothing forward; backward it turns the gradient
    # into one that lies like the tensor, where a leaf would keep a sum that is not added up.
    if tensor.placements != tuple(placements) or tensor.placements != tuple(grad_placements):
        tensor = tensor.redistribute(placements=placements)
    return tensor.to_local(grad_placements=grad_placements)


def _plan(
    input: DTensor, weights: dict[str, DTensor], G: DTensor | None, gate_bias: DTensor | None
) -> _Plan:
    W_hat = next(iter(weights.values()))
    _check_mesh(input, {**weights, "G": G, "gate_bias": gate_bias})
    for name, weight in weights.items():
        _check_placements(name, weight, W_hat.placements)
    if G is not None:
        _check_gate(G, gate_bias, W_hat)
    last = input.dim() - 1
    along = (
        _along(given, weight, last)
        for given, weight in zip(input.placements, W_hat.placements, strict=True)
    )
    return _Plan(input, W_hat.shape[0], tuple(along))


def _along(input: Placement, weight: Placement, last: int) -> _Along:
    if weight == _OUTPUTS:
        return _Along(_REPLICATE, Shard(last), Partial(), True, False)
    if weight == _INPUTS:
        return _Along(Shard(last), _REPLICATE, Shard(last), False, True)
    if weight != _REPLICATE:
        raise ValueError(
            f"W_hat: expected Replicate(), Shard(dim=0) (outputs) or Shard(dim=1) (inputs) along "
            f"every dimension of the mesh, got {weight}"
        )
    if type(input) is Shard and input.dim < last:
        return _Along(input, input, input, True, False)
    return _Along(_REPLICATE, _REPLICATE, _REPLICATE, False, False)


def _check_mesh(input: DTensor, parameters: dict[str, DTensor | None]) -> None:
    for name, parameter in parameters.items():
        if parameter is not None and parameter.device_mesh != input.device_mesh:
            raise ValueError(
                f"{name}: expected the mesh of input, {input.device_mesh}, "
                f"got {parameter.device_mesh}"
            )


def _check_placements(name: str, tensor: DTensor, *expected: tuple[Placement, ...]) -> None:
    if tensor.placements not in expected:
        wanted = " or ".join(map(str, expected))
        raise ValueError(f"{name}: expected placements {wanted}, got {tensor.placements}")


def _check_gate(G: DTensor, gate_bias: DTensor | None, W_hat: DTensor) -> None:
    """A gate per output lies like the weights; a gate per sample is wanted whole by every shard of
    the outputs. So are their biases, and by every shard of the inputs."""
    like_weights = tuple(W_hat.placements)
    expected = []
    if G.shape[0] == W_hat.shape[0]:
        expected.append(like_weights)
    if G.shape[0] == 1:
        expected.append(_replacing(like_weights, _OUTPUTS))
    _check_placements("G", G, *expected)
    if gate_bias is not None:
        _check_placements("gate_bias", gate_bias, _replacing(G.placements, _INPUTS))


def _replacing(placements: Sequence[Placement], placement: Placement) -> tuple[Placement, ...]:
    return tuple(_REPLICATE if found == placement else found for found in placements)
