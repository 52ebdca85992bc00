"""What others use of a module besides its answer: it stays if a layer would lose that."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils import parametrizations, prune, weight_norm

from nalu_kernels import NAC, NALU, convert


class Nac(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_hat, self.M_hat = (nn.Parameter(torch.randn(3, 4)) for _ in range(2))

    def _weight(self) -> Tensor:
        return torch.tanh(self.W_hat) * torch.sigmoid(self.M_hat)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self._weight())


class TakesAnOption(Nac):
    def forward(self, x: Tensor, reuse: bool = False) -> Tensor:
        return super().forward(x)


class TakesAKeyword(Nac):
    def forward(self, x: Tensor, *, reuse: bool = False) -> Tensor:
        return super().forward(x)


class TakesAnything(Nac):
    def forward(self, *args: Tensor, **kwargs: object) -> Tensor:
        return super().forward(*args)


class TakesNothingToo(Nac):
    def forward(self, x: Tensor = torch.ones(4)) -> Tensor:  # noqa: B008
        return super().forward(x)


class LeavesW(Nac):
    """A tensor with a history, which deepcopy refuses."""

    def forward(self, x: Tensor) -> Tensor:
        self.W = self._weight()
        return linear(x, self.W)


class LeavesPrivate(Nac):
    def forward(self, x: Tensor) -> Tensor:
        self._last = self._weight()
        return linear(x, self._last)


class LeavesInAList(Nac):
    def __init__(self) -> None:
        super().__init__()
        self._history: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self._history.append(self._weight())
        return super().forward(x)


class LeavesTheSame(Nac):
    """What it leaves is there before."""

    called = False

    def forward(self, x: Tensor) -> Tensor:
        self.called = True
        return super().forward(x)


class LeavesWhereAsked(Nac):
    """By a flag that is not set now."""

    debug = False

    def forward(self, x: Tensor) -> Tensor:
        if self.debug:
            self.last = x
        return super().forward(x)


class LeavesABuffer(Nac):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(3, 4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.weight = self._weight()
        return linear(x, self.weight)


class ClampsItself(Nac):
    def forward(self, x: Tensor) -> Tensor:
        self.W_hat.data.clamp_(-0.1, 0.1)
        return super().forward(x)


class HasAMethod(Nac):
    def effective_weights(self) -> Tensor:
        return self._weight()


class HasAProperty(Nac):
    @property
    def W(self) -> Tensor:
        """What a layer calls W is something else."""
        return self._weight() ** 2


class Penalized:
    def penalty(self: Any) -> Tensor:
        return self.W_hat.square().sum()


class HasABase(Penalized, Nac):
    """The method is inherited."""


class HasALength(Nac):
    def __len__(self) -> int:
        return 3


class Overrides(Nac):
    def train(self, mode: bool = True) -> Overrides:
        return super().train(mode)


class SaysOtherwise(Nac):
    in_features = 3


class HasALock(Nac):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class LeavesInItsDict(Nac):
    def forward(self, x: Tensor) -> Tensor:
        self.__dict__.setdefault("_cache", {})["W"] = self._weight()
        return super().forward(x)


class LeavesInAHelper(Nac):
    def _made(self) -> Tensor:
        if not hasattr(self, "_cache"):
            self._cache = self._weight()
        return self._weight()

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self._made())


class LeavesInADeque(Nac):
    def __init__(self) -> None:
        super().__init__()
        self._last: deque[Tensor] = deque(maxlen=2)

    def forward(self, x: Tensor) -> Tensor:
        self._last.append(self._weight())
        return super().forward(x)


class LeavesInAnObject(Nac):
    def __init__(self) -> None:
        super().__init__()
        self._box = SimpleNamespace()

    def forward(self, x: Tensor) -> Tensor:
        vars(self._box)["W"] = self._weight()
        return super().forward(x)


LOSSES: list[Tensor] = []
COUNT = 0


class AppendsToAGlobal(Nac):
    def forward(self, x: Tensor) -> Tensor:
        LOSSES.append(self.W_hat.abs().sum())
        return super().forward(x)


class CountsInAGlobal(Nac):
    def forward(self, x: Tensor) -> Tensor:
        global COUNT
        COUNT += 1
        return super().forward(x)


def _appends_to_a_list_around_it() -> nn.Module:
    losses: list[Tensor] = []

    class Appends(Nac):
        def forward(self, x: Tensor) -> Tensor:
            losses.append(self.W_hat.abs().sum())
            return super().forward(x)

    return Appends()


def _counts_around_it() -> nn.Module:
    count = 0

    class Counts(Nac):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return super().forward(x)

    return Counts()


class Snaps(Nac):
    snap = False

    def _made(self) -> Tensor:
        return self._weight().round() if self.snap else self._weight()

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self._made())


class Settings:
    snap = False


class SnapsWhereSet(Nac):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self._weight().round() if Settings.snap else self._weight())


class MayAddNoise(Nac):
    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 100:
            x = x + torch.randn_like(x)
        return super().forward(x)


class HasAnActivation(Nac):
    """That others call."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.ReLU()


