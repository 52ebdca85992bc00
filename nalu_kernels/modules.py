"""NAC and NALU as torch.nn.Modules with torch.nn.Linear's habits."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, nn

from . import inference
from .checks import check_dtype, check_eps
from .functional import nac, nalu


def init_range(in_features: int, out_features: int) -> float:
    r"""The r for which W has Glorot's variance when W_hat and M_hat are uniform on (-r, r).

    Var(tanh Ŵ · σ M̂) = (1 - tanh(r)/r) (r - tanh(r/2)) / (2r) = 2 / (in + out).

    The left side grows from 0 to 1/2 with r; in + out below 5 would ask for (nearly) more than
    that, so it counts as 5. Source: Madsen and Johansen 2020, "Neural Arithmetic Units", appendix.
    """
    target = 2 / max(in_features + out_features, 5)

    def variance(r: float) -> float:
        return (1 - math.tanh(r) / r) * (r - math.tanh(r / 2)) / (2 * r)

    low, high = 1e-4, 100.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if variance(middle) < target:
            low = middle
        else:
            high = middle
    return high


def check_size(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    size = operator.index(value)
    if size < 0:
        raise ValueError(f"{name}: expected a size of at least 0, got {size}")
    return size


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return value


class NAC(nn.Module):
    r"""Neural accumulator, a layer whose weights are pulled to -1, 0 and 1.

    .. math::
        W = \tanh(\hat W) \odot \sigma(\hat M), \qquad
        y = x W^\top \quad\text{or, with log_space,}\quad y = \exp(\log(|x| + \epsilon) W^\top)

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        log_space: compute on logarithms: products, quotients and powers for sums, differences
            and multiples.
        eps: keeps log(0) finite.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W_hat, M_hat: parameters of shape (out_features, in_features), initialised uniformly on
            (-r, r), r from :func:`init_range`.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equation 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        log_space: bool = False,
        eps: float = 1e-7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.log_space = _flag("log_space", log_space)
        check_eps(eps)
        check_dtype(dtype)
        self.eps = eps
        shape = (self.out_features, self.in_features)
        self.W_hat = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.M_hat = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W_hat and M_hat anew."""
        r = init_range(self.in_features, self.out_features)
        with torch.no_grad():
            self.W_hat.uniform_(-r, r)
            self.M_hat.uniform_(-r, r)

    def train(self, mode: bool = True) -> NAC:
        inference.forget(self)
        return super().train(mode)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training and not torch.compiler.is_compiling():
            output = inference.nac(self, input)
            if output is not None:
                return output
        return nac(input, self.W_hat, self.M_hat, log_space=self.log_space, eps=self.eps)

    def extra_repr(self) -> str:
        text = f"in_features={self.in_features}, out_features={self.out_features}"
        if self.log_space:
            text += f", log_space=True, eps={self.eps:g}"
        return text


class NALU(nn.Module):
    r"""Neural arithmetic logic unit: a gate chooses between a sum (NAC) and a product.

    .. math::
        W &= \tanh(\hat W) \odot \sigma(\hat M) \\
        a &= x W^\top, \qquad m = \exp(\log(|x| + \epsilon) W_\text{mul}^\top) \\
        g &= \sigma(x G^\top + b), \qquad y = g \odot a + (1 - g) \odot m

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: keeps log(0) finite.
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
            (-r, r), r from :func:`init_range`; W_hat_mul, M_hat_mul likewise, None if tied.
        G: parameter of shape (out_features, in_features) or (1, in_features), initialised
            Xavier-uniformly with the sigmoid's gain.
        gate_bias: parameter of shape (G.shape[0],) or None.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equations 1 and 2.
    """

    gate_bias: nn.Parameter | None
    W_hat_mul: nn.Parameter | None
    M_hat_mul: nn.Parameter | None

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
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        check_eps(eps)
        check_dtype(dtype)
        self.eps = eps
        self.tied = _flag("tied", tied)
        if gate not in ("output", "sample"):
            raise ValueError(f"gate: expected 'output' or 'sample', got {gate!r}")
        self.gate = gate
        _flag("gate_bias", gate_bias)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        gates = out_features if gate == "output" else 1
        self.W_hat = parameter(out_features, in_features)
        self.M_hat = parameter(out_features, in_features)
        self.G = parameter(gates, in_features)
        self.register_parameter("gate_bias", parameter(gates) if gate_bias else None)
        for name in ("W_hat_mul", "M_hat_mul"):
            self.register_parameter(name, None if tied else parameter(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew; the gate's bias becomes 0."""
        r = init_range(self.in_features, self.out_features)
        with torch.no_grad():
            for parameter in (self.W_hat, self.M_hat, self.W_hat_mul, self.M_hat_mul):
                if parameter is not None:
                    parameter.uniform_(-r, r)
            if self.G.numel():
                nn.init.xavier_uniform_(self.G, gain=nn.init.calculate_gain("sigmoid"))
            if self.gate_bias is not None:
                self.gate_bias.zero_()

    def train(self, mode: bool = True) -> NALU:
        inference.forget(self)
        return super().train(mode)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training and not torch.compiler.is_compiling():
            output = inference.nalu(self, input)
            if output is not None:
                return output
        return nalu(
            input,
            self.W_hat,
            self.M_hat,
            self.G,
            gate_bias=self.gate_bias,
            W_hat_mul=self.W_hat_mul,
            M_hat_mul=self.M_hat_mul,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        text = f"in_features={self.in_features}, out_features={self.out_features}, eps={self.eps:g}"
        if not self.tied:
            text += ", tied=False"
        if self.gate != "output":
            text += f", gate={self.gate!r}"
        if self.gate_bias is not None:
            text += ", gate_bias=True"
        return text
