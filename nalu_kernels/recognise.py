"""Which layers of this library another implementation's module might be, by the shapes of its
parameters. ``agree.py`` finds out whether it is one of them; names only tell what is worth a word
if it is none."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from .functional import nac, nalu
from .layers import NAC, NALU

# Where a module does not say what its ε is, it is one of those that are seen in published code.
USUAL_EPS = 1e-7
_EPS = (1e-7, 1e-10, 1e-8, 1e-6, 1e-5, 1e-12, 1e-9, 1e-4, 1e-3, 1e-2, 1e-15, 1e-16, 1e-20, 1e-30)
# How published code calls Ŵ and M̂, the gate, and the classes; of names in small letters.
_W, _M = re.compile(r"_*w(eights?)?_*(h|hat)?(_|$)"), re.compile(r"_*m(ask)?_*(h|hat)?(_|$)")
_EPS_NAME = re.compile(r"(?<![a-z])eps")
_GATE = re.compile(r"_*(g(_|\d|$)|gat(e|ing))")
_CLASS = re.compile(
    r"(nac|nalu|neural_?accumulator|neural_?arithmetic_?logic_?unit)"
    r"(cell|layer|unit|module|block)?\d*(_\w*)?$"
)


class Parts(NamedTuple):
    """The names of all of a module's parameters, by shape."""

    matrices: tuple[str, ...]  # Ŵ and M̂; or both and a gate; or both twice and a gate
    bias: str | None  # of the gate
    shape: tuple[int, ...]  # of Ŵ and M̂, as they are stored


def parts_of(module: nn.Module) -> Parts | None:
    """None unless there are as many parameters of each shape as a NAC or a NALU has; and if a child
    has them all, for then it is the child, and not what it is wrapped in."""
    if not is_foreign(type(module)):
        return None
    parameters = dict(module.named_parameters())
    if any(
        len(list(child.parameters())) == len(parameters)
        for child in module.children()
        if not isinstance(child, (nn.ParameterList, nn.ParameterDict))
    ):
        return None
    if any(is_lazy(parameter) for parameter in parameters.values()):
        return None
    matrices = tuple(name for name, parameter in parameters.items() if parameter.dim() == 2)
    vectors = [name for name, parameter in parameters.items() if parameter.dim() == 1]
    if len(matrices) not in (2, 3, 5) or len(vectors) > (len(matrices) > 2):
        return None
    shapes = Counter(tuple(parameters[name].shape) for name in matrices)
    shape, count = shapes.most_common(1)[0]
    if count < len(matrices) // 2 * 2 or len(matrices) + len(vectors) < len(parameters):
        return None
    return Parts(matrices, vectors[0] if vectors else None, shape)


def shapes_of(module: nn.Module) -> str:
    """The names and shapes of a module's parameters, in words."""
    return ", ".join(
        f"{name} {'not yet' if is_lazy(parameter) else tuple(parameter.shape)}"
        for name, parameter in module.named_parameters()
    )


def is_foreign(kind: type) -> bool:
    """Whether a class is neither PyTorch's nor this library's, nor derived by PyTorch from such a
    class, as parametrized ones are."""
    own = ("torch", __package__.partition(".")[0], "typing", "abc")
    return any(each.__module__.partition(".")[0] not in own for each in kind.__mro__[:-1])


def looks_like_one(module: nn.Module) -> bool:
    """Whether the names are those of a NAC or a NALU: its own parameters', its class's, or that of
    a gate beside what looks like a NAC."""
    if not is_foreign(type(module)):
        return False
    names, children = _own_names(module), dict(_inner(module))
    if _has_pair(names):
        return True
    alike = {name for name, child in children.items() if looks_like_one(child)}
    others = [name for name in children if name not in alike and _has_parameters(children[name])]
    if _CLASS.search(type(module).__name__.lower()) and (names or others):
        return True
    return bool(alike) and any(_GATE.match(name.lower()) for name in [*names, *others])


