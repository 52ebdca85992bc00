"""NALU as a torch.nn.Module with torch.nn.Linear's habits."""

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from .. import reference
from ..autocast import disabled, wide, widen
from ..checks import check_flag, check_nalu
from ..functional.nalu import nalu
from . import keep
from .base import UntiedLayer
from .initialize import draw_weights, draw_xavier


class NALU(UntiedLayer):
    r"""Neural arithmetic logic unit: a gate chooses between a sum (NAC) and a product.

    .. math::
        W &= \tanh(\hat W) \odot \sigma(\hat M) \\
        a &= x W^\top, \qquad m = \exp(\log(|x| + \epsilon) W_\text{mul}^\top) \\
        g &= \sigma(x G^\top + b), \qquad y = g \odot a + (1 - g) \odot m

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: keeps log(0) finite; not 0 in float32, or in float64 if that is the dtype.
        tied: one W for both paths, as in the paper's equations; False gives the product its own
            W_hat_mul and M_hat_mul (two NACs, as in most figures).
        gate: "output" for one gate per output, "sample" for one per sample; published code has
            both.
        gate_bias: add a bias b to the gate, initialised to 0 (the paper has none).
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W_hat, M_hat: parameters of shape (out_features, in_features), initialised uniformly on
            (-r, r), r from :func:`nalu_kernels.layers.initialize.init_range`; W_hat_mul, M_hat_mul
            likewise, None if tied.
        G: parameter of shape (out_features, in_features) or (1, in_features), initialised
            Xavier-uniformly with the sigmoid's gain.
        gate_bias: parameter of shape (G.shape[0],) or None.
        gate_per: the option ``gate``.
        W, W_mul: what is made of the parameters; read-only.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equations 1 and 2.
    """

    gate_bias: nn.Parameter | None
    _names = ("W_hat", "M_hat", "G", "gate_bias", "W_hat_mul", "M_hat_mul")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        eps: float = 1e-7,
        tied: bool = True,
        gate: str = "output",
        gate_bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, eps, device, dtype)
        self.tied = check_flag("tied", tied)
        if gate not in ("output", "sample"):
            raise ValueError(f"gate: expected 'output' or 'sample', got {gate!r}")
        self.gate_per = gate
        gate_bias = check_flag("gate_bias", gate_bias)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        shape = self.W_hat.shape
        gates = self.out_features if gate == "output" else 1
        self.G = parameter(gates, self.in_features)
        self.register_parameter("gate_bias", parameter(gates) if gate_bias else None)
        for name in ("W_hat_mul", "M_hat_mul"):
            self.register_parameter(name, None if self.tied else parameter(*shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew; the gate's bias becomes 0."""
        draw_weights(self.W_hat, self.M_hat, self.W_hat_mul, self.M_hat_mul)
        draw_xavier(self.G)
        if self.gate_bias is not None:
            with torch.no_grad():
                self.gate_bias.zero_()

    def gate(self, input: Tensor) -> Tensor:
        r"""What the layer mixes by, :math:`g = \sigma(x G^\top + b)`: near 1 an output is the sum,
        near 0 the product.

        Args:
            input: x, (..., in_features), like the parameters: a DTensor where they are DTensors.

        Returns:
            g in (0, 1), of shape (..., out_features), or (..., 1) with one gate per sample, and the
            dtype of the layer's output; differentiable. Half precision is computed in float32 and
            rounded once.

        Raises:
            TypeError, ValueError: as the layer.

        Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 3.
        """
        return _gate(input, self.W_hat, self.M_hat, self.G, self.gate_bias, self.eps)

    def forward(self, input: Tensor) -> Tensor:
        if keep.active and not torch.compiler.is_compiling():
            output = keep.nalu(self, input)
            if output is not None:
                return output
        W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul = self._tensors(input)
        return nalu(
            input,
            W_hat,
            M_hat,
            G,
            gate_bias=gate_bias,
            W_hat_mul=W_hat_mul,
            M_hat_mul=M_hat_mul,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, eps={self.eps:g}"
        if not self.tied:
            text += ", tied=False"
        if self.gate_per != "output":
            text += f", gate={self.gate_per!r}"
        if self.gate_bias is not None:
            text += ", gate_bias=True"
        return text


def _gate(
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    G: Tensor,
    gate_bias: Tensor | None,
    eps: float,
) -> Tensor:
    tensors = (input, W_hat, M_hat, G, gate_bias)
    if has_torch_function(tensors):
        return handle_torch_function(_gate, tensors, *tensors, eps)
    narrow, (x, W_hat, M_hat, G, bias) = widen(*tensors)
    check_nalu(eps, x, W_hat, M_hat, G, bias)
    with disabled(x):
        g = reference.gate(wide(x), wide(G), wide(bias))
    return g.to(input.dtype if narrow is None else narrow)