class HasADropout(Nac):
    """That others may turn up."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.drop(x))


class NaluOf(nn.Module):
    """Of a NAC of another kind, whose method a base class of the model may collect."""

    def __init__(self, nac: nn.Module) -> None:
        super().__init__()
        self.nac, self.G = nac, nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        g, m = torch.sigmoid(linear(x, self.G)), self.nac(torch.log(torch.abs(x) + 1e-7))
        return g * self.nac(x) + (1 - g) * torch.exp(m)


def _buffered() -> nn.Module:
    module = Nac()
    module.register_buffer("steps", torch.zeros(()))
    return module


def _saving() -> nn.Module:
    module = Nac()
    module.register_state_dict_post_hook(lambda *_: None)
    return module


STAYS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "an option": (
        TakesAnOption,
        "its forward takes (x, reuse=False), a layer's takes the input alone",
    ),
    "a keyword": (
        TakesAKeyword,
        "its forward takes (x, reuse=False), a layer's takes the input alone",
    ),
    "anything": (
        TakesAnything,
        "its forward takes (*args, **kwargs), a layer's takes the input alone",
    ),
    "no argument": (TakesNothingToo, "its forward takes x=tensor([1., 1., 1., 1.]), a layer's"),
    "leaves W": (LeavesW, "its forward sets the attribute W, which would be lost"),
    "leaves a private one": (LeavesPrivate, "its forward sets the attribute _last, which would"),
    "leaves the same": (LeavesTheSame, "its forward sets the attribute called, which would be"),
    "leaves it in a list": (LeavesInAList, "it has _history, which would be lost"),
    "leaves it where asked": (LeavesWhereAsked, "its forward sets the attribute last, which"),
    "leaves a buffer": (LeavesABuffer, "it has buffers, which would be lost"),
    "leaves it in its dict": (LeavesInItsDict, "its forward uses __dict__, by which it may set"),
    "leaves it in a helper": (LeavesInAHelper, "its forward sets the attribute _cache, which"),
    "leaves it in a deque": (LeavesInADeque, "it has _last, which would be lost"),
    "leaves it in an object": (LeavesInAnObject, "its forward uses vars, by which it may set"),
    "appends to a global": (AppendsToAGlobal, "its forward looks at LOSSES, which may change"),
    "counts in a global": (CountsInAGlobal, "its forward sets the global COUNT, which would be"),
    "appends to a list around it": (
        _appends_to_a_list_around_it,
        "its forward looks at losses, which may change",
    ),
    "counts around it": (_counts_around_it, "its forward sets count around it, which would be"),
    "a flag": (Snaps, "its forward looks at snap, which may change"),
    "a flag elsewhere": (SnapsWhereSet, "its forward looks at Settings.snap, which may change"),
    "its mode": (MayAddNoise, "its forward looks at training, which may change"),
    "an activation for others": (HasAnActivation, "it has activation, which would be lost"),
    "a dropout": (HasADropout, "it has drop, which would be lost"),
    "clamps itself": (ClampsItself, "its forward changes its parameters"),
    "a method": (HasAMethod, "it has effective_weights, which would be lost"),
    "a property": (HasAProperty, "it has W, which would be lost"),
    "a base's method": (HasABase, "it has penalty, which would be lost"),
    "a length": (HasALength, "it has __len__, which would be lost"),
    "an override": (Overrides, "it has train, which would be lost"),
    "another number": (SaysOtherwise, "its in_features is 3, and a layer's in_features is"),
    "a lock": (HasALock, "it cannot be copied to try it: TypeError: cannot pickle"),
    "a buffer": (_buffered, "it has buffers, which would be lost"),
    "a hook on saving": (_saving, "it has hooks, which would be lost"),
    "weight norm": (
        lambda: parametrizations.weight_norm(Nac(), "W_hat"),
        "it is parametrized, which would be lost",
    ),
    "weight norm by a hook": (
        lambda: weight_norm(Nac(), "W_hat"),
        "it has hooks, which would be lost",
    ),
    "pruned": (
        lambda: prune.random_unstructured(Nac(), "W_hat", 0.3),
        "it has hooks, which would be lost",
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize("case", STAYS)
def test_stays_where_callers_would_lose_something(case: str, has_run: bool) -> None:
    """Whether the model has run or not; all that it does is as before."""
    make, reason = STAYS[case]
    module = make()
    if has_run:
        module(torch.ones(2, 4))
    before = dict(vars(module))
    report = convert(nn.Sequential(module))
    assert report.model[0] is module and not report.replaced
    ((path, left, why),) = report.left
    assert (path, left) == ("0", module) and why.startswith(reason)
    assert vars(module).keys() == before.keys() and type(module).__name__ in str(report)


@pytest.mark.parametrize("make", [HasAMethod, LeavesW, HasABase, LeavesInAList])
def test_stays_where_its_nac_would_be_lost(make: Callable[[], nn.Module]) -> None:
    report = convert(nn.Sequential(NaluOf(make())))
    assert [each.path for each in report.left] == ["0", "0.nac"] and not report.replaced


def test_a_register_of_subclasses_is_left_alone() -> None:
    register = []

    class Registered(Nac):
        def __init_subclass__(cls) -> None:
            register.append(cls)

    assert convert(Registered()).replaced and not register


class Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Nac()
        self.layer.in_dim, self.layer.slope = 4, 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class ReadsAParameter(Parent):
    """Which a layer has by that name: no harm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.layer.W_hat.sum() + self.layer.in_dim


