"""The rounded module: a copy of a layer in float64 whose weights are whole numbers where they were
near them, and whose gates are shut or open where they were on all given inputs.

A rounded layer is a layer of this library again, so what it computes is what the kernels and the
reference define. Parameters that a tanh or a sigmoid squashes become so large that it saturates.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from ..reference.gnalu import LOG_GOLDEN_RATIO
from .whole import POWERS, POWERS_OF_NALU, POWERS_OF_SIGMA, SIGNED, UNSIGNED, Rounded, near

_SATURATED = 1000.0  # a float64 whose sigmoid and tanh are 0 or 1 and -1 or 1
# |x| and this is |x| for all but the smallest numbers, and its logarithm is finite.
_EPS = {"eps": 1e-300}
_EPS_AND_OMEGA = {**_EPS, "omega": 700.0}  # e to that is finite
_NEEDLESS = 1e-3  # they are out of the way if no given output changes by more, relative to its size
_ROUNDING_ERROR = 1e-13  # relative
_OF_LINEAR = 0.01  # of the tolerance: its numbers have no values that they tend to


class Weight(NamedTuple):
    """One matrix of a layer, (out, k): its name, the values that the layer used, and the rounded
    ones; what is not ``used`` multiplies an input that does not count."""

    name: str
    values: Tensor
    rounded: Tensor
    distance: Tensor
    whole: Tensor
    used: Tensor


@dataclass
class Gate:
    """A gate of one output, or of all (``output`` is None), on all given inputs."""

    output: int | None
    dropped: bool
    path: str  # that is left: "sum" or "product"; "both" of one that is open
    margin: float  # the least |z|, where the gate is sigmoid(z)
    # z = logits . inputs + bias, of |inputs| if ``sizes``; it is proven that z keeps its side where
    # the inputs are in their box
    logits: Tensor = field(repr=False)
    bias: float = field(repr=False)
    sizes: bool = field(repr=False)
    proven: bool = False


@dataclass
class RoundedLayer:
    """``depends`` (out, in): which inputs an output needs."""

    layer: nn.Module
    depends: Tensor
    weights: list[Weight] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)


def round_layer(layer: nn.Module, tolerance: float, x: Tensor) -> RoundedLayer:
    """Of a layer in float64 on the CPU; x (rows, in) are its inputs, which decide over gates.

    A layer is asked what it computes with an eps and without, so x has at least one row.
    """
    return _ROUNDED[type(layer)](layer, tolerance, x)


def blank(rounded: RoundedLayer, output: int) -> None:
    """Sets the weights to 0 of an output that nothing needs: it might overflow."""
    for parameter in rounded.layer.parameters():
        if parameter.dim() == 2 and parameter.shape[0] == rounded.depends.shape[0]:
            parameter.data[output] = 0
    rounded.depends[output] = False
    for weight in rounded.weights:
        weight.used[output] = False
    rounded.gates = [gate for gate in rounded.gates if gate.output != output]


def _weight(name: str, values: Tensor, rounded: Rounded, used: Tensor | None = None) -> Weight:
    used = torch.ones_like(rounded.whole) if used is None else used.clone()
    return Weight(name, values, *rounded, used)


def _set(parameter: Any, values: Tensor) -> None:
    parameter.data.copy_(values)


def _logit(values: Tensor) -> Tensor:
    """What a sigmoid makes the values of: saturated for 0 and 1."""
    return torch.logit(values).clamp(-_SATURATED, _SATURATED)


def _set_pair(layer: Any, suffix: str, rounded: Rounded) -> None:
    """Makes tanh(W_hat) sigmoid(M_hat) what it was rounded to, where it was."""
    W_hat, M_hat = getattr(layer, f"W_hat{suffix}"), getattr(layer, f"M_hat{suffix}")
    exact = torch.atanh(rounded.values).clamp(-_SATURATED, _SATURATED)
    _set(W_hat, torch.where(rounded.whole, exact, W_hat.data))
    _set(M_hat, torch.where(rounded.whole, torch.full_like(exact, _SATURATED), M_hat.data))


def _drop_guards(layer: Any, x: Tensor, guards: Mapping[str, float]) -> None:
    """Puts an eps or an omega out of the way where the given inputs do not need it."""
    for name, value in guards.items():
        kept, before = getattr(layer, name), layer(x)
        setattr(layer, name, value)
        off = (layer(x) - before).abs()
        size = before.abs()
        scale = torch.maximum(size, size.median(0, keepdim=True).values)
        if not bool((off <= _NEEDLESS * scale).all()):
            setattr(layer, name, kept)


def _nac(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    W = layer.W.detach()
    rounded = near(W, POWERS_OF_NALU if layer.log_space else SIGNED, tolerance)
    _set_pair(layer, "", rounded)
    if layer.log_space:
        _drop_guards(layer, x, _EPS)
    return RoundedLayer(layer, rounded.values != 0, [_weight("W", W, rounded)])


def _nac_sigma(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    W = layer.W.detach()
    rounded = near(W, POWERS_OF_SIGMA, tolerance)
    _set(layer.W_hat, torch.where(rounded.whole, _logit(rounded.values), layer.W_hat.data))
    _drop_guards(layer, x, _EPS)
    return RoundedLayer(layer, rounded.values != 0, [_weight("W", W, rounded)])


def _plain(
    whole: tuple[float, ...], drops_eps: bool = False
) -> Callable[[Any, float, Tensor], RoundedLayer]:
    """Of a layer that uses its W as it is."""

    def rounded_layer(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
        W = layer.W.detach().clone()
        rounded = near(W, whole, tolerance)
        _set(layer.W, rounded.values)
        if drops_eps:
            _drop_guards(layer, x, _EPS)
        return RoundedLayer(layer, rounded.values != 0, [_weight("W", W, rounded)])

    return rounded_layer


def _nau(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    _set(layer.W, layer.W.data.clamp(-1, 1))  # as it is used
    return _plain(SIGNED)(layer, tolerance, x)


def _snmu(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    """Without noise it is an NMU."""
    plain = NMU(layer.in_features, layer.out_features, dtype=layer.W.dtype).eval()
    _set(plain.W, layer.W.data)
    return _plain(UNSIGNED)(plain, tolerance, x)


def _nmru(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    rounded = _plain(UNSIGNED)(layer, tolerance, x)
    rounded.depends = rounded.depends.unflatten(1, (2, -1)).any(1)
    return rounded


def _power(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    """An NPU or RealNPU. A gate does not count where no weight needs its input, and no weight
    counts whose gate is 0."""
    g = layer.g.detach().clamp(0, 1)
    gates = near(g, UNSIGNED, tolerance)
    W_re = layer.W_re.detach().clone()
    real = near(W_re, POWERS, tolerance)
    W_im = layer.W_im.detach().clone() if isinstance(layer, NPU) else None
    imaginary = None if W_im is None else near(W_im, SIGNED, tolerance)
    is_open = (gates.values != 0).expand_as(W_re)
    needed = real.values != 0
    if imaginary is not None:
        needed = needed | (imaginary.values != 0)
    depends = needed & is_open
    used_gates = needed.any(0)
    weights = [_weight("W_re", W_re, real, is_open)]
    _set(layer.W_re, torch.where(is_open, real.values, 0))
    if W_im is not None and imaginary is not None:
        weights.append(_weight("W_im", W_im, imaginary, is_open))
        _set(layer.W_im, torch.where(is_open, imaginary.values, 0))
    of_gates = Rounded(*(tensor.expand_as(W_re) for tensor in gates))
    weights.append(_weight("g", g.expand_as(W_re), of_gates, needed))
    _set(layer.g, torch.where(used_gates, gates.values, 0))
    if layer.eps is None:
        layer.eps = torch.finfo(torch.float64).eps
    _drop_guards(layer, x, _EPS)
    return RoundedLayer(layer, depends, weights)


def _nac_nmu(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    return _plain(POWERS, drops_eps=True)(layer, tolerance, x)


def _gates(z: Tensor, logits: Tensor, biases: Tensor, sizes: bool, tolerance: float) -> list[Gate]:
    """Of the z (rows, gates) of all given inputs."""
    found = []
    for index, column in enumerate(z.unbind(1)):
        margin = float(column.abs().min())
        same_side = bool((column > 0).all() or (column < 0).all())
        dropped = same_side and float(torch.sigmoid(torch.tensor(-margin).double())) <= tolerance
        path = "both" if not dropped else "sum" if float(column[0]) > 0 else "product"
        output = index if z.shape[1] > 1 else None
        bias = float(biases[index])
        found.append(Gate(output, dropped, path, margin, logits[index].clone(), bias, sizes))
    return found


class _Paths(NamedTuple):
    """Which of the two each output has left, (out, 1) each."""

    sum: Tensor
    product: Tensor


def _paths(gates: list[Gate], outputs: int) -> _Paths:
    left = [gate.path for gate in gates]
    left = left * outputs if len(left) == 1 else left
    of_sum = torch.tensor([path != "product" for path in left]).unsqueeze(1)
    of_product = torch.tensor([path != "sum" for path in left]).unsqueeze(1)
    return _Paths(of_sum, of_product)


def _round_paths(layer: Any, paths: _Paths, tolerance: float) -> tuple[list[Weight], Tensor]:
    """Rounds the weights of a layer with a sum and a product; the second is what depends."""
    W = layer.W.detach()
    whole, powers = near(W, SIGNED, tolerance), near(W, POWERS_OF_NALU, tolerance)
    if layer.tied:
        only_product = (~paths.sum).expand_as(W)
        rounded = Rounded(
            *(torch.where(only_product, *pair) for pair in zip(powers, whole, strict=True))
        )
        _set_pair(layer, "", rounded)
        return [_weight("W", W, rounded)], rounded.values != 0
    W_mul = layer.W_mul.detach()
    of_sum, of_product = paths.sum.expand_as(W), paths.product.expand_as(W)
    whole = _without(whole, ~of_sum)
    product = _without(near(W_mul, POWERS_OF_NALU, tolerance), ~of_product)
    _set_pair(layer, "", whole)
    _set_pair(layer, "_mul", product)
    weights = [_weight("W", W, whole, of_sum), _weight("W_mul", W_mul, product, of_product)]
    return weights, (whole.values != 0) | (product.values != 0)


def _without(rounded: Rounded, dropped: Tensor) -> Rounded:
    return Rounded(
        torch.where(dropped, 0, rounded.values), rounded.distance, rounded.whole | dropped
    )


def _nalu(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    G = layer.G.detach().clone()
    bias = torch.zeros_like(G[:, 0]) if layer.gate_bias is None else layer.gate_bias.detach()
    gates = _gates(x @ G.T + bias, G, bias, False, tolerance)
    new = NALU(
        layer.in_features,
        layer.out_features,
        eps=layer.eps,
        tied=layer.tied,
        gate=layer.gate_per,
        gate_bias=True,
        dtype=G.dtype,
    ).eval()
    new.load_state_dict({**layer.state_dict(), "gate_bias": bias})
    assert new.gate_bias is not None
    new_bias = new.gate_bias.data
    for index, gate in enumerate(gates):
        if gate.dropped:
            new.G.data[index] = 0
            new_bias[index] = _SATURATED if gate.path == "sum" else -_SATURATED
    paths = _paths(gates, layer.out_features)
    weights, depends = _round_paths(new, paths, tolerance)
    if bool(paths.product.any()):
        _drop_guards(new, x, _EPS)
    return RoundedLayer(new, depends | (new.G.detach() != 0), weights, gates)


def _gnalu(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    """A NALU of the scaled parameters."""
    plain = NALU(layer.in_features, layer.out_features, eps=layer.eps, dtype=layer.G.dtype)
    plain.load_state_dict(
        {name: LOG_GOLDEN_RATIO * value for name, value in layer.state_dict().items()}
    )
    return _nalu(plain.eval(), tolerance, x)


def _inalu(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    g = layer.g.detach().clone()
    independent = g.dim() == 1
    if independent:
        z, logits, biases = g.unsqueeze(0), torch.zeros_like(layer.W_hat), g
    else:
        z, logits, biases = x.abs() @ g.T, g, torch.zeros(len(g), dtype=g.dtype)
    gates = _gates(z, logits, biases, not independent, tolerance)
    if not independent and not all(gate.dropped for gate in gates):
        # A gate of the inputs has no bias that could shut one and leave another.
        for gate in gates:
            gate.dropped, gate.path = False, "both"
    new = layer
    if all(gate.dropped for gate in gates) and not independent:
        new = INALU(
            layer.in_features,
            layer.out_features,
            tied=layer.tied,
            eps=layer.eps,
            omega=layer.omega,
            dtype=g.dtype,
        ).eval()
        new.load_state_dict({**layer.state_dict(), "g": new.g.data})
    for output in range(layer.out_features):
        gate = gates[output if len(gates) > 1 else 0]
        if gate.dropped:
            new.g.data[output] = _SATURATED if gate.path == "sum" else -_SATURATED
    paths = _paths(gates, layer.out_features)
    weights, depends = _round_paths(new, paths, tolerance)
    if bool(paths.product.any()):
        _drop_guards(new, x, _EPS_AND_OMEGA)
    if new.g.dim() == 2:
        depends = depends | (new.g.detach() != 0)
    return RoundedLayer(new, depends, weights, gates)


def _linear(layer: Any, tolerance: float, x: Tensor) -> RoundedLayer:
    """Its numbers become small fractions only where they are very near, and are never too far; 0
    only where rounding errors of the layer's largest are all that they are."""
    largest = max(float(of.abs().max()) if of.numel() else 0.0 for of in layer.parameters())
    for parameter in layer.parameters():
        values = parameter.detach()
        size = values.abs().clamp(max=1)
        nearest = _twelfths(values)
        is_near = (values - nearest).abs() <= _OF_LINEAR * tolerance * size
        rounded = torch.where(is_near, nearest, values)
        _set(parameter, torch.where(values.abs() <= _ROUNDING_ERROR * largest, 0, rounded))
    return RoundedLayer(layer, layer.weight.detach() != 0)


