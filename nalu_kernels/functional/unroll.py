"""unroll(): a layer as a recurrent cell, all steps of a sequence in one call."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..autocast import widen
from ..checks import check_flag, check_sequence
from ..dispatch import has_kernels
from ..family import NPU, OVER_TIME
from ..reference.unroll import unroll as by_steps
from .call import call
from .npu import eps_of


class Cell(NamedTuple):
    """What there is to know of a cell; torch.fx can write it into a graph."""

    layer: str  # the layer's function
    options: tuple[Any, ...]  # of the layer's function, and its tensors but the input
    tensors: list[Any]
    input_size: int
    hidden_size: int


def unroll(
    cell: Cell,
    input: Tensor,
    hx: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    last_only: bool = False,
) -> Tensor:
    """A cell's ``unroll``, whose arguments, result and errors these are.

    One call of a kernel where the input's back end has one, else a call of the layer for each step.
    """
    relevant = (input, hx, lengths, reset, *cell.tensors)
    if has_torch_function(relevant):
        states: dict[str, Any] = {"lengths": lengths, "reset": reset, "last_only": last_only}
        return handle_torch_function(unroll, relevant, cell, input, hx, **states)
    check_sequence(input, hx, lengths, reset, cell.input_size, cell.hidden_size)
    last_only = check_flag("last_only", last_only)
    if input.dim() == 3:
        return _of_rows(cell, input, (hx, lengths, reset), last_only)
    rows = (
        None if hx is None else hx.unsqueeze(0),
        None if lengths is None else lengths.reshape(1),
        None if reset is None else reset.unsqueeze(1),
    )
    return _of_rows(cell, input.unsqueeze(1), rows, last_only).squeeze(-2)


def _of_rows(
    cell: Cell,
    input: Tensor,
    states: tuple[Tensor | None, Tensor | None, Tensor | None],
    last_only: bool,
) -> Tensor:
    """The states of h' = layer([x, h]), as ``reference.unroll`` has them."""
    function, tensors, options = OVER_TIME[cell.layer], cell.tensors, cell.options
    if function.layer is NPU:
        options = (eps_of(options[0], input), *options[1:])
    missing = [None] * (len(function.layer.tensors) - 1 - len(tensors))
    given = (input, *tensors, *missing, *states)
    while given[-1] is None:  # an operator's default, and less to pass
        given = given[:-1]
    if has_kernels(input, function.name):
        return call(function, (*options, last_only), given)
    function.check(*options, last_only, *widen(*given)[1])
    hx, lengths, reset = states

    def layer(input: Tensor) -> Tensor:
        return call(function.layer, options, (input, *tensors))

    W = tensors[0]
    if hx is None and W is not None:
        hx = input.new_zeros((input.shape[1], W.shape[0]))
    return by_steps(layer, input=input, hx=hx, lengths=lengths, reset=reset, last_only=last_only)
