"""Layers as the transition of a recurrent network, with torch.nn.RNNCell's habits."""

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from ..checks import check_size, check_state
from ..family import OVER_TIME, OverTime
from ..functional.unroll import Cell, unroll
from .base import Layer
from .inalu import INALU
from .nac import NAC
from .nalu import NALU
from .nau import NAU
from .nmu import NMU
from .npu import RealNPU


def _options(layer: type[Layer]) -> list[inspect.Parameter]:
    parameters = inspect.signature(layer).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


class _Cell(nn.Module):
    """h' = layer([x, h]): the columns of the layer's weights are first the input's, then the
    state's. A subclass names the layer, whose options are its own."""

    layer: ClassVar[type[Layer]]
    _name: ClassVar[str]  # of the attribute that holds it
    _over_time: ClassVar[OverTime]  # its function, over the steps of a sequence

    def __init_subclass__(cls) -> None:
        if "layer" in vars(cls):
            cls._name = cls.layer.__name__.lower()
            sizes = list(inspect.signature(_Cell.__init__).parameters.values())[1:3]
            signature = inspect.Signature([*sizes, *_options(cls.layer)])
            cls.__signature__ = signature  # type: ignore[attr-defined]

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__()
        for name in options.keys() - {option.name for option in _options(self.layer)}:
            known = inspect.signature(type(self))
            raise TypeError(f"{type(self).__name__}: {name} is none of its options {known}")
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        features = self.input_size + self.hidden_size
        self.add_module(self._name, self.layer(features, self.hidden_size, **options))

    def reset_parameters(self) -> None:
        """Draws all parameters anew, as the layer does."""
        getattr(self, self._name).reset_parameters()

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """h', the next state; hx is h."""
        if not isinstance(input, Proxy):  # of torch.fx.symbolic_trace, which has no shape to check
            check_state(input, hx, self.input_size, self.hidden_size)
        if hx is None:
            features = (self.hidden_size,)
            hx = input.new_zeros(input.shape[:-1] + features)
        output: Tensor = getattr(self, self._name)(torch.cat((input, hx), dim=-1))
        return output

    def unroll(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        r"""All steps of a sequence in one call: the states that calls of the cell for each
        ``x`` of ``input`` would return.

        The weights are transformed once, their gradients summed over the steps. Where the output
        is all states, the backward needs nothing else that is kept; of the last state alone one is
        kept every :math:`\sqrt{steps}` steps, and those between are computed again, so that memory
        grows with the root of the steps. Where the back end has no kernel for it (``which_backend(
        input, "nac_unroll")``), and under torch.func, the steps are calls of the layer.

        The states are what the backward reads, so they must not be changed in place before it.

        Args:
            input: x of every step, (steps, batch, input_size) or (steps, input_size).
            hx: the state before the first step, (batch, hidden_size) or (hidden_size,); zeros if
                None.
            lengths: how many steps each row has, int64 of shape (batch,) or (), from 0 to steps.
                Behind them the state stays and the output is 0; the input there is not read.
            reset: where the state begins anew with hx, before the step: bool of shape
                (steps, batch) or (steps,). A mark behind a row's length has no effect.
            last_only: return the last state alone.

        Returns:
            the states, (steps, batch, hidden_size) or (steps, hidden_size); with ``last_only`` the
            last of them, without the first dimension, and hx if there are no steps.

        Raises:
            TypeError, ValueError: an argument of the wrong type, shape, dtype, device or range.
        """
        return unroll(
            self._described(input), input, hx, lengths=lengths, reset=reset, last_only=last_only
        )

    def _described(self, input: Any) -> Cell:
        """All that a call over time has to know of the cell."""
        layer = getattr(self, self._name)
        return Cell(
            self._over_time.layer.name,
            self._options_of(layer),
            layer._tensors(input),
            self.input_size,
            self.hidden_size,
        )

    @staticmethod
    def _options_of(layer: Any) -> tuple[Any, ...]:
        """Those of the layer's function."""
        return ()

    def extra_repr(self) -> str:
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}"


class NACCell(_Cell):
    r"""A NAC as recurrent transition: sums and differences over time.

    .. math::
        W = \tanh(\hat W) \odot \sigma(\hat M), \qquad
        h' = [x, h] W^\top \quad\text{or, with log_space,}\quad
        h' = \exp(\log(|[x, h]| + \epsilon) W^\top)

    A state is kept without loss only where its own weight has come to 1, where tanh and sigmoid
    are flat: over n steps, w leaves wⁿ of it. Several states that mix can also grow without bound.

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the state.
        log_space: products, quotients and powers over time. Start it from a state of ones: of
            zeros, as by default, it makes factors of eps.
        eps: keeps log(0) finite; not 0 in float32, or in float64 if that is the dtype.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        input x: (batch, input_size) or (input_size,); hx, the state h: (batch, hidden_size) or
        (hidden_size,), zeros if None. Returns the next state, h', in the shape of hx.

    Attributes:
        nac: the :class:`nalu_kernels.NAC` from input_size + hidden_size to hidden_size features;
            the first input_size columns of its W_hat and M_hat are x's, the others h's.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equation 1, as in the recurrent
    tasks of section 4.
    """

    layer = NAC
    nac: NAC
    _over_time = OVER_TIME["nac"]

    @staticmethod
    def _options_of(layer: NAC) -> tuple[Any, ...]:
        return layer.eps, layer.log_space