def _twelfths(values: Tensor) -> Tensor:
    """The nearest integer, half, third or quarter."""
    choices = torch.stack([torch.round(values * below) / below for below in (1, 2, 3, 4)])
    place = (choices - values).abs().argmin(0, keepdim=True)
    return choices.gather(0, place)[0]


def _each(layer: nn.Module, tolerance: float, x: Tensor) -> RoundedLayer:
    return RoundedLayer(layer, torch.eye(x.shape[1], dtype=torch.bool))


_ROUNDED: dict[type, Callable[[Any, float, Tensor], RoundedLayer]] = {
    NAC: _nac,
    NACSigma: _nac_sigma,
    NACNMU: _nac_nmu,
    NALU: _nalu,
    GNALU: _gnalu,
    INALU: _inalu,
    NAU: _nau,
    NMU: _plain(UNSIGNED),
    SNMU: _snmu,
    NPU: _power,
    RealNPU: _power,
    NRU: _plain(SIGNED),
    NMRU: _nmru,
    nn.Linear: _linear,
    nn.ReLU: _each,
    nn.ReLU6: _each,
}
KINDS = (*_ROUNDED, nn.Identity)


def copied(layer: nn.Module) -> nn.Module:
    """In float64, on the CPU, as it is evaluated."""
    return copy.deepcopy(layer).to("cpu", torch.float64).eval().requires_grad_(False)
