"""A stack of layers as a table of runs sees it: a program, and a row of numbers for each run."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..layers import (
    GNALU,
    INALU,
    NAC,
    NACNMU,
    NALU,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    SNMU,
    NACSigma,
    RealNPU,
)
from ..layers.base import TanhSigmoidLayer
from ..layers.initialize import init_range, nau_range, xavier_std
from ..reference.gnalu import LOG_GOLDEN_RATIO
from . import stream

MOST_LAYERS, MOST_INPUTS, MOST_HIDDEN = 16, 512, 64  # of the kernels
# As csrc/training.h counts them; NACs in log space are 1.
_KINDS = {
    NAC: 0, NALU: 2, GNALU: 2, nn.Linear: 3, nn.ReLU: 4, nn.ReLU6: 5,
    NAU: 6, NMU: 7, INALU: 8, NPU: 9, RealNPU: 9, NRU: 10, NMRU: 11,
    SNMU: 12, NACSigma: 1, NACNMU: 1,
}  # fmt: skip
OF_GATES = ("G", "gate_bias", "g")  # names of parameters
_SUPPORTED = f"{', '.join(kind.__name__ for kind in _KINDS)}, Identity, and Sequential of these"
_LAYERS = {kind.__name__: kind for kind in (*_KINDS, nn.Identity)}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Parameter(NamedTuple):
    """A parameter of the stack: its place in a run's row of numbers, and how it begins."""

    name: str
    shape: tuple[int, ...]
    place: slice
    # Uniform on (low, high) at first; normal, of mean, std and bounds; or of one value.
    start: tuple[float, ...]


