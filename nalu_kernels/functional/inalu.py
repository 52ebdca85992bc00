"""inalu(): the iNALU as a function."""

from __future__ import annotations

from torch import Tensor

from .. import reference


def inalu(
    input: Tensor,
    W_hat: Tensor,
    M_hat: Tensor,
    g: Tensor,
    *,
    W_hat_mul: Tensor | None = None,
    M_hat_mul: Tensor | None = None,
    eps: float = 1e-7,
    omega: float = 20.0,
) -> Tensor:
    """The iNALU, for now by the reference."""
    return reference.inalu(
        input, W_hat, M_hat, g, W_hat_mul=W_hat_mul, M_hat_mul=M_hat_mul, eps=eps, omega=omega
    )
