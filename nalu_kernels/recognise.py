"""Which layers of this library another implementation's module might be, by the shapes of its
parameters. ``agree.py`` finds out whether it is one of them; names only tell what is worth a word
if it is none."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from .functional import gnalu, inalu, nac, nalu, nau, nmu, npu, real_npu
from .layers import GNALU, INALU, NAC, NALU, NAU, NMU, NPU, RealNPU
from .layers.base import Layer

# Where a module does not say what its ε is, it is one of those that are seen in published code.
USUAL_EPS = 1e-7
_EPS = (1e-7, 1e-10, 1e-8, 1e-6, 1e-5, 1e-12, 1e-9, 1e-4, 1e-3, 1e-2, 1e-15, 1e-16, 1e-20, 1e-30)
# How published code calls Ŵ and M̂, the gate, and the classes; of names in small letters.
_W, _M = re.compile(r"_*w(eights?)?_*(h|hat)?(_|$)"), re.compile(r"_*m(ask)?_*(h|hat)?(_|$)")
_EPS_NAME = re.compile(r"(?<![a-z])eps")
_GATE = re.compile(r"_*(g(_|\d|$)|gat(e|ing))")
_CLASS = re.compile(
    r"(nac|nalu|nau|nmu|npu|nm?ru|neural_?accumulator|neural_?arithmetic_?logic_?unit"
    r"|neural_?(addition|multiplication|power|reciprocal)_?unit)"
    r"(cell|layer|unit|module|block)?\d*(_\w*)?$"
)


class Form(NamedTuple):
    """A layer with its options, and the axes of its parameters: out, in, or of size 1."""

    layer: Callable[..., Layer]
    function: Callable[..., Tensor]
    axes: Mapping[str, str]
    has_eps: bool = True
    options: Mapping[str, Any] = {}  # of the function
    arguments: Mapping[str, Any] = {}  # of the layer
    # What the same formula in plain PyTorch answers, whether that was meant or not, and a layer
    # does not: integers; and if it is elementwise any dtype, and one column in the stead of all.
    answers_integers: bool = False
    elementwise: bool = False


_SUM, _MUL = {"W_hat": "oi", "M_hat": "oi"}, {"W_hat_mul": "oi", "M_hat_mul": "oi"}
_RE, _IM = {"W_re": "oi"}, {"W_im": "oi"}
_CLAMPED = {"straight_through": False}, {"gate_gradient": "clamped"}

FORMS = (
    Form(NAC, nac, _SUM, has_eps=False),
    Form(NAC, nac, _SUM, True, {"log_space": True}, {"log_space": True}, answers_integers=True),
    *(
        Form(
            NALU,
            nalu,
            {**_SUM, **own, "G": f"{gates}i", **({"gate_bias": gates} if bias else {})},
            arguments={
                "tied": not own,
                "gate": "output" if gates == "o" else "sample",
                "gate_bias": bias,
            },
        )
        for own, gates, bias in itertools.product(({}, _MUL), "o1", (False, True))
    ),
    Form(GNALU, gnalu, {**_SUM, "G": "oi"}),
    Form(NAU, nau, {"W": "oi"}, has_eps=False),
    Form(NMU, nmu, {"W": "oi"}, has_eps=False, elementwise=True),
    Form(INALU, inalu, {**_SUM, **_MUL, "g": "o"}),
    Form(NPU, npu, {**_RE, **_IM, "g": "i"}, elementwise=True),
    Form(NPU, npu, {**_RE, **_IM, "g": "i"}, True, *_CLAMPED, elementwise=True),
    Form(RealNPU, real_npu, {**_RE, "g": "i"}, elementwise=True),
    Form(RealNPU, real_npu, {**_RE, "g": "i"}, True, *_CLAMPED, elementwise=True),
)
_COUNTS = {tuple(sorted(map(len, form.axes.values()))) for form in FORMS}


def shape_of_weights(module: nn.Module) -> tuple[int, ...] | None:
    """As the module stores them. None unless it has as many parameters of each shape as a layer;
    and if a child has them all, for then it is the child, and not what it is wrapped in."""
    if not is_foreign(type(module)):
        return None
    parameters = list(module.parameters())
    if any(
        len(list(child.parameters())) == len(parameters)
        for child in module.children()
        if not isinstance(child, (nn.ParameterList, nn.ParameterDict))
    ):
        return None
    if any(map(is_lazy, parameters)):
        return None
    if tuple(sorted(parameter.dim() for parameter in parameters)) not in _COUNTS:
        return None
    matrices = Counter(tuple(each.shape) for each in parameters if each.dim() == 2)
    shape, count = matrices.most_common(1)[0]
    return shape if count >= matrices.total() // 2 * 2 else None


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
    """Whether the names are those of a layer of this library: its own parameters', its class's, or
    that of a gate beside what looks like a NAC."""
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

    form: Form
    eps: float
    roles: Mapping[str, tuple[str, bool]]

    @property
    def transposed(self) -> bool:
        return any(transposed for _, transposed in self.roles.values())

    def tensors(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The layer's parameters, of the module's."""
        return {
            name: parameters[old].t() if transposed else parameters[old]
            for name, (old, transposed) in self.roles.items()
        }

    def features(self, parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
        """How many the layer takes, and how many it returns."""
        axes, tensors = self.form.axes, self.tensors(parameters)
        weights = next(tensors[name] for name, each in axes.items() if each == "oi")
        return tuple(weights.shape[::-1])

    def call(
        self, input: Tensor, parameters: Mapping[str, Tensor], outputs: int | None = None
    ) -> Tensor:
        """What the layer returns if the module has these parameters, or the first outputs of it."""
        tensors = self.tensors(parameters)
        if outputs is not None:
            axes = self.form.axes
            tensors = {
                name: each[:outputs] if axes[name][0] == "o" else each
                for name, each in tensors.items()
            }
        return self.form.function(input, **tensors, **self.form.options, **self._eps())

    def layer(self, module: nn.Module) -> Layer:
        """The layer, with the module's own parameters, or copies of those that are transposed."""
        parameters = dict(module.named_parameters())
        tensors = self.tensors(parameters)
        # Its parameters are set below; as float64 it takes any ε that the module has.
        made = {"device": "meta", "dtype": torch.float64}
        arguments = {**self.form.arguments, **self._eps(), **made}
        layer = self.form.layer(*self.features(parameters), **arguments)
        for name, (old, transposed) in self.roles.items():
            parameter = parameters[old]
            if transposed:
                copied = tensors[name].detach().clone(memory_format=torch.contiguous_format)
                parameter = nn.Parameter(copied, requires_grad=parameter.requires_grad)
                vars(parameter).update(vars(parameters[old]))
            setattr(layer, name, parameter)
        return layer.train(module.training)

    def _eps(self) -> dict[str, float]:
        return {"eps": self.eps} if self.form.has_eps else {}


def candidates(module: nn.Module, in_features: int) -> Iterator[Candidate]:
    """Every layer of so many inputs that the module's parameters could be those of, at one ε.

    A gate may be stored the other way round than the weights.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    for form in FORMS:
        if len(form.axes) != len(shapes):
            continue
        ways = itertools.product((False, True), (False, True) if "G" in form.axes else (False,))
        for order, (turned, gate_turned) in itertools.product(
            itertools.permutations(shapes), list(ways)
        ):
            roles = {
                name: (old, len(axes) == 2 and (gate_turned if name == "G" else turned))
                for (name, axes), old in zip(form.axes.items(), order, strict=True)
            }
            if _fits(form, roles, shapes, in_features):
                yield Candidate(form, USUAL_EPS, roles)


def _fits(
    form: Form,
    roles: Mapping[str, tuple[str, bool]],
    shapes: Mapping[str, tuple[int, ...]],
    in_features: int,
) -> bool:
    sizes = {"i": in_features, "1": 1}
    for name, (old, transposed) in roles.items():
        shape = shapes[old][::-1] if transposed else shapes[old]
        if len(shape) != len(form.axes[name]):
            return False
        if any(
            sizes.setdefault(axis, size) != size
            for axis, size in zip(form.axes[name], shape, strict=True)
        ):
            return False
    return True


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
    named = named_eps(module)
    given = [*named, *_EPS]
    rounded = torch.tensor(given, dtype=torch.float32, device="cpu").tolist()  # if it became one
    return list(dict.fromkeys([*given, *machine, *rounded]))