class Stack:
    """What ``template``, a layer or a Sequential of layers, tells about itself.

    Args:
        template: never changed; its own parameters' values do not matter.

    Attributes:
        template: a copy of it, in training mode.
        in_features, out_features: sizes of the stack's input and output.
        parameters: in the order of ``template.named_parameters()``.
        size: how many numbers they have in all.
        program: int64 (layers, 8): kind, in, out, gates, bias, untied, option, modified, a row a
            layer, without Identity; see ``csrc/training.h``.
        constants: float64 (layers, 3): eps, omega, scale; 0, 0, 1 where a layer has none, and the
            bounds of an SNMU's noise, and 1. An eps of NaN is that of the runs' dtype.

    Raises:
        TypeError: a layer of another kind, or changed by hooks or parametrizations.
        ValueError: layers whose sizes do not fit, a layer that stands in two places or is of
            stacked units, frozen parameters, or nothing to train.
    """

    def __init__(self, template: nn.Module) -> None:
        if not isinstance(template, nn.Module):
            raise TypeError(f"stack: expected a torch.nn.Module, got {type(template).__name__}")
        named = list(leaves("", template))
        _check(named)
        self.template = copy.deepcopy(template).requires_grad_(True).train()
        sized = [layer for _, layer in named if hasattr(layer, "in_features")]
        if not sized:
            raise ValueError("stack: expected a layer with parameters, found none")
        self.in_features, width = int(sized[0].in_features), int(sized[0].in_features)
        rows, constants = [], []
        for name, layer in named:
            if hasattr(layer, "in_features"):
                if layer.in_features != width:
                    raise ValueError(
                        f"stack: {_called(name, layer)} expects {layer.in_features} inputs, and "
                        f"gets {width}"
                    )
                width = int(layer.out_features)
            if min(self.in_features, width) < 1:
                raise ValueError(f"stack: {_called(name, layer)} has no inputs or no outputs")
            if type(layer) is not nn.Identity:
                rows.append(_row(layer, width))
                constants.append(_constants(layer))
        self.out_features = width
        if sum(isinstance(layer, SNMU) for _, layer in named) > stream.NOISES:
            raise ValueError(f"stack: expected at most {stream.NOISES} SNMUs, which draw noise")
        self.program = torch.tensor(rows, dtype=torch.int64)
        self.constants = torch.tensor(constants, dtype=torch.float64)
        self.parameters = list(_parameters(named))
        self.size = self.parameters[-1].place.stop

    def layers(self) -> list[nn.Module]:
        """Those of the program's rows."""
        return [layer for _, layer in leaves("", self.template) if type(layer) is not nn.Identity]

    def beyond_kernels(self) -> str | None:
        """Which limit of the kernels the stack exceeds, in words; None if none."""
        layers, widest = len(self.program), int(self.program[:, 2].max())
        if layers > MOST_LAYERS:
            return f"the stack has {layers} layers, the kernels take at most {MOST_LAYERS}"
        if self.in_features > MOST_INPUTS:
            return (
                f"the stack has {self.in_features} inputs, the kernels take at most {MOST_INPUTS}"
            )
        if widest > MOST_HIDDEN:
            return f"a layer has {widest} outputs, the kernels take at most {MOST_HIDDEN}"
        return None

    def draw(self, seeds: Tensor, dtype: torch.dtype) -> Tensor:
        """Initial parameters of the runs of these seeds: (len(seeds), size).

        Each parameter is drawn as its layer draws it, by the stream of :mod:`.stream`.
        """
        rows = torch.zeros(len(seeds), self.size, dtype=dtype)
        for number, (_, shape, place, start) in enumerate(self.parameters):
            if len(start) == 1:
                rows[:, place] = start[0]
            else:
                rows[:, place] = stream.initial(seeds, number, start, shape, dtype).flatten(1)
        return rows

    def flatten(self, state: Mapping[str, Tensor], runs: int, dtype: torch.dtype) -> Tensor:
        """Rows (runs, size) of a stacked state, as ``torch.func.stack_module_state`` returns it.

        Raises:
            TypeError, ValueError: names or shapes that are not those of the stack, or finite
                numbers beyond the range of ``dtype``.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"initial: expected a dict of tensors, got {type(state).__name__}")
        wanted = [parameter.name for parameter in self.parameters]
        if set(state) != set(wanted):
            raise ValueError(f"initial: expected the names {wanted}, got {list(state)}")
        rows = torch.empty(runs, self.size, dtype=dtype)
        for name, shape, place, _ in self.parameters:
            value = state[name]
            if not isinstance(value, Tensor) or tuple(value.shape) != (runs, *shape):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"initial[{name!r}]: expected shape {(runs, *shape)}, got {got}")
            given = value.detach().reshape(runs, -1).cpu()
            rows[:, place] = given.to(dtype)
            if bool((given.isfinite() & ~rows[:, place].isfinite()).any()):
                kind = str(dtype).removeprefix("torch.")
                raise ValueError(f"initial[{name!r}]: has numbers beyond the range of {kind}")
        return rows

    def state(self, rows: Tensor) -> dict[str, Tensor]:
        """The parameters by name, each (*rows.shape[:-1], *shape), of rows (..., size)."""
        return {
            name: rows[..., place].reshape(*rows.shape[:-1], *shape)
            for name, shape, place, _ in self.parameters
        }

    def module(self, row: Tensor) -> nn.Module:
        """A new module like the template, with the parameters of a row (size,)."""
        module = copy.deepcopy(self.template).to(row.device, row.dtype)
        module.load_state_dict(self.state(row))
        return module

    def sparsity(self, rows: Tensor) -> Tensor:
        r"""The sparsity error of each of the rows (runs, size): float64 (runs).

        max min(|W|, |1 - |W||) over the weights that :func:`nalu_kernels.sparsity_error` has, and
        those of torch.nn.Linear. Source: Madsen and Johansen 2020, "Neural Arithmetic Units",
        section 4.1.
        """
        state, worst = self.state(rows), []
        for name, layer in leaves("", self.template):
            own = {
                parameter: state[f"{name}.{parameter}".removeprefix(".")]
                for parameter, _ in layer.named_parameters()
            }
            for value in _weights(layer, own):
                size = value.double().abs().flatten(1)
                worst.append(torch.minimum(size, (1 - size).abs()).amax(1))
        return torch.stack(worst).amax(0)

    def describe(self) -> list[list[Any]]:
        """What :meth:`of` makes the stack of again, as JSON has it."""
        return [
            [name, type(layer).__name__, options(layer)]
            for name, layer in self.template.named_modules()
        ]

    @classmethod
    def of(cls, description: list[list[Any]]) -> Stack:
        """The stack that was described."""
        root: nn.Module = nn.Sequential()
        for name, kind, options in description:
            # float64 takes every eps; the rows of numbers have a dtype of their own.
            dtype = {"dtype": torch.float64} if options else {}
            module = nn.Sequential() if kind == "Sequential" else _LAYERS[kind](**options, **dtype)
            if not name:
                root = module
                continue
            parent, _, last = name.rpartition(".")
            root.get_submodule(parent).add_module(last, module)
        return cls(root)


def leaves(name: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers of nested Sequentials by name. A Sequential with hooks is more than its layers,
    and stays one."""
    if type(module) is nn.Sequential and not has_hooks(module):
        for child, layer in module._modules.items():
            assert layer is not None
            yield from leaves(f"{name}.{child}".removeprefix("."), layer)
    else:
        yield name, module


def has_hooks(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in _HOOKS)


def _called(name: str, layer: nn.Module) -> str:
    return f"layer {name} ({type(layer).__name__})" if name else f"the {type(layer).__name__}"


def _check(named: list[tuple[str, Any]]) -> None:
    places: dict[int, str] = {}
    for name, layer in named:
        called = _called(name, layer)
        if has_hooks(layer):
            raise TypeError(f"stack: {called} has hooks, which a sweep cannot call")
        if type(layer) not in _LAYERS.values():
            raise TypeError(f"stack: {called} is not supported; a sweep trains {_SUPPORTED}")
        if getattr(layer, "units", None) is not None:
            raise ValueError(
                f"stack: {called} is of stacked units; a sweep makes its own: give a single layer"
            )
        if list(layer.parameters()):
            if id(layer) in places:
                raise ValueError(
                    f"stack: {called} stands in two places, also at {places[id(layer)]}"
                )
            places[id(layer)] = name
        if not all(parameter.requires_grad for parameter in layer.parameters()):
            raise ValueError(f"stack: {called} has frozen parameters; a sweep trains all")


