"""Words for wrong arguments.

The compiled operators check their arguments themselves, cheaply, before any kernel runs, but can
only raise a bare RuntimeError. These functions are the slow, eloquent half: `functional` calls
them when an operator has refused (or before the reference runs) to raise the exception that names
the argument, what came and what was expected.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")


def _floating(name: str, value: Tensor) -> None:
    if value.dtype not in DTYPES:
        wanted = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise TypeError(f"{name}: expected a tensor of dtype {wanted}, got {value.dtype}")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense (strided) tensor, got layout {value.layout}")


def _like_input(name: str, value: object, input: Tensor) -> None:
    _tensor(name, value)
    assert isinstance(value, Tensor)
    if value.dtype != input.dtype:
        raise TypeError(f"{name}: expected the dtype of input, {input.dtype}, got {value.dtype}")
    if value.device != input.device:
        raise ValueError(
            f"{name}: expected the device of input, {input.device}, got {value.device}"
        )


def _shape(name: str, value: Tensor, *expected: tuple[int, ...]) -> None:
    if tuple(value.shape) not in expected:
        wanted = " or ".join(str(shape) for shape in expected)
        raise ValueError(f"{name}: expected shape {wanted}, got {tuple(value.shape)}")


def check_eps(eps: object) -> None:
    """Raises TypeError or ValueError unless eps is a positive finite number."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        raise TypeError(f"eps: expected a positive finite float, got {type(eps).__name__}")
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"eps: expected a positive finite float, got {eps}")


def check_nac(input: object, W_hat: object, M_hat: object, log_space: object, eps: object) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.nac`."""
    _tensor("input", input)
    assert isinstance(input, Tensor)
    _floating("input", input)
    _like_input("W_hat", W_hat, input)
    assert isinstance(W_hat, Tensor)
    if W_hat.dim() != 2:
        raise ValueError(
            "W_hat: expected 2 dimensions (out_features, in_features), "
            f"got shape {tuple(W_hat.shape)}"
        )
    if input.dim() == 0:
        raise ValueError("input: expected at least 1 dimension (..., in_features), got a scalar")
    if input.shape[-1] != W_hat.shape[1]:
        raise ValueError(
            f"input: expected a last dimension of in_features = {W_hat.shape[1]} "
            f"(W_hat is {tuple(W_hat.shape)}), got shape {tuple(input.shape)}"
        )
    _like_input("M_hat", M_hat, input)
    assert isinstance(M_hat, Tensor)
    _shape("M_hat", M_hat, tuple(W_hat.shape))
    if not isinstance(log_space, bool):
        raise TypeError(f"log_space: expected a bool, got {type(log_space).__name__}")
    check_eps(eps)


def check_nalu(
    input: object,
    W_hat: object,
    M_hat: object,
    G: object,
    gate_bias: object,
    W_hat_mul: object,
    M_hat_mul: object,
    eps: object,
) -> None:
    """Raises TypeError or ValueError if these are not arguments of :func:`nalu_kernels.nalu`."""
    check_nac(input, W_hat, M_hat, False, eps)
    assert isinstance(input, Tensor) and isinstance(W_hat, Tensor)
    out_features, in_features = W_hat.shape
    _like_input("G", G, input)
    assert isinstance(G, Tensor)
    _shape("G", G, (out_features, in_features), (1, in_features))
    if gate_bias is not None:
        _like_input("gate_bias", gate_bias, input)
        assert isinstance(gate_bias, Tensor)
        _shape("gate_bias", gate_bias, (G.shape[0],))
    if (W_hat_mul is None) != (M_hat_mul is None):
        missing, given = (
            ("W_hat_mul", "M_hat_mul") if W_hat_mul is None else ("M_hat_mul", "W_hat_mul")
        )
        raise ValueError(
            f"{missing}: expected a tensor because {given} is given, got None; pass both "
            "(untied weights) or neither (tied)"
        )
    if W_hat_mul is not None:
        for name, value in (("W_hat_mul", W_hat_mul), ("M_hat_mul", M_hat_mul)):
            _like_input(name, value, input)
            assert isinstance(value, Tensor)
            _shape(name, value, (out_features, in_features))
