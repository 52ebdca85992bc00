"""NPU and RealNPU as torch.nn.Modules with torch.nn.Linear's habits."""

import torch
from torch import Tensor, nn

from ..checks import check_eps_in, check_flag
from ..functional.npu import npu, real_npu
from .base import Bounds, Layer, sparsity
from .initialize import draw_uniform, draw_xavier, nau_range
from .units import of_each_unit

_MODIFIED: Bounds = {"W_re": (-1.0, 1.0), "g": (0.0, 1.0)}


class _PowerLayer(Layer):
    """What NPU and RealNPU share."""

    modified = False

    @property
    def _has_regularizer(self) -> bool:
        return self.modified

    def __init__(
        self,
        in_features: int,
        out_features: int,
        eps: float | None,
        gate_gradient: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(in_features, out_features, dtype)
        self.eps = None if eps is None else check_eps_in(dtype, eps)
        if gate_gradient not in ("straight-through", "clamped"):
            raise ValueError(
                f"gate_gradient: expected 'straight-through' or 'clamped', got {gate_gradient!r}"
            )
        self.gate_gradient = gate_gradient
        shape = (self.out_features, self.in_features)
        self.W_re = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.g = nn.Parameter(torch.empty(shape[1:], device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Draws W_re anew; the gates become 1/2."""
        draw_xavier(self.W_re)
        with torch.no_grad():
            self.g.fill_(0.5)

    @of_each_unit
    def regularizer(self, term: str | None = None) -> Tensor:
        r"""What keeps the layer sparse, to be added to the loss.

        .. math::
            R_\text{l1} &= \sum_\theta \sum_k |\theta_k| \\
            R_\text{gate} &= \operatorname{mean}_i\, \min(|g_i|,\; |1 - g_i|) \\
            R_\text{weights} &= \operatorname{mean}_{oi}\, |1 - |W_{\text{re},oi}||
            \;\left[{} + \sum_{oi} |W_{\text{im},oi}|\right] \\
            R_\text{sparsity} &= \operatorname{mean}_{oi}\,
            \min(|W_{\text{re},oi}|,\; |1 - |W_{\text{re},oi}||)

        Args:
            term: "l1", of all parameters :math:`\theta`; "gate" and "weights", which the modified
                RealNPU adds (an input that does not matter is to be gated off, so weights go to ±1
                and not to 0); or "sparsity", its alternative to "weights". None is "weights" and
                "gate" of a modified RealNPU, and 0 of others, which train with "l1" alone.

        Returns:
            R, a scalar; float32 for parameters of half precision.

        Raises:
            ValueError: another term.

        Source: Heim, Pevný and Šmídl 2020, "Neural Power Units", for the first; Mistry, Farrahi and
        Hare 2022, "Exploring the Learning Mechanisms of Neural Division Modules", for the others.
        """
        if term is None and self.modified:
            return self.regularizer("weights") + self.regularizer("gate")
        if term is None:
            return super().regularizer()
        if term == "l1":
            return self._l1()
        named = dict(zip(self._names, self._regularized(), strict=True))
        if term == "gate":
            return sparsity(named["g"], signed=False)
        if term == "sparsity":
            return sparsity(named["W_re"], signed=True)
        if term != "weights":
            raise ValueError(f"term: expected 'l1', 'gate', 'weights' or 'sparsity', got {term!r}")
        distance = (1 - named["W_re"].abs()).abs()
        total: Tensor = distance.mean() if distance.numel() else distance.sum()
        return total + named["W_im"].abs().sum() if "W_im" in named else total

    def _weights(self) -> list[Tensor]:
        *weights, gate = self._tensors(None)
        return [*weights, gate.clamp(0, 1)]

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if self.eps is not None:
            text += f", eps={self.eps:g}"
        if self.gate_gradient != "straight-through":
            text += f", gate_gradient={self.gate_gradient!r}"
        return text


class NPU(_PowerLayer):
    r"""Neural power unit: products of powers, by complex weights and a gate for each input.

    .. math::
        \hat g &= \operatorname{clamp}(g, 0, 1), \qquad
        r = \hat g \odot (|x| + \epsilon) + (1 - \hat g), \qquad
        k = \pi \hat g \odot [x < 0] \\
        y &= \exp(\log r\, W_\text{re}^\top - k W_\text{im}^\top) \odot
        \cos(k W_\text{re}^\top + \log r\, W_\text{im}^\top)

    A gate of 0 takes its input for 1.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: keeps log(0) finite; None for that of the input's dtype (``torch.finfo``), as the
            authors have it.
        gate_gradient: "straight-through" passes a gate's gradient on outside [0, 1] too, as the
            authors' package does; "clamped" stops it there, as in the code of their experiments.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W_re, W_im: parameters of shape (out_features, in_features), the first initialised
            Xavier-uniformly, the second with zeros.
        g: parameter of shape (in_features,), initialised with 1/2.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Heim, Pevný and Šmídl 2020, "Neural Power Units".
    """

    _names = ("W_re", "W_im", "g")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        eps: float | None = None,
        gate_gradient: str = "straight-through",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, eps, gate_gradient, device, dtype)
        self.W_im = nn.Parameter(torch.empty_like(self.W_re))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W_re anew; W_im becomes 0, the gates 1/2."""
        super().reset_parameters()
        with torch.no_grad():
            self.W_im.zero_()

    def forward(self, input: Tensor) -> Tensor:
        W_re, W_im, g = self._tensors(input)
        straight_through = self.gate_gradient == "straight-through"
        return npu(input, W_re, W_im, g, eps=self.eps, straight_through=straight_through)


class RealNPU(_PowerLayer):
    r"""The NPU with real weights: products of powers, easier to read.

    .. math::
        \hat g &= \operatorname{clamp}(g, 0, 1), \qquad
        r = \hat g \odot (|x| + \epsilon) + (1 - \hat g), \qquad
        k = \pi \hat g \odot [x < 0] \\
        y &= \exp(\log r\, W_\text{re}^\top) \odot \cos(k W_\text{re}^\top)

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: keeps log(0) finite; None for that of the input's dtype (``torch.finfo``), as the
            authors have it.
        gate_gradient: "straight-through" passes a gate's gradient on outside [0, 1] too, as the
            authors' package does; "clamped" stops it there, as in the code of their experiments.
        modified: as Mistry, Farrahi and Hare train it for division: W_re begins as an NAU's W, and
            :meth:`clamp_` puts W_re back into [-1, 1] and g into [0, 1]. Their regularisers are
            terms of :meth:`regularizer`.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        (..., in_features) to (..., out_features).

    Attributes:
        W_re: parameter of shape (out_features, in_features), initialised Xavier-uniformly; if
            modified, uniformly on (-r, r), r from
            :func:`nalu_kernels.layers.initialize.nau_range`.
        g: parameter of shape (in_features,), initialised with 1/2.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.

    Source: Heim, Pevný and Šmídl 2020, "Neural Power Units"; Mistry, Farrahi and Hare 2022,
    "Exploring the Learning Mechanisms of Neural Division Modules", for ``modified``.
    """

    _names = ("W_re", "g")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        eps: float | None = None,
        gate_gradient: str = "straight-through",
        modified: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, eps, gate_gradient, device, dtype)
        self.modified = check_flag("modified", modified)
        if self.modified:
            self._bounds = _MODIFIED
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W_re anew; the gates become 1/2."""
        super().reset_parameters()
        if self.modified:
            r = nau_range(self.in_features, self.out_features)
            draw_uniform(self.W_re, -r, r)

    def forward(self, input: Tensor) -> Tensor:
        W_re, g = self._tensors(input)
        straight_through = self.gate_gradient == "straight-through"
        return real_npu(input, W_re, g, eps=self.eps, straight_through=straight_through)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", modified=True" if self.modified else "")