def _row(layer: Any, width: int) -> list[int]:
    kind, gates = _KINDS[type(layer)], 0
    bias = untied = option = modified = False
    if isinstance(layer, NAC):
        kind += layer.log_space
    elif isinstance(layer, NALU):
        gates, untied = layer.G.shape[0], not layer.tied
        bias = layer.gate_bias is not None
    elif isinstance(layer, GNALU):
        gates = layer.G.shape[0]
    elif isinstance(layer, nn.Linear):
        bias = layer.bias is not None
    elif isinstance(layer, INALU):
        gates, untied = layer.g.shape[0] if layer.g.dim() == 2 else 0, not layer.tied
        option = layer.gate == "vector"
    elif isinstance(layer, (NPU, RealNPU)):
        untied, option = isinstance(layer, NPU), layer.gate_gradient == "straight-through"
        modified = isinstance(layer, RealNPU) and layer.modified
    elif isinstance(layer, NRU):
        option = True  # training takes the surrogate of |W|
    elif isinstance(layer, (NACSigma, NACNMU)):
        option, modified = isinstance(layer, NACSigma), isinstance(layer, NACNMU)
    elif isinstance(layer, SNMU):
        option = layer.noise == "batch"
    inputs = getattr(layer, "in_features", width)
    return [kind, inputs, width, gates, int(bias), int(untied), int(option), int(modified)]


def _constants(layer: Any) -> list[float]:
    """eps, omega and scale; of an SNMU the bounds of its noise, and 1."""
    if isinstance(layer, SNMU):
        return [0.0, 0.0, 1.0] if layer.noise == "batch" else [*layer.noise, 1.0]
    eps = 2.0**-23 if isinstance(layer, NMRU) else getattr(layer, "eps", 0.0)
    if eps is None:
        eps = math.nan
    scale = LOG_GOLDEN_RATIO if isinstance(layer, GNALU) else 1.0
    return [float(eps), float(getattr(layer, "omega", 0.0)), scale]


def _parameters(named: list[tuple[str, Any]]) -> Iterator[Parameter]:
    start = 0
    for name, layer in named:
        for own, value in layer.named_parameters():
            place = slice(start, start + value.numel())
            shape = tuple(value.shape)
            yield Parameter(f"{name}.{own}".removeprefix("."), shape, place, _start(layer, own))
            start = place.stop


def _start(layer: Any, parameter: str) -> tuple[float, ...]:
    """As the layer's own ``reset_parameters`` has it."""
    if isinstance(layer, INALU):
        means = {"W": 1.0, "M": -1.0, "g": 0.0}
        return means[parameter[0]], 0.1, -math.inf, math.inf
    if isinstance(layer, NACSigma):
        return 0.0, xavier_std(layer.in_features, layer.out_features), -math.inf, math.inf
    if isinstance(layer, (NMU, NMRU, NACNMU)):
        return 0.25, 0.75
    if parameter in ("gate_bias", "W_im"):
        return (0.0,)
    if parameter == "g":
        return (0.5,)
    if isinstance(layer, (NAU, NRU)) or getattr(layer, "modified", False):
        reach = nau_range(layer.in_features, layer.out_features)
    elif isinstance(layer, nn.Linear):
        reach = 1 / math.sqrt(layer.in_features)
    elif parameter == "G":  # Glorot's range; the sigmoid's gain is 1
        reach = math.sqrt(6 / (layer.in_features + layer.G.shape[0]))
    elif parameter == "W_re":
        reach = math.sqrt(6 / (layer.in_features + layer.out_features))
    else:
        reach = init_range(layer.in_features, layer.out_features)
    return -reach, reach


def _weights(layer: Any, state: Mapping[str, Tensor]) -> list[Tensor]:
    """What is to become -1, 0 or 1, of stacked parameters."""
    if isinstance(layer, TanhSigmoidLayer):
        hats = [name for name in state if name.startswith("W_hat")]
        return [layer._weight(state[name], state[name.replace("W", "M")]) for name in hats]
    if isinstance(layer, NACSigma):
        return [layer._weight(state["W_hat"])]
    if isinstance(layer, NAU):
        return [state["W"].clamp(-1, 1)]
    if isinstance(layer, (NPU, RealNPU)):
        return [value.clamp(0, 1) if name == "g" else value for name, value in state.items()]
    return [state[name] for name in ("W", "weight") if name in state]


def options(layer: Any) -> dict[str, Any]:
    """What the layer is made with, but for device and dtype."""
    if isinstance(layer, (nn.Sequential, nn.ReLU, nn.ReLU6, nn.Identity)):
        return {}
    sizes: dict[str, Any] = {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
    }
    if isinstance(layer, nn.Linear):
        return {**sizes, "bias": layer.bias is not None}
    own = inspect.signature(type(layer)).parameters
    names = [name for name in own if name not in (*sizes, "device", "dtype")]
    return {**sizes, **{name: _option(layer, name) for name in names}}


def _option(layer: Any, name: str) -> Any:
    if isinstance(layer, NALU) and name in ("gate", "gate_bias"):
        return layer.gate_per if name == "gate" else layer.gate_bias is not None
    return getattr(layer, name)
