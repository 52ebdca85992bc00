"""What the layers have in common, and the kinds of weights that some of them share: a W as it
stands, and the W that is made of W_hat and M_hat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from .. import reference
from ..autocast import wide, widen
from ..checks import check_dtype, check_eps_in, check_size, check_W, is_dtensor
from .initialize import draw_uniform, nau_range
from .units import of_each_unit, stacked, unit_of

# Where the published training keeps parameters, by their names, after each optimizer step.
Bounds = Mapping[str, tuple[float, float]]
UNBOUNDED: Bounds = {}
SIGNED: Bounds = {"W": (-1.0, 1.0)}
UNSIGNED: Bounds = {"W": (0.0, 1.0)}

_Self = TypeVar("_Self", bound="Layer")


class Layer(nn.Module):
    """A layer from (..., in_features) to (..., out_features)."""

    # Its parameters, in the order in which its function takes them.
    _names: ClassVar[tuple[str, ...]]
    _bounds: Bounds = UNBOUNDED

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        check_dtype(dtype)

    def __prepare_scriptable__(self) -> None:
        """What torch.jit.script asks a module first."""
        raise RuntimeError(
            f"torch.jit.script cannot compile a {type(self).__name__}; use torch.export or, for "
            "TorchScript, torch.jit.trace, which records the plain formulas"
        )

    @classmethod
    def stack(cls: type[_Self], layers: Sequence[_Self]) -> _Self:
        """Independent layers side by side in one, its units.

        Each parameter gets a dimension of units before its own, so that the state_dict is what
        ``torch.func.stack_module_state`` makes of the layers. An input of three or more dimensions
        is (units, ..., in_features); one of one or two is shared by all units, and one of more that
        they share is ``input.expand(units, *input.shape)``, which copies nothing. The output is
        (units, ..., out_features). A unit's output and gradients have the bits of a layer of its
        own, and nothing of one gets into another. :meth:`regularizer` gives one for each unit.

        Args:
            layers: one or more of this class that differ in the values of their parameters alone.
                They are copied, without gradients.

        Raises:
            TypeError: one is of another class.
            ValueError: there is none; one differs in a size, an option or another attribute, in
                dtype, device or mode, or in which parameters are frozen; or one has hooks, buffers
                or parameters that are computed of others (pruned), which would see all units.
        """
        return stacked(cls, layers)

    def unit(self: _Self, index: int) -> _Self:
        """A copy of one of the units as a layer of its own.

        Raises:
            RuntimeError: the layer is not of units, or has hooks, buffers or parameters that are
                computed of others, which are of all units.
            TypeError: index is no int.
            IndexError: it has not so many.
        """
        return unit_of(self, self.units, index)

    @property
    def units(self) -> int | None:
        """How many layers stand side by side in this one (:meth:`stack`); None: it is one."""
        weight = getattr(self, self._names[0], None)
        return weight.shape[0] if isinstance(weight, Tensor) and weight.dim() == 3 else None

    @of_each_unit
    def regularizer(self) -> Tensor:
        """0: the layer's publications have no regulariser."""
        parameter = next(self.parameters())
        return torch.zeros((), dtype=parameter.dtype, device=parameter.device)

    @property
    def _has_regularizer(self) -> bool:
        return type(self).regularizer is not Layer.regularizer

    def clamp_(self: _Self) -> _Self:
        """Puts parameters back where the published training keeps them, after an optimizer step.

        Returns:
            the layer. One without such bounds stays as it is.

        Raises:
            RuntimeError: a parameter with bounds is computed from others (parametrized, pruned).
        """
        with torch.no_grad():
            for name, (low, high) in self._bounds.items():
                parameter = self._parameters.get(name)
                if parameter is None:
                    raise RuntimeError(
                        f"clamp_: expected a {type(self).__name__} whose {name} is its own "
                        "parameter, got one that computes it of others (parametrized, pruned)"
                    )
                parameter.clamp_(low, high)
        return self

    def _weights(self) -> list[Tensor]:
        """What is -1, 0 or 1 in a layer that has become a formula."""
        raise NotImplementedError

    def _l1(self) -> Tensor:
        """The sum of the sizes of all parameters."""
        given = [tensor for tensor in self._regularized() if tensor is not None]
        return torch.stack([tensor.abs().sum() for tensor in given]).sum()

    def _regularized(self) -> list[Any]:
        """The parameters as regularisers take them: not narrower than float32; and the gradient of
        one that is shared out lies as it does, where torch would give that of one row whole."""
        return [
            tensor.redistribute(placements=tensor.placements) if is_dtensor(tensor) else tensor
            for tensor in map(wide, self._tensors(None))
        ]

    def extra_repr(self) -> str:
        units = "" if self.units is None else f"units={self.units}, "
        return f"{units}in_features={self.in_features}, out_features={self.out_features}"

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