class NALUCell(_Cell):
    r"""A NALU as recurrent transition: a gate chooses between sums and products over time.

    .. math::
        h' = g \odot a + (1 - g) \odot m \quad\text{of}\quad [x, h],

    with W, a, m and g as in :class:`nalu_kernels.NALU`.

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the state.
        eps, tied, gate, gate_bias: as of :class:`nalu_kernels.NALU`.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        input x: (batch, input_size) or (input_size,); hx, the state h: (batch, hidden_size) or
        (hidden_size,), zeros if None. Returns the next state, h', in the shape of hx.

    Attributes:
        nalu: the :class:`nalu_kernels.NALU` from input_size + hidden_size to hidden_size features;
            the first input_size columns of its weights are x's, the others h's.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equations 1 and 2, as in the
    recurrent tasks of section 4.
    """

    layer = NALU
    nalu: NALU
    _over_time = OVER_TIME["nalu"]

    @staticmethod
    def _options_of(layer: NALU) -> tuple[Any, ...]:
        return (layer.eps,)


class NAUCell(_Cell):
    r"""An NAU as recurrent transition: sums and differences over time.

    .. math::
        h' = [x, h] \operatorname{clamp}(W, -1, 1)^\top

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the state.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        input x: (batch, input_size) or (input_size,); hx, the state h: (batch, hidden_size) or
        (hidden_size,), zeros if None. Returns the next state, h', in the shape of hx.

    Attributes:
        nau: the :class:`nalu_kernels.NAU` from input_size + hidden_size to hidden_size features;
            the first input_size columns of its weights are x's, the others h's.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units": the recurrent layer of their
    sequential MNIST.
    """

    layer = NAU
    nau: NAU
    _over_time = OVER_TIME["nau"]


class NMUCell(_Cell):
    r"""An NMU as recurrent transition: products over time.

    .. math::
        h'_o = \prod_i (W_{oi} [x, h]_i + 1 - W_{oi})

    Start it from a state of ones, the product of nothing: zeros, the default, stay zeros.

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the state.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        input x: (batch, input_size) or (input_size,); hx, the state h: (batch, hidden_size) or
        (hidden_size,), zeros if None. Returns the next state, h', in the shape of hx.

    Attributes:
        nmu: the :class:`nalu_kernels.NMU` from input_size + hidden_size to hidden_size features;
            the first input_size columns of its weights are x's, the others h's.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units": the recurrent layer of their
    sequential MNIST.
    """

    layer = NMU
    nmu: NMU
    _over_time = OVER_TIME["nmu"]


class INALUCell(_Cell):
    r"""An iNALU as recurrent transition: a gate chooses between sums and products over time.

    .. math::
        h' = \sigma(g) \odot a + (1 - \sigma(g)) \odot m \odot s \quad\text{of}\quad [x, h],

    with a, m and s as in :class:`nalu_kernels.INALU`.

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the state.
        gate, tied, eps, omega: as of :class:`nalu_kernels.INALU`.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        input x: (batch, input_size) or (input_size,); hx, the state h: (batch, hidden_size) or
        (hidden_size,), zeros if None. Returns the next state, h', in the shape of hx.

    Attributes:
        inalu: the :class:`nalu_kernels.INALU` from input_size + hidden_size to hidden_size
            features; the first input_size columns of its weights are x's, the others h's.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Schlör, Ring and Hotho 2020, "iNALU: Improved Neural Arithmetic Logic Unit", for the
    layer.
    """

    layer = INALU
    inalu: INALU
    _over_time = OVER_TIME["inalu"]

    @staticmethod
    def _options_of(layer: INALU) -> tuple[Any, ...]:
        return layer.eps, layer.omega, layer.gate == "vector"


class RealNPUCell(_Cell):
    r"""A RealNPU as recurrent transition: products of powers over time.

    .. math::
        h' = \exp(\log r\, W_\text{re}^\top) \odot \cos(k W_\text{re}^\top)
        \quad\text{of}\quad [x, h],

    with r and k as in :class:`nalu_kernels.RealNPU`. Start it from a state of ones, the product of
    nothing.

    Args:
        input_size: size of the last dimension of the input.
        hidden_size: size of the last dimension of the state.
        eps, gate_gradient, modified: as of :class:`nalu_kernels.RealNPU`.
        device, dtype: of the parameters; float32, float64, bfloat16 or float16.

    Shape:
        input x: (batch, input_size) or (input_size,); hx, the state h: (batch, hidden_size) or
        (hidden_size,), zeros if None. Returns the next state, h', in the shape of hx.

    Attributes:
        realnpu: the :class:`nalu_kernels.RealNPU` from input_size + hidden_size to hidden_size
            features; the first input_size columns of its weights are x's, the others h's.

    Raises:
        TypeError, ValueError: an option or argument of the wrong type, shape, dtype or device.

    Source: Heim, Pevný and Šmídl 2020, "Neural Power Units", for the layer.
    """

    layer = RealNPU
    realnpu: RealNPU
    _over_time = OVER_TIME["npu"]

    @staticmethod
    def _options_of(layer: RealNPU) -> tuple[Any, ...]:
        return layer.eps, layer.gate_gradient == "straight-through"
