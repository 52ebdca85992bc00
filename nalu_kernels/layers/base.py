"""What the layers have in common: their sizes, eps, and the W that is made of W_hat and M_hat."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .. import inference, reference
from ..autocast import wide
from ..checks import check_dtype, check_eps, check_size

Self = TypeVar("Self", bound="Layer")


class Layer(nn.Module):
    """A layer from (..., in_features) to (..., out_features) with parameters W_hat and M_hat."""

    W_hat: nn.Parameter
    M_hat: nn.Parameter
    _names: ClassVar[tuple[str, ...]] = ("W_hat", "M_hat")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        eps: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        check_eps(eps)
        check_dtype(dtype)
        self.eps = eps
        for name in ("W_hat", "M_hat"):
            weight = torch.empty(self.out_features, self.in_features, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(weight))

    @property
    def W(self) -> Tensor:
        r"""The weights that the layer uses, :math:`W = \tanh(\hat W) \odot \sigma(\hat M)`.

        Of shape (out_features, in_features), the dtype and device of W_hat; differentiable, made
        anew at each access, and read-only. Half precision is computed in float32 and rounded once.

        Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equation 1.
        """
        return self._weight(self.W_hat, self.M_hat)

    @staticmethod
    def _weight(W_hat: Tensor, M_hat: Tensor) -> Tensor:
        return reference.weight(wide(W_hat), wide(M_hat)).to(W_hat.dtype)

    def _tensors(self) -> list[Any]:
        """What the function takes after the input, in its order; None for a parameter without."""
        own = self._parameters
        try:  # several times faster than attributes, whose look-up is Python in nn.Module
            return [own[name] for name in self._names]
        except KeyError:  # parametrized, or replaced by plain tensors
            return [getattr(self, name) for name in self._names]

    def train(self: Self, mode: bool = True) -> Self:
        inference.forget(self)
        return super().train(mode)