def _inner(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children, and those in a container in its stead."""
    for name, child in module.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            yield from ((f"{name}.{inner}", each) for inner, each in _inner(child))
        else:
            yield name, child


def _own_names(module: nn.Module) -> list[str]:
    """Of the parameters that are the module's own, in a list, a dict or a Linear too, or
    parametrized."""
    names = list(module._parameters)
    for name, child in module.named_children():
        if isinstance(child, (nn.ParameterList, nn.ParameterDict)):
            names.extend(child._parameters)
        elif isinstance(child, nn.Linear):
            names.append(name)
    if parametrize.is_parametrized(module):
        names.extend(module.parametrizations)  # type: ignore[arg-type]
    return names


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_pair(names: list[str]) -> bool:
    small = [name.lower() for name in names]
    if any("tanh" in name for name in small) and any("sigm" in name for name in small):
        return True
    return any(map(_W.match, small)) and any(map(_M.match, small))


class Candidate(NamedTuple):
    """A layer of this library. ``roles``: the module's name for each of the layer's parameters, and
    whether the module stores it transposed."""

    eps: float
    log_space: bool  # of a NAC
    roles: Mapping[str, tuple[str, bool]]

    @property
    def transposed(self) -> bool:
        return any(transposed for _, transposed in self.roles.values())

    @property
    def needs_eps(self) -> bool:
        return self.log_space or "G" in self.roles

    def tensors(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The layer's parameters, of the module's."""
        return {
            name: parameters[old].t() if transposed else parameters[old]
            for name, (old, transposed) in self.roles.items()
        }

    def call(self, input: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """What the layer returns if the module has these parameters."""
        tensors = self.tensors(parameters)
        if "G" in tensors:
            return nalu(input, **tensors, eps=self.eps)
        return nac(input, **tensors, log_space=self.log_space, eps=self.eps)

    def layer(self, module: nn.Module) -> NAC | NALU:
        """The layer, with the module's own parameters, or copies of those that are transposed."""
        parameters = dict(module.named_parameters())
        tensors = self.tensors(parameters)
        out_features, in_features = tensors["W_hat"].shape
        layer: NAC | NALU
        if "G" in tensors:
            layer = NALU(
                in_features,
                out_features,
                eps=self.eps,
                tied="W_hat_mul" not in tensors,
                gate="output" if tensors["G"].shape[0] == out_features else "sample",
                gate_bias="gate_bias" in tensors,
                device="meta",
            )
        else:
            layer = NAC(
                in_features, out_features, log_space=self.log_space, eps=self.eps, device="meta"
            )
        for name, (old, transposed) in self.roles.items():
            parameter = parameters[old]
            if transposed:
                copied = tensors[name].detach().clone(memory_format=torch.contiguous_format)
                parameter = nn.Parameter(copied, requires_grad=parameter.requires_grad)
                vars(parameter).update(vars(parameters[old]))
            setattr(layer, name, parameter)
        return layer.train(module.training)


def candidates(module: nn.Module, parts: Parts, in_features: int) -> Iterator[Candidate]:
    """Every layer of so many inputs that the module's parameters could be those of, at one ε."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    has_gate = len(parts.matrices) > 2
    for order, turned in itertools.product(itertools.permutations(parts.matrices), (False, True)):
        weights = order[:-1] if has_gate else order
        names = ("W_hat", "M_hat", "W_hat_mul", "M_hat_mul")
        roles = {name: (old, turned) for name, old in zip(names, weights, strict=False)}
        oriented = {_oriented(shapes[old], turned) for old in weights}
        if len(oriented) != 1 or (weight := oriented.pop())[1] != in_features:
            continue
        if not has_gate:
            yield Candidate(USUAL_EPS, False, roles)
            yield Candidate(USUAL_EPS, True, roles)
            continue
        for gate in _gates(order[-1], parts.bias, shapes, weight):
            yield Candidate(USUAL_EPS, False, roles | gate)


def _oriented(shape: tuple[int, ...], transposed: bool) -> tuple[int, ...]:
    return shape[::-1] if transposed else shape


def _gates(
    gate: str, bias: str | None, shapes: Mapping[str, tuple[int, ...]], weight: tuple[int, ...]
) -> Iterator[dict[str, tuple[str, bool]]]:
    """The ways to read the gate beside weights of that shape."""
    for transposed in (False, True):
        shape = _oriented(shapes[gate], transposed)
        if shape not in (weight, (1, weight[1])):
            continue
        roles = {"G": (gate, transposed)}
        if bias is not None:
            if shapes[bias] != shape[:1]:
                continue
            roles["gate_bias"] = (bias, False)
        yield roles


def is_eps(name: str) -> bool:
    """Whether an attribute or a buffer of that name may be ε; one called steps is not."""
    return _EPS_NAME.search(name.lower()) is not None


def named_eps(module: nn.Module) -> list[float]:
    """What the module or a part of it calls eps."""
    named = [
        float(value)
        for part in module.modules()
        for name, value in {**vars(part), **dict(part.named_buffers(recurse=False))}.items()
        if is_eps(name)
        and (isinstance(value, float) or (isinstance(value, Tensor) and value.numel() == 1))
    ]
    return [eps for eps in dict.fromkeys(named) if 0 < eps < float("inf")]


def every_eps(module: nn.Module) -> list[float]:
    """What the module calls eps, then what it may have as a literal."""
    machine = [torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)]
    return list(dict.fromkeys([*named_eps(module), *_EPS, *machine]))
