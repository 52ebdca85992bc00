"""Recurrent networks of cells over whole sequences, with torch.nn.RNN's habits."""

import inspect
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..checks import check_flag, check_size
from ..functional.network import network
from .cells import NACCell, NALUCell, _Cell


class _RNN(nn.Module):
    """Cells one above the other: each takes the states of that below for its input. A subclass
    names the cell, whose options are its own."""

    cell: ClassVar[type[_Cell]]

    def __init_subclass__(cls) -> None:
        own = list(inspect.signature(_RNN.__init__).parameters.values())[1:5]
        options = [
            parameter
            for parameter in inspect.signature(cls.cell).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]
        cls.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        known = inspect.signature(type(self))
        for name in options:
            if name in ("dropout", "bidirectional"):
                raise TypeError(
                    f"{type(self).__name__}: {name} is none of its options, there is no "
                    "dropout and no second direction: a sum over time that forgets some of its "
                    "terms is no sum"
                )
            if name not in known.parameters:
                raise TypeError(f"{type(self).__name__}: {name} is none of its options {known}")
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        if self.num_layers == 0:
            raise ValueError("num_layers: expected at least 1, got 0")
        self.batch_first = check_flag("batch_first", batch_first)
        sizes = [self.input_size, *[self.hidden_size] * (self.num_layers - 1)]
        self.cells = nn.ModuleList(self.cell(size, self.hidden_size, **options) for size in sizes)

    def _layers(self) -> list[_Cell]:
        return [cell for cell in self.cells if isinstance(cell, _Cell)]

    def reset_parameters(self) -> None:
        """Draws all parameters anew, as the cells do."""
        for cell in self._layers():
            cell.reset_parameters()

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """(output, h_n): all states of the uppermost cell, and the last state of each."""
        cells = [cell._described(input) for cell in self._layers()]
        return network(cells, input, hx, batch_first=self.batch_first)

    def extra_repr(self) -> str:
        text = f"input_size={self.input_size}, hidden_size={self.hidden_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        return text + (", batch_first=True" if self.batch_first else "")


class NACRNN(_RNN):
    r"""NACs over sequences: sums and differences over time, layer upon layer.

    .. math::
        h_t^{(l)} = \operatorname{NAC}\big([x_t^{(l)}, h_{t-1}^{(l)}]\big), \qquad
        x_t^{(l + 1)} = h_t^{(l)}

    Each layer takes all its steps in one call (:meth:`nalu_kernels.NACCell.unroll`).

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the states.
        num_layers: how many cells stand one above the other.
        batch_first: whether input and output are (batch, steps, features). h_n and hx stay as they
            are.
        log_space, eps, device, dtype: as of :class:`nalu_kernels.NACCell`.

    Shape:
        input: (steps, batch, input_size), (steps, input_size), or a PackedSequence; hx:
        (num_layers, batch, hidden_size) or (num_layers, hidden_size), zeros if None. Returns
        (output, h_n): the uppermost cell's states, in the form of the input, and the last state of
        each cell, in the shape of hx.

    Attributes:
        cells: the :class:`nalu_kernels.NACCell` of each layer, the lowest first.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equation 1, as in the recurrent
    tasks of section 4.
    """

    cell = NACCell


class NALURNN(_RNN):
    r"""NALUs over sequences: sums or products over time, layer upon layer.

    .. math::
        h_t^{(l)} = \operatorname{NALU}\big([x_t^{(l)}, h_{t-1}^{(l)}]\big), \qquad
        x_t^{(l + 1)} = h_t^{(l)}

    Each layer takes all its steps in one call (:meth:`nalu_kernels.NALUCell.unroll`).

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the states.
        num_layers: how many cells stand one above the other.
        batch_first: whether input and output are (batch, steps, features). h_n and hx stay as they
            are.
        eps, tied, gate, gate_bias, device, dtype: as of :class:`nalu_kernels.NALUCell`.

    Shape:
        as of :class:`nalu_kernels.NACRNN`.

    Attributes:
        cells: the :class:`nalu_kernels.NALUCell` of each layer, the lowest first.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equations 1 and 2, as in the
    recurrent tasks of section 4.
    """

    cell = NALUCell
