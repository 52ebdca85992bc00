"""Subclasses of Tensor, and modes, are asked by ``__torch_function__``, as torch.nn.Linear asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

import nalu_kernels
from conftest import Backend
from nalu_kernels import NAC, NALU, NACCell, NALUCell

LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(3, 2),
    lambda: NAC(3, 2),
    lambda: NAC(3, 2, log_space=True),
    lambda: NALU(3, 2),
    lambda: NALU(3, 2, tied=False, gate="sample", gate_bias=True),
    lambda: NACCell(3, 2),
    lambda: NALUCell(3, 2),
]
every_layer = pytest.mark.parametrize("make", LAYERS)


class Metres(Tensor):
    """Carries a unit, and hands it on."""

    unit: str

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(found, Metres):
            given = torch.utils._pytree.tree_leaves((args, kwargs))
            found.unit = next(a.unit for a in given if isinstance(a, Metres))
        return found


def metres(tensor: Tensor) -> Metres:
    found = tensor.as_subclass(Metres)
    found.unit = "m"
    return found


@every_layer
def test_what_an_input_carries_is_handed_on(
    make: Callable[[], nn.Module], backend: Backend, rng: Generator
) -> None:
    layer = make().to(backend.device)
    x = torch.rand(5, 3, generator=rng).to(backend.device)
    found = layer(metres(x))
    assert isinstance(found, Metres)
    assert found.unit == "m"
    assert torch.equal(found.as_subclass(Tensor), layer(x))
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_what_a_weight_carries_is_handed_on(backend: Backend, rng: Generator) -> None:
    x, W, M, G = (torch.rand(2, 2, generator=rng).to(backend.device) for _ in range(4))
    assert nalu_kernels.nac(x, W, metres(M)).unit == "m"
    for name in ("gate_bias", "W_hat_mul", "M_hat_mul"):
        others = {"gate_bias": G[0], "W_hat_mul": W, "M_hat_mul": M}
        others[name] = metres(others[name])
        found = nalu_kernels.nalu(x, W, M, G, **others)
        assert isinstance(found, Metres), name


class Wrapper:
    """Not a Tensor, but stands for one."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = [a.tensor if isinstance(a, Wrapper) else a for a in args]
        return cls(func(*args, **(kwargs or {})))


def test_what_stands_for_a_tensor(rng: Generator) -> None:
    x = torch.rand(5, 3, generator=rng)
    for layer in (NAC(3, 2), NALU(3, 2)):
        assert torch.equal(layer(Wrapper(x)).tensor, layer(x))


def test_a_mode_sees_the_functions(rng: Generator) -> None:
    class Seen(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seen: list[Any] = []
    x, model = torch.rand(5, 3, generator=rng), nn.Sequential(NALU(3, 2), NAC(2, 1))
    with Seen():
        found = model(x)
    assert seen == [nalu_kernels.nalu, nalu_kernels.nac]
    assert torch.equal(found, model(x))
    seen.clear()
    with torch.no_grad(), nalu_kernels.keep_weights(model), Seen():
        model(x)
    assert seen == [nalu_kernels.nalu, nalu_kernels.nac]
