"""Who in a model knows a module by its class, or keeps it where it cannot be exchanged."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nalu_kernels import NAC, convert


class Nac(nn.Module):
    """Whose weights a layer stores the other way round, so that parameters too would be old."""

    def __init__(self) -> None:
        super().__init__()
        self.W_, self.M_ = (nn.Parameter(torch.randn(4, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (torch.tanh(self.W_) * torch.sigmoid(self.M_))


class Parent(nn.Module):
    def __init__(self, keep: Callable[[Any], Any] = lambda nac: None) -> None:
        super().__init__()
        self.nac = Nac()
        self.kept = keep(self.nac)

    def forward(self, x: Tensor) -> Tensor:
        return self.nac(x)

    def penalty(self) -> Tensor:
        found = (each for each in self.modules() if self.counts(each))
        return sum((p.square().sum() for each in found for p in each.parameters()), torch.ones(()))

    def counts(self, module: nn.Module) -> bool:
        return False


class OfTheType(Parent):
    def counts(self, module: nn.Module) -> bool:
        return type(module) is Nac


class OfTheName(Parent):
    def counts(self, module: nn.Module) -> bool:
        return module.__class__.__name__ == "Nac"


class OfAPartOfTheName(Parent):
    def counts(self, module: nn.Module) -> bool:
        return type(module).__name__.lower().startswith("na")


class OfSomeNames(Parent):
    names = ("Nac", "Linear")

    def counts(self, module: nn.Module) -> bool:
        return type(module).__name__ in self.names


class OfKinds(Parent):
    def __init__(self) -> None:
        super().__init__()
        self.kinds = {"penalized": (Nac,)}

    def counts(self, module: nn.Module) -> bool:
        return isinstance(module, self.kinds["penalized"])


def is_penalized(module: nn.Module) -> bool:
    return isinstance(module, Nac)


class OfAFunction(Parent):
    def counts(self, module: nn.Module) -> bool:
        return is_penalized(module)


class OfALambda(Parent):
    def __init__(self) -> None:
        super().__init__()
        self.counts = lambda module: isinstance(module, Nac)  # type: ignore[method-assign]


def of_a_class_around_it() -> nn.Module:
    kind: type = Nac

    class OfAVariable(Parent):
        def counts(self, module: nn.Module) -> bool:
            return isinstance(module, kind)

    return OfAVariable()


@pytest.mark.parametrize(
    "make",
    [
        OfTheType,
        OfTheName,
        OfAPartOfTheName,
        OfSomeNames,
        OfKinds,
        OfAFunction,
        OfALambda,
        of_a_class_around_it,
    ],
)
def test_stays_where_a_penalty_is_collected_by_class(make: Callable[[], Any]) -> None:
    model = make()
    before = model.penalty()
    ((_, _, reason),) = convert(model).left
    assert reason == f"{type(model).__name__} mentions the class Nac, which a layer is not"
    torch.testing.assert_close(model.penalty(), before)


class Slots:
    __slots__ = ("nac",)

    def __init__(self, nac: nn.Module) -> None:
        self.nac = nac


class Slotless:
    """Of which a proxy may be left when it is gone."""


KEEPS: dict[str, Callable[[Any], Any]] = {
    "a container in a container": lambda nac: {"all": [(nac,)]},
    "its forward": lambda nac: nac.forward,
    "a partial": lambda nac: functools.partial(nac),
    "a lambda": lambda nac: lambda x: nac(x),
    "a default": lambda nac: lambda x, layer=nac: layer(x),
    "an object": lambda nac: SimpleNamespace(of=SimpleNamespace(nac=nac)),
    "slots": Slots,
    "a weak reference": weakref.ref,
    "a weak proxy": lambda nac: [weakref.proxy(Slotless()), weakref.proxy(nac)],
    "a list of parameters": lambda nac: [nac.W_],
    "a module in a list": lambda nac: [nn.Sequential(nac)],
    "an optimizer": lambda nac: torch.optim.SGD(nac.parameters(), 0.1),
}


@pytest.mark.parametrize("case", KEEPS)
def test_stays_where_its_parent_keeps_it(case: str) -> None:
    ((path, _, reason),) = convert(Parent(KEEPS[case])).left
    assert (path, reason) == (
        "nac",
        "Parent refers to it in kept too, where it cannot be exchanged",
    )


def test_stays_where_its_parent_reads_it_by_names() -> None:
    class Reads(Parent):
        names = ("W_",)

        def forward(self, x: Tensor) -> Tensor:
            return self.nac(x) + sum(getattr(self.nac, name).sum() for name in self.names)

    ((_, _, reason),) = convert(Reads()).left
    assert reason == "Reads uses its W_, which would be lost"


def test_stays_where_its_parent_resets_it() -> None:
    class Reset(Nac):
        def reset_parameters(self) -> None:
            nn.init.constant_(self.W_, 0.5)

    class Resets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nac = Reset()

        def forward(self, x: Tensor) -> Tensor:
            self.nac.reset_parameters()
            return self.nac(x)

    ((_, _, reason),) = convert(Resets()).left
    assert reason == "Resets uses its reset_parameters, which would be lost"


def test_replaced_where_others_only_keep_their_parent() -> None:
    """And what is made of the class when the model is, or looks at its attributes each time."""

    class Plain(Parent):
        def __init__(self) -> None:
            super().__init__()
            self.call = lambda x: self.nac(x)
            self.itself = [self]

    model = Plain()
    assert convert(model).replaced
    assert isinstance(model.nac, NAC) and model.call(torch.ones(2, 4)).shape == (2, 3)


def test_replaced_beside_its_like() -> None:
    assert convert(nn.Sequential(Nac(), nn.Linear(3, 4), Nac())).replaced[1].path == "2"
