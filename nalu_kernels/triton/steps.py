"""A recurrent cell too large for a program: its steps one after the other, calls of its layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..family import Function
from ..operators import Kernels
from .launch_unroll import stretch
from .recipe import blocks


@dataclass
class Steps:
    """A call of ``layer`` over the steps of ``input``. ``options``: the layer's, then last_only;
    ``states``: hx, lengths and reset."""

    layer: Function
    kernels: Kernels
    options: tuple[Any, ...]
    input: Tensor
    weights: tuple[Any, ...]
    states: tuple[Tensor | None, ...]

    def __post_init__(self) -> None:
        hx, self.lengths, self.reset = self.states
        size = (self.input.shape[1], self.weights[0].shape[0])
        self.first = self.input.new_zeros(size) if hx is None else hx
        *self.of_layer, self.last_only = self.options
        self.count, self.stretch = len(self.input), stretch(len(self.input))

    def forward(self, save: bool) -> tuple[Tensor, Tensor | None]:
        state, kept, outputs = self.first, [self.first[:0]], [self.first[:0]]
        for t in range(self.count):
            if t % self.stretch == 0:
                kept.append(state)
            y, _ = self._step(self._columns(t, state), False)
            state = self._going(t, y, state)
            if not self.last_only:
                outputs.append(self._going(t, y, 0))
        if self.last_only:
            return state.clone(), torch.cat(kept).flatten() if save else None
        return torch.cat(outputs).view(self.count, *self.first.shape), None

    def backward(
        self, needed: int, grad_output: Tensor, saved: Tensor
    ) -> tuple[Tensor | None, ...]:
        """From the states: all, or those that the forward kept."""
        at_hx, I = 1 + len(self.weights), self.input.shape[2]  # noqa: E741
        wide = torch.float64 if self.input.dtype == torch.float64 else torch.float32
        told = self.of_layer[:-1] if self.layer.saves_output_if else self.of_layer
        wants = needed & (1 << at_hx) - 1 | 1  # the state's is among the columns
        sums = [
            torch.zeros_like(weight, dtype=wide) if needed >> place & 1 else None
            for place, weight in enumerate(self.weights, start=1)
        ]
        dx = torch.empty_like(self.input) if needed & 1 else None
        of_start = torch.zeros_like(self.first)
        carried = grad_output if self.last_only else of_start
        kept_states = blocks(self.count, self.stretch if self.last_only else 1)
        for t, state in self._backwards(saved.view(kept_states, *self.first.shape)):
            dy = self._going(t, carried if self.last_only else carried + grad_output[t], 0)
            columns = self._columns(t, state)
            _, kept = self._step(columns, True)
            found, *grads = self.kernels.backward(*told, wants, dy, kept, columns, *self.weights)
            for total, grad in zip(sums, grads, strict=True):
                if total is not None:
                    total += grad
            if dx is not None:
                dx[t] = self._going(t, found[:, :I], 0)
            carried = self._going(t, found[:, I:], carried)
            if self.reset is not None:
                begins = self._going(t, self.reset[t, :, None], False)
                of_start = of_start + torch.where(begins, carried, 0)
                carried = torch.where(begins, 0, carried)
        of_weights = [total if total is None else total.to(self.input.dtype) for total in sums]
        dhx = carried + of_start if needed >> at_hx & 1 else None
        return dx, *of_weights, dhx, None, None

    def _columns(self, t: int, state: Tensor) -> Tensor:
        """[x, h]; ones for rows behind their end."""
        if self.reset is not None:
            state = torch.where(self.reset[t, :, None], self.first, state)
        return self._going(t, torch.cat((self.input[t], state), dim=-1), 1)

    def _going(self, t: int, of_step: Tensor, other: Tensor | float) -> Tensor:
        """``of_step`` of the rows that take step t, else ``other``."""
        if self.lengths is None:
            return of_step
        return torch.where((t < self.lengths)[:, None], of_step, other)

    def _step(self, columns: Tensor, save: bool) -> tuple[Tensor, Tensor | None]:
        """The output, and what the layer's backward takes of it."""
        if self.layer.saves_output_if:
            y = self.kernels.forward(*self.of_layer, columns, *self.weights)
            return y, y if self.of_layer[-1] else None
        y, saved = self.kernels.forward(*self.of_layer, save, columns, *self.weights)
        return y, saved

    def _backwards(self, states: Tensor) -> Iterator[tuple[int, Tensor]]:
        """From the last step to the first: its number and the state before it. Of the last state
        alone those between two that were kept are made again."""
        if not self.last_only:
            for t in reversed(range(self.count)):
                yield t, states[t - 1] if t else self.first
            return
        for segment in reversed(range(len(states))):
            first = segment * self.stretch
            last = min(first + self.stretch, self.count) - 1
            before = [states[segment]]
            for t in range(first, last):
                y, _ = self._step(self._columns(t, before[-1]), False)
                before.append(self._going(t, y, before[-1]))
            for t in range(last, first - 1, -1):
                yield t, before[t - first]
