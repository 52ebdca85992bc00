"""INALU as a torch.nn.Module with torch.nn.Linear's habits."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..checks import check_eps, check_flag
from ..functional.inalu import inalu
from .base import UntiedLayer
from .initialize import draw_normal
from .units import of_each_unit

_SATURATION = 20.0


def saturation(tensors: Iterable[Tensor]) -> Tensor:
    """How far the tensors are from saturation; one of them at least has numbers."""
    terms = [
        torch.maximum(_SATURATION - tensor.abs(), tensor.new_zeros(())).mean()
        for tensor in tensors
        if tensor.numel()
    ]
    return torch.stack(terms).sum()


class INALU(UntiedLayer):
    r"""Improved NALU: a sum and a product with weights of their own, the product with its sign.

    .. math::
        W &= \tanh(\hat W) \odot \sigma(\hat M), \qquad a = x W^\top \\
        m &= \exp(\min(\log(\max(|x|, \epsilon))\, W_\text{mul}^\top,\; \omega)) \\
        s_o &= \prod_i (\operatorname{sign}(x_i) |W_{\text{mul},oi}| + 1 - |W_{\text{mul},oi}|) \\
        y &= \sigma(g) \odot a + (1 - \sigma(g)) \odot m \odot s

    Its :meth:`regularizer` pushes all parameters away from 0, into saturation.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        gate: "independent" for one gate per output that no input changes, as published; "matrix"
            for :math:`\sigma(|x| g^\top)`, one per output of the input's sizes; "vector" for
            one of them per sample, whose product takes :math:`\log(|x| + \epsilon)`.
        tied: one W for both paths. False, as published, gives the product its own W_hat_mul and
            M_hat_mul.
        eps: keeps log(0) finite; not 0 in float32, or in float64 if that is the dtype.
        omega: the largest exponent of the product.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W_hat, M_hat: parameters of shape (out_features, in_features), initialised normally with
            means 1 and -1; W_hat_mul, M_hat_mul likewise, None if tied.
        g: parameter of shape (out_features,), (out_features, in_features) or (1, in_features),
            initialised normally with mean 0.
        gate: the option.
        W, W_mul: what is made of the parameters; read-only.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    The initial means, and a standard deviation of 0.1, are those of the published experiments. The
    authors' module by itself has means 0.88, 0.5 and 0, and 0.2.

    Source: Schlör, Ring and Hotho 2020, "iNALU: Improved Neural Arithmetic Logic Unit". The sign s
    is that of the paper; docs/family.md says where the authors' code differs.
    """

    _names = ("W_hat", "M_hat", "g", "W_hat_mul", "M_hat_mul")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        gate: str = "independent",
        tied: bool = False,
        eps: float = 1e-7,
        omega: float = 20.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, eps, device, dtype)
        self.tied = check_flag("tied", tied)
        self.omega = check_eps(omega, "omega")
        shapes = {
            "independent": (self.out_features,),
            "matrix": (self.out_features, self.in_features),
            "vector": (1, self.in_features),
        }
        if gate not in [*shapes]:  # a list has no hash
            raise ValueError(f"gate: expected 'independent', 'matrix' or 'vector', got {gate!r}")
        self.gate = gate
        self.g = nn.Parameter(torch.empty(shapes[gate], device=device, dtype=dtype))
        for name in ("W_hat_mul", "M_hat_mul"):
            own = None if self.tied else nn.Parameter(torch.empty_like(self.W_hat))
            self.register_parameter(name, own)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        for weight, mask in ((self.W_hat, self.M_hat), (self.W_hat_mul, self.M_hat_mul)):
            draw_normal(weight, 1, 0.1)
            draw_normal(mask, -1, 0.1)
        draw_normal(self.g, 0, 0.1)

    @of_each_unit
    def regularizer(self) -> Tensor:
        r"""How far the parameters are from saturation, to be added to the loss.

        .. math::
            R = \sum_\theta \operatorname{mean}_k \max(20 - |\theta_k|,\; 0)

        of the parameters :math:`\theta`, the gate's too.

        Returns:
            R, a scalar; float32 for parameters of half precision.

        Source: Schlör, Ring and Hotho 2020, "iNALU: Improved Neural Arithmetic Logic Unit".
        """
        tensors = [tensor for tensor in self._regularized() if tensor is not None]
        return saturation(tensors) if any(map(Tensor.numel, tensors)) else super().regularizer()

    def forward(self, input: Tensor) -> Tensor:
        W_hat, M_hat, g, W_hat_mul, M_hat_mul = self._tensors(input)
        return inalu(
            input,
            W_hat,
            M_hat,
            g,
            W_hat_mul=W_hat_mul,
            M_hat_mul=M_hat_mul,
            eps=self.eps,
            omega=self.omega,
            per_sample=self.gate == "vector",
        )

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, eps={self.eps:g}, omega={self.omega:g}"
        if self.gate != "independent":
            text += f", gate={self.gate!r}"
        if self.tied:
            text += ", tied=True"
        return text
