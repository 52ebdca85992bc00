"""NMU in plain PyTorch: Madsen and Johansen 2020, "Neural Arithmetic Units", section 2.3; and the
stochastic one of Mistry, Farrahi and Hare 2022, "Improving the Robustness of Neural Multiplication
Units with Reversible Stochasticity"."""

from __future__ import annotations

from torch import Tensor

from .product import product


def nmu(input: Tensor, W: Tensor) -> Tensor:
    """:func:`nalu_kernels.nmu`: the same mathematics, arguments and shapes, nothing checked."""
    return product(W * input.unsqueeze(-2) + (1 - W))


def snmu(input: Tensor, W: Tensor, noise: Tensor) -> Tensor:
    """:func:`nalu_kernels.snmu` of noise in the shape of the input, nothing checked.

    The product of the factors' quotients, none of which is as large as the two products are.
    """
    n, rest = noise.unsqueeze(-2), 1 - W
    return product((W * (input * noise).unsqueeze(-2) + rest) / (W * n + rest))
