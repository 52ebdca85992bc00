"""A layer over the steps of a sequence, h' = layer([x, h]), a step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def unroll(
    layer: Callable[..., Tensor],
    *,
    input: Tensor,
    hx: Tensor | None = None,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    last_only: bool = False,
    **of_layer: Any,
) -> Tensor:
    """The states of all steps, (steps, batch, state), or the last alone; nothing is checked.

    Args:
        layer: a layer's formula, of ``input=`` and its own arguments, ``of_layer``.
        input: (steps, batch, features).
        hx: the first state, (batch, state); None for zeros.
        lengths: (batch): how many steps each row takes. Then its state stays, and the output is 0.
        reset: (steps, batch): where the state begins with ``hx`` again, before the step.
        last_only: whether the last state alone is wanted.
    """
    first = input.new_zeros((input.shape[1], _state_size(of_layer))) if hx is None else hx
    state, outputs = first, []
    for t, x in enumerate(input.unbind(0)):
        going = None if lengths is None else (t < lengths).unsqueeze(-1)
        before = state
        if reset is not None:
            begins = reset[t].unsqueeze(-1)
            before = torch.where(begins, first, state)
        columns = torch.cat((x, before), dim=-1)
        if going is None:
            state = layer(input=columns, **of_layer)
            outputs.append(state)
        else:
            # A row behind its end takes the step on ones: what it has there may be anything.
            new = layer(input=torch.where(going, columns, 1), **of_layer)
            state = torch.where(going, new, state)
            outputs.append(torch.where(going, new, 0))
    if last_only:
        return state if outputs else state.clone()  # hx stays the caller's
    return torch.stack(outputs) if outputs else first.unsqueeze(0)[:0]


def _state_size(of_layer: dict[str, Any]) -> int:
    """The rows of the layer's weights, the first of which is a matrix."""
    return next(of.shape[0] for of in of_layer.values() if isinstance(of, Tensor))
