"""network(): cells one above the other over whole sequences, with torch.nn.RNN's habits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.overrides import handle_torch_function, has_torch_function

from ..checks import check_network
from .unroll import Cell, unroll

Output = tuple[Tensor | PackedSequence, Tensor]


def network(
    cells: list[Cell],
    input: Tensor | PackedSequence,
    hx: Tensor | None = None,
    *,
    batch_first: bool = False,
) -> Output:
    """(output, h_n): all states of the uppermost cell, and the last state of each.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.
    """
    relevant = (input, hx, *(tensor for cell in cells for tensor in cell.tensors))
    if has_torch_function(relevant):
        return handle_torch_function(network, relevant, cells, input, hx, batch_first=batch_first)
    check_network(input, hx, cells[0].input_size, cells[0].hidden_size, len(cells))
    if isinstance(input, PackedSequence):
        return _packed(cells, input, hx)
    steps_second = batch_first and input.dim() == 3
    x = input.transpose(0, 1) if steps_second else input
    output, h_n = _stack(cells, x, hx, None)
    return (output.transpose(0, 1) if steps_second else output), h_n


def _packed(cells: list[Cell], packed: PackedSequence, hx: Tensor | None) -> Output:
    """Rows in the order in which they are packed, the longest first."""
    sorted_indices, unsorted_indices = packed.sorted_indices, packed.unsorted_indices
    if hx is not None and sorted_indices is not None:
        hx = hx.index_select(1, sorted_indices)
    x, lengths = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes))
    output, h_n = _stack(cells, x, hx, lengths.to(x.device))
    data, batch_sizes, *_ = pack_padded_sequence(output, lengths)
    if unsorted_indices is not None:
        h_n = h_n.index_select(1, unsorted_indices)
    return PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices), h_n


def _stack(
    cells: list[Cell], x: Tensor, hx: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    last = []
    for number, cell in enumerate(cells):
        first = None if hx is None else hx[number]
        x = unroll(cell, x, first, lengths=lengths)
        last.append(_last_state(x, first, lengths))
    return x, torch.stack(last)


def _last_state(states: Tensor, first: Tensor | None, lengths: Tensor | None) -> Tensor:
    if states.shape[0] == 0:
        return states.new_zeros(states.shape[1:]) if first is None else first
    if lengths is None:
        return states[-1]
    rows = torch.arange(states.shape[1], device=states.device)
    return states[lengths - 1, rows]
