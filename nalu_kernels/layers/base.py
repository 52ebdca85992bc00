"""What the layers have in common: their sizes, eps, and the W that is made of W_hat and M_hat."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from .. import reference
from ..autocast import wide
from ..checks import check_dtype, check_eps, check_size


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
        self.eps = check_eps(eps)
        check_dtype(dtype)
        for name in ("W_hat", "M_hat"):
            weight = torch.empty(self.out_features, self.in_features, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(weight))

    def __prepare_scriptable__(self) -> None:
        """What torch.jit.script asks a module first."""
        raise RuntimeError(
            f"torch.jit.script cannot compile a {type(self).__name__}; use torch.export or, for "
            "TorchScript, torch.jit.trace, which records the plain formulas"
        )

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

    def _tensors(self, input: Any) -> list[Any]:
        """What the function takes after the input, in its order; None for a parameter without."""
        own = self._parameters
        try:  # several times faster than attributes, whose look-up is Python in nn.Module
            return [own[name] for name in self._names]
        except KeyError:  # parametrized, pruned, or replaced by plain tensors
            if isinstance(input, Proxy):
                raise RuntimeError(
                    f"torch.fx: expected a {type(self).__name__} whose parameters are its own, got "
                    "one that computes them of others (pruned, weight_norm), which a graph would "
                    "take for constants; trace it as a leaf (torch.fx.Tracer.is_leaf_module)"
                ) from None
            return [getattr(self, name) for name in self._names]
