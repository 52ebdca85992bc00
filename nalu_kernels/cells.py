"""NAC and NALU as the transition of a recurrent network, with torch.nn.RNNCell's habits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checks import check_state
from .modules import NAC, NALU, check_size


class _Cell(nn.Module):
    """h' = layer([x, h]): the columns of the layer's weights are first the input's, then the
    state's."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)

    def joined(self, input: Tensor, hx: Tensor | None) -> Tensor:
        """[x, h], after the checks that a concatenation would not make."""
        check_state(input, hx, self.input_size, self.hidden_size)
        if hx is None:
            hx = input.new_zeros(*input.shape[:-1], self.hidden_size)
        return torch.cat((input, hx), dim=-1)

    def extra_repr(self) -> str:
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}"


class NACCell(_Cell):
    r"""A NAC as recurrent transition: sums and differences over time.

    .. math::
        W = \tanh(\hat W) \odot \sigma(\hat M), \qquad
        h' = [x, h] W^\top \quad\text{or, with log_space,}\quad
        h' = \exp(\log(|[x, h]| + \epsilon) W^\top)

    A state is kept without loss only where its own weight has come to 1, where tanh and sigmoid
    are flat: over n steps, w leaves wⁿ of it. Several states that mix can also grow without bound.

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the state.
        log_space: products, quotients and powers over time. Start it from a state of ones: of
            zeros, as by default, it makes factors of eps.
        eps: keeps log(0) finite.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        input x: (batch, input_size) or (input_size,); hx, the state h: (batch, hidden_size) or
        (hidden_size,), zeros if None. Returns the next state, h', in the shape of hx.

    Attributes:
        nac: the :class:`nalu_kernels.NAC` from input_size + hidden_size to hidden_size features;
            the first input_size columns of its W_hat and M_hat are x's, the others h's.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equation 1, as in the recurrent
    tasks of section 4.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        log_space: bool = False,
        eps: float = 1e-7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        features = self.input_size + self.hidden_size
        self.nac = NAC(
            features, self.hidden_size, log_space=log_space, eps=eps, device=device, dtype=dtype
        )

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        self.nac.reset_parameters()

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        output: Tensor = self.nac(self.joined(input, hx))
        return output


class NALUCell(_Cell):
    r"""A NALU as recurrent transition: a gate chooses between sums and products over time.

    .. math::
        h' = g \odot a + (1 - g) \odot m \quad\text{of}\quad [x, h],

    with W, a, m and g as in :class:`nalu_kernels.NALU`.

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the state.
        eps, tied, gate, gate_bias: as of :class:`nalu_kernels.NALU`.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        input x: (batch, input_size) or (input_size,); hx, the state h: (batch, hidden_size) or
        (hidden_size,), zeros if None. Returns the next state, h', in the shape of hx.

    Attributes:
        nalu: the :class:`nalu_kernels.NALU` from input_size + hidden_size to hidden_size features;
            the first input_size columns of its weights are x's, the others h's.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equations 1 and 2, as in the
    recurrent tasks of section 4.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        eps: float = 1e-7,
        tied: bool = True,
        gate: str = "output",
        gate_bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.nalu = NALU(
            self.input_size + self.hidden_size,
            self.hidden_size,
            eps=eps,
            tied=tied,
            gate=gate,
            gate_bias=gate_bias,
            device=device,
            dtype=dtype,
        )

    def reset_parameters(self) -> None:
        """Draws all parameters anew; the gate's bias becomes 0."""
        self.nalu.reset_parameters()

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        output: Tensor = self.nalu(self.joined(input, hx))
        return output
