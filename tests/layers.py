"""Layers to test: every combination of options, with freshly drawn tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Kind:
    """A function with its options; ``gates`` is None, "output" or "sample"."""

    name: str
    function: str
    log_space: bool = False
    gates: str | None = None
    bias: bool = False
    untied: bool = False

    def made_of(self) -> dict[str, Any]:
        """The options that selection.py pairs."""
        function = (self.function, self.log_space, self.gates)
        return {"function": function, "bias": self.bias, "untied": self.untied}


KINDS = [
    Kind("nac", "nac"),
    Kind("nac_log_space", "nac", log_space=True),
    *(
        Kind(
            "_".join(["nalu", gates, *["bias"] * bias, "untied" if untied else "tied"]),
            "nalu",
            gates=gates,
            bias=bias,
            untied=untied,
        )
        for gates, bias, untied in itertools.product(
            ("output", "sample"), (False, True), (False, True)
        )
    ),
]
BY_NAME = {kind.name: kind for kind in KINDS}
# The one with all seven tensors.
FULLEST = BY_NAME["nalu_output_bias_untied"]


@dataclass(frozen=True)
class Layer:
    """One call of a function, and the gradient that its output will receive."""

    function: str
    tensors: dict[str, Tensor]
    options: dict[str, Any]
    grad_output: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> Layer:
        """The same layer with f applied to every tensor."""
        tensors = {name: f(tensor) for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors, grad_output=f(self.grad_output))

    def with_(self, **tensors: Tensor) -> Layer:
        """The same layer with some tensors replaced; ``grad_output`` counts as one."""
        grad_output = tensors.pop("grad_output", self.grad_output)
        return replace(self, tensors=self.tensors | tensors, grad_output=grad_output)

    def call(self, module: ModuleType | Any, **tensors: Tensor) -> Tensor:
        """What the function of that name in ``module`` returns."""
        return getattr(module, self.function)(**self.tensors | tensors, **self.options)


def outcome(
    module: ModuleType | Any, layer: Layer, wanted: set[str] | None = None
) -> dict[str, Tensor]:
    """``module``'s output for ``layer`` and the gradients of the tensors ``wanted`` (all)."""
    leaves = {
        name: tensor.detach().requires_grad_(wanted is None or name in wanted)
        for name, tensor in layer.tensors.items()
    }
    output = layer.call(module, **leaves)
    differentiated = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not differentiated:
        assert not output.requires_grad
        return {"output": output}
    grads = torch.autograd.grad(output, list(differentiated.values()), layer.grad_output)
    return {"output": output.detach(), **dict(zip(differentiated, grads, strict=True))}


def draw(
    rng: Generator,
    kind: Kind,
    shape: tuple[int, int, int],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Layer:
    """A layer of B x I -> O whose values span many scales but overflow nowhere.

    Inputs of both signs from 0.01 to 10, one in twenty 0 and one in twenty near it; weights from
    linear to saturated; gates from open to shut. Weights shrink with 1 / sqrt(in_features), as they
    do in an initialised layer, so that products of hundreds of factors stay finite. float16, which
    ends at 65504, gets smaller weights and a larger eps.
    """
    B, I, O = shape  # noqa: E741

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(size, generator=rng, dtype=torch.float64) * scale

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=rng, dtype=torch.float64)

    x = 10 ** (3 * uniform(B, I) - 2) * normal(B, I).sign()
    special = uniform(B, I)
    x = torch.where(special < 0.1, 1e-9 * x, x).masked_fill(special < 0.05, 0)
    spread, eps = (1.0, 1e-2) if dtype == torch.float16 else (2.0, 1e-7)
    spread = min(2.0, spread / max(I, 1) ** 0.5)
    tensors = {"input": x, "W_hat": normal(O, I, scale=spread), "M_hat": normal(O, I, scale=2)}
    options: dict[str, Any] = {"eps": eps}
    if kind.function == "nac":
        options["log_space"] = kind.log_space
    else:
        gates = O if kind.gates == "output" else 1
        tensors["G"] = normal(gates, I, scale=spread / 2)
        if kind.bias:
            tensors["gate_bias"] = normal(gates)
        if kind.untied:
            tensors["W_hat_mul"] = normal(O, I, scale=spread)
            tensors["M_hat_mul"] = normal(O, I, scale=2)
    layer = Layer(kind.function, tensors, options, normal(B, O))
    return layer.map(lambda tensor: tensor.to(dtype).to(device))


def numbers(rng: Generator, function: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Of a function after NALU, in float64: inputs of both signs, weights as in a training."""
    tensors = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=rng, dtype=torch.float64)
        if name == "input":
            pass
        elif function in ("nmu", "nmru"):
            drawn = (0.5 + 0.3 * drawn).clamp(0, 1)
        elif function in ("nau", "nru"):
            drawn = (0.7 * drawn).clamp(-1.2, 1.2)
        elif function == "npu":
            drawn = 0.5 + 0.5 * drawn if name == "g" else drawn / max(1, shape[-1]) ** 0.5
        tensors[name] = drawn
    return tensors
