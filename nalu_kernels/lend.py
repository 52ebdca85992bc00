"""Modules of stable-nalu and of what is built on it, such as nalm-benchmark, which are more than
their forward: their networks ask them for regularisers, have them clamp weights after a step, log
and stop noise, and know them by their class. Such a module stays what it is, and a layer of this
library computes its forward."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from .agree import copied
from .callers import forwards_of, sets_of
from .recognise import Candidate
from .references import codes, held, reachable

# By the class that all its modules are derived from.
_BASE = "ExtendedTorchModule"
_OWN = vars(nn.Module()).keys()
_GIVEN = "_given"


def is_more_than_its_forward(module: nn.Module) -> bool:
    return any(kind.__name__ == _BASE for kind in type(module).__mro__)


def what_forward_does(module: nn.Module, in_features: int, written: list[str]) -> str | None:
    """Why it counts that the module's own forward runs, besides its answer; None if it does not.

    Args:
        module: of that library.
        in_features: what it takes.
        written: the attributes that its forward has set.
    """
    forwards = forwards_of(module)
    for name in (*(f"the attribute {each}" for each in written), *sets_of(forwards)):
        return f"its forward sets {name}, which would be lost"
    if any(name.count(".") for name, _ in module.named_parameters()):
        return "its parameters are those of modules in it, which are tried by themselves"
    words = {name for each in forwards for code in codes(each) for name in code.co_names}
    writer = type(getattr(module, "writer", None))
    for name in sorted(words & vars(writer).keys()):
        if any(code.co_names for code in codes(vars(writer)[name])):
            return f"its forward logs by {writer.__name__}.{name}, which would be lost"
    twin = copied(module).cpu()
    before = _contents(twin)
    with torch.no_grad():
        twin(torch.ones(2, in_features, dtype=next(twin.parameters()).dtype, device="cpu"))
    after = _contents(twin)
    for name, content in before.items():
        if content != after[name]:
            return f"its forward changes {name}, which would be lost"
    return None


def _contents(module: nn.Module) -> dict[str, list[tuple[Any, ...]]]:
    """What a module's and its parts' attributes hold, by identity."""
    return {
        name: [(id(each), *map(id, held(each))) for each in reachable(value)]
        for part in module.modules()
        for name, value in vars(part).items()
        if name not in _OWN
    }


class Lent(nn.Module):
    """Goes before a module's class."""

    original: ClassVar[type[nn.Module]]
    candidate: ClassVar[Candidate]
    takes: ClassVar[int]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's, of matrices like those that it has been compared on, while the module's
        attributes are what they were then; else the module's own."""
        if len(args) == 1 and not kwargs and self._as_compared(args[0]):
            return self.candidate.call(args[0], cast("dict[str, Tensor]", self._parameters))
        return super().forward(*args, **kwargs)

    def _as_compared(self, input: Any) -> bool:
        dtypes = {each.dtype for each in self._parameters.values() if each is not None}
        now, then = vars(self), vars(self)[_GIVEN]
        return (
            isinstance(input, Tensor)
            and input.dim() == 2
            and input.shape[1] == self.takes
            and {input.dtype} == dtypes
            and not torch._C._is_any_autocast_enabled()
            and all(now[name] is was or _equal(now[name], was) for name, was in then.items())
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _empty, (self.original, self.candidate, self.takes), vars(self).copy()


def _equal(now: object, was: object) -> bool:
    return isinstance(was, (bool, int, float, str)) and now == was


def _class_of(kind: type[nn.Module], candidate: Candidate, takes: int) -> type[Lent]:
    own = {"original": kind, "candidate": candidate, "takes": takes, "__module__": kind.__module__}
    return cast("type[Lent]", type(kind.__name__, (Lent, kind), own))


def _empty(*of: Any) -> Lent:
    """What a copy or a pickle is filled into."""
    kind = _class_of(*of)
    return kind.__new__(kind)


def lend(module: nn.Module, candidate: Candidate) -> None:
    """Has the layer compute the module's forward, of the module's own parameters."""
    takes, _ = candidate.features(dict(module.named_parameters()))
    vars(module)[_GIVEN] = {name: each for name, each in vars(module).items() if name not in _OWN}
    module.__class__ = _class_of(type(module), candidate, takes)


def take_back(module: Lent) -> None:
    """Gives the module its own forward again."""
    del vars(module)[_GIVEN]
    cast("nn.Module", module).__class__ = module.original