class WeightLayer(Layer):
    """A layer whose one parameter is W, which is to come to 0 and 1, and to -1 if it is signed:
    as its ``_bounds`` say."""

    W: nn.Parameter
    _names = ("W",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        *,
        columns: int = 1,
    ) -> None:
        super().__init__(in_features, out_features, dtype)
        shape = (self.out_features, columns * self.in_features)
        self.W = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W anew: a signed one as an NAU does, else as an NMU does."""
        if self._bounds is SIGNED:
            r = nau_range(self.in_features, self.out_features)
            draw_uniform(self.W, -r, r)
        else:
            draw_uniform(self.W, 0.25, 0.75)

    @of_each_unit
    def regularizer(self) -> Tensor:
        r"""How far W is from whole numbers, to be added to the loss.

        .. math::
            R = \operatorname{mean}_{oi}\, \min(|W_{oi}|,\; |1 - w_{oi}|)

        where w is :math:`|W|` in a layer whose weights may be negative (NAU, NRU), and W elsewhere.

        Returns:
            R, a scalar, 0 without weights; float32 for weights of half precision.

        Source: Madsen and Johansen 2020, "Neural Arithmetic Units", section 2.
        """
        (W,) = self._regularized()
        return sparsity(W, signed=self._bounds is SIGNED)

    def _weights(self) -> list[Tensor]:
        return [self.W]


class MeanLayer(WeightLayer):
    """One whose regulariser has a term for the mean of its inputs."""

    @of_each_unit
    def input_regularizer(self, input: Tensor) -> Tensor:
        r"""What the regulariser adds for a layer's inputs, where these change in training.

        .. math::
            R_z = \operatorname{mean}_{oi}\, (1 - |W_{oi}|)\, \bar x_i^2
            \;\text{(NAU)}, \qquad
            R_z = \operatorname{mean}_{oi}\, (1 - W_{oi})\, (1 - \bar x_i)^2 \;\text{(NMU, SNMU)}

        of the mean input of all rows. It reaches what made the input, for which it is meant: an
        input that is not selected shall be neutral on average. A NACNMU's is that of an NMU, of
        :math:`\log(|x| + \epsilon)` in the place of x, as in its authors' code.

        Args:
            input: x, (..., in_features), with at least one row.

        Returns:
            R_z, a scalar. :func:`nalu_kernels.input_regularizer` sums it over a model's layers.

        Raises:
            TypeError: input is no tensor of the layer's dtype.
            ValueError: a wrong shape, or no row.

        Source: Madsen and Johansen 2020, "Neural Arithmetic Units", their sequential MNIST.
        """
        rows = self._rows(input)
        if not len(rows):
            raise ValueError(f"input: expected at least one row, got shape {tuple(input.shape)}")
        return self._input_term(rows.mean(0))

    def _rows(self, input: Tensor) -> Tensor:
        """What R_z has the mean of: (rows, in_features)."""
        check_W(*widen(input, *self._tensors(input))[1])
        return wide(input).reshape(-1, self.in_features)

    def _input_term(self, mean: Tensor) -> Tensor:
        """R_z of rows of this mean."""
        (W,) = self._regularized()
        if self._bounds is SIGNED:
            return ((1 - W.abs()) * mean.square()).mean()
        return ((1 - W) * (1 - mean).square()).mean()


class TanhSigmoidLayer(Layer):
    """A layer whose weights are made of its parameters W_hat and M_hat."""

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
        super().__init__(in_features, out_features, dtype)
        self.eps = check_eps_in(dtype, eps)
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

    def _weights(self) -> list[Tensor]:
        return [self.W]


class UntiedLayer(TanhSigmoidLayer):
    """One whose product may have weights of its own, W_hat_mul and M_hat_mul; None if tied."""

    W_hat_mul: nn.Parameter | None
    M_hat_mul: nn.Parameter | None
    tied: bool

    @property
    def W_mul(self) -> Tensor:
        """The weights of the product, made like :attr:`W` of W_hat_mul and M_hat_mul.

        They are W itself if the weights are tied.
        """
        if self.W_hat_mul is None or self.M_hat_mul is None:
            return self.W
        return self._weight(self.W_hat_mul, self.M_hat_mul)

    def _weights(self) -> list[Tensor]:
        return [self.W] if self.tied else [self.W, self.W_mul]


def sparsity(W: Tensor, *, signed: bool) -> Tensor:
    """The mean distance of weights from 0 and 1, and from -1 if they are signed; 0 of none."""
    distance: Tensor = torch.minimum(W.abs(), (1 - (W.abs() if signed else W)).abs())
    return distance.mean() if W.numel() else distance.sum()
