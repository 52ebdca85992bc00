"""Which layers of this library another implementation's module might be, by the names and shapes of
its parameters. ``convert.py`` finds out whether it is one of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .functional import nac, nalu
from .layers import NAC, NALU

# How published code calls Ŵ and M̂, the gate's weight and its bias.
_PAIRS = (("W_hat", "M_hat"), ("W_", "M_"), ("w_hat", "m_hat"), ("W", "M"), ("w", "m"))
_GATES = ("G", "G_", "g", "gate")
_BIASES = ("gate_bias", "G_bias", "bias", "b")
# Where a module does not say what its ε is, it is one of those that are seen in published code.
_EPS = (1e-7, 1e-10, 1e-8, 1e-6, 1e-5, 1e-12, 1e-9, 1e-4, 1e-3, 1e-2, 1e-15, 1e-16, 1e-20, 1e-30)


class Parts(NamedTuple):
    """The names of all of a module's parameters, by what they seem to be."""

    pairs: tuple[tuple[str, str], ...]  # one or two of (Ŵ, M̂)
    gate: str | None
    gate_bias: str | None


def parts_of(module: nn.Module) -> Parts | None:
    """None unless each of the module's parameters has its place in a NAC or a NALU; and if a child
    has them all, for then it is the child, and not what it is wrapped in."""
    names = [name for name, _ in module.named_parameters()]
    if any(len(list(child.parameters())) == len(names) for child in module.children()):
        return None
    pairs = tuple(_pairs(names))
    rest = [name for name in names if name not in itertools.chain(*pairs)]
    gates = [name for name in rest if _is_gate(name)]
    biases = [name for name in rest if name not in gates and _is_bias(name, gates)]
    if len(pairs) not in (1, 2) or len(pairs) > 1 + len(gates):
        return None
    if len(gates) > 1 or len(biases) > len(gates) or len(gates) + len(biases) < len(rest):
        return None
    return Parts(pairs, gates[0] if gates else None, biases[0] if biases else None)


def _pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        prefix, _, last = name.rpartition(".")
        for W, M in _PAIRS:
            other = f"{prefix}.{M}" if prefix else M
            if last == W and other in names:
                yield name, other


def _is_gate(name: str) -> bool:
    """G, or a Linear of that name."""
    *_, parent, last = ("", *name.split("."))
    return last in _GATES or (parent in _GATES and last == "weight")


def _is_bias(name: str, gates: list[str]) -> bool:
    prefix, _, last = name.rpartition(".")
    return last in _BIASES and all(gate.rpartition(".")[0] == prefix for gate in gates)


class Candidate(NamedTuple):
    """A layer of this library. ``roles``: the module's name for each of the layer's parameters, and
    whether the module stores it transposed."""

    eps: float
    log_space: bool  # of a NAC
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
            setattr(layer, name, parameter)
        return layer.train(module.training)


def candidates(module: nn.Module, parts: Parts, in_features: int) -> list[Candidate]:
    """Every layer of so many inputs that the module's parameters could be those of."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    found: list[Candidate] = []
    for pairs, pair_transposed in itertools.product(
        itertools.permutations(parts.pairs), (False, True)
    ):
        names = ("W_hat", "M_hat", "W_hat_mul", "M_hat_mul")
        roles = {
            name: (old, pair_transposed)
            for name, old in zip(names, itertools.chain(*pairs), strict=False)
        }
        weights = {_oriented(shapes[old], turned) for old, turned in roles.values()}
        if len(weights) != 1 or (weight := weights.pop()) is None or weight[1] != in_features:
            continue
        for gate_roles in _gates(parts, shapes, weight):
            both = roles | gate_roles
            spaces = (False,) if gate_roles else (False, True)
            for log_space in spaces:
                every = _eps(module) if gate_roles or log_space else [1e-7]
                found.extend(Candidate(eps, log_space, both) for eps in every)
    return found


def _oriented(shape: tuple[int, ...], transposed: bool) -> tuple[int, ...] | None:
    if len(shape) != 2:
        return None
    return shape[::-1] if transposed else shape


def _gates(
    parts: Parts, shapes: Mapping[str, tuple[int, ...]], weight: tuple[int, ...]
) -> Iterator[dict[str, tuple[str, bool]]]:
    """The ways to read the gate, if there is one, beside weights of that shape."""
    if parts.gate is None:
        yield {}
        return
    for transposed in (False, True):
        shape = _oriented(shapes[parts.gate], transposed)
        if shape not in (weight, (1, weight[1])):
            continue
        roles = {"G": (parts.gate, transposed)}
        if parts.gate_bias is not None:
            if shapes[parts.gate_bias] != shape[:1]:
                continue
            roles["gate_bias"] = (parts.gate_bias, False)
        yield roles


def _eps(module: nn.Module) -> list[float]:
    """What the module or a part of it calls eps, then what it may have as a literal."""
    named = [
        float(value)
        for part in module.modules()
        for name, value in {**vars(part), **dict(part.named_buffers(recurse=False))}.items()
        if "eps" in name.lower()
        and (isinstance(value, float) or (isinstance(value, Tensor) and value.numel() == 1))
    ]
    machine = [torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)]
    return [eps for eps in dict.fromkeys([*named, *_EPS, *machine]) if 0 < eps < float("inf")]