class ReadsAnotherParameter(Parent):
    def __init__(self) -> None:
        super().__init__()
        self.layer = NaluOf(Nac())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.layer.nac.W_hat.square().sum()


class UsesAPrivateMethod(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.layer._weight())


class AsksByName(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + getattr(self.layer, "_weight")().sum()  # noqa: B009


class SetsANumber(Parent):
    def forward(self, x: Tensor) -> Tensor:
        self.layer.slope = 0.5
        return self.layer(x)


class AsksForTheClass(Parent):
    def forward(self, x: Tensor) -> Tensor:
        penalty = sum(m.W_hat.sum() for m in self.modules() if isinstance(m, Nac))
        return self.layer(x) + penalty


class CallsByKeyword(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x=x)


class KeepsAList(Parent):
    def __init__(self) -> None:
        super().__init__()
        self.all = [self.layer]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (ReadsAnotherParameter, "ReadsAnotherParameter uses its nac, which would be lost"),
        (UsesAPrivateMethod, "UsesAPrivateMethod uses its _weight, which would be lost"),
        (AsksByName, "AsksByName uses its _weight, which would be lost"),
        (SetsANumber, "SetsANumber sets its slope, which would be lost"),
        (AsksForTheClass, "AsksForTheClass mentions the class Nac, which a layer is not"),
        (CallsByKeyword, "CallsByKeyword calls something with x=, a layer takes input="),
        (KeepsAList, "KeepsAList refers to it in all too, where it cannot be exchanged"),
    ],
)
def test_stays_where_its_parent_uses_it(
    kind: Callable[[], nn.Module], reason: str, rng: Generator
) -> None:
    model, x = kind(), torch.rand(5, 4, generator=rng)
    expected = model(x)
    report = convert(model)
    assert next((each.path, each.reason) for each in report.left) == ("layer", reason)
    torch.testing.assert_close(model(x), expected)


def test_replaced_where_its_parent_uses_what_a_layer_has(rng: Generator) -> None:
    model, x = ReadsAParameter(), torch.rand(5, 4, generator=rng)
    expected = model(x)
    assert convert(model).replaced
    assert isinstance(model.layer, NAC)
    torch.testing.assert_close(model(x), expected)


class Plain(Nac):
    """Numbers and the like, and what a layer has too."""

    kind = "nac"

    def __init__(self) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.shape = 4, 3, (3, 4)
        self.activation, self.dtype = torch.tanh, torch.float32
        self.register_parameter("bias", None)

    @property
    def in_features(self) -> int:
        return self.W_hat.shape[1]

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.W_hat)

    def extra_repr(self) -> str:
        return "plain"


def test_numbers_and_strings_are_copied() -> None:
    layer = convert(nn.Sequential(Plain())).model[0]
    assert isinstance(layer, NAC)
    assert (layer.kind, layer.in_dim, layer.out_dim, layer.shape) == ("nac", 4, 3, (3, 4))
    assert (layer.in_features, layer.activation, layer.bias) == (4, torch.tanh, None)
    assert layer.dtype == torch.float32
    twin = copy.deepcopy(layer)
    assert twin.in_dim == 4 and twin.state_dict().keys() == {"W_hat", "M_hat"}


def test_a_module_in_two_places_is_left_once() -> None:
    module = TakesAnOption()
    report = convert(nn.ModuleDict({"one": module, "other": nn.Sequential(module)}))
    assert [each.path for each in report.left] == ["one"]


def test_what_has_run_is_replaced_all_the_same(rng: Generator) -> None:
    model = nn.Sequential(NaluOf(Nac()))
    model(torch.rand(5, 4, generator=rng)).sum().backward()
    assert convert(model).replaced and isinstance(model[0], NALU)
