"""Whether a layer answers as a module does to whatever that may be given: inputs of other shapes
and types than the matrix on which ``agree.py`` compares them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .agree import copied, mostly, relative
from .recognise import Candidate, is_foreign

# Relative to the largest number: of the same formula in float64.
_TOLERANCE = 1e-8
_SQUASHING = {
    **dict.fromkeys(("tanh", "hardtanh"), "tanh"),
    **dict.fromkeys(("sigmoid", "special_expit", "hardsigmoid"), "sigmoid"),
}
# Of most numbers, in a dtype of fewer digits: float64 has told how well the formulas agree.
_ROUGHLY = 0.1


def answers_otherwise(
    module: nn.Module, candidate: Candidate, matrices: bool = False
) -> str | None:
    """Why the layer is not what the module is for some input that the module takes; or only for
    some matrix of the module's dtype."""
    in_features, _ = candidate.features(dict(module.named_parameters()))
    rng = torch.Generator().manual_seed(0)
    twin = copied(module).cpu()
    dtype = next(twin.parameters()).dtype
    double = copied(module).to("cpu", torch.float64)
    with torch.no_grad():
        for parameter in double.parameters():
            parameter.normal_(generator=rng)
    layer, layer_in_double = candidate.layer(twin), candidate.layer(double)
    for training in (True, False):
        for each in (twin, double, layer, layer_in_double):
            each.train(training)
        with torch.set_grad_enabled(training):
            for shape in [(5, in_features)] if matrices else _shapes(in_features):
                if candidate.form.elementwise and shape[-1] == 1 != in_features:
                    continue
                x = 1 + 9 * torch.rand(shape, generator=rng, dtype=torch.float64, device="cpu")
                x.requires_grad_(training)
                if found := _difference(double, layer_in_double, x):
                    return f"for an input of shape {shape} {found}"
            for kind, x in _kinds(twin, candidate, in_features, rng):
                if matrices and not (isinstance(x, Tensor) and x.dtype == dtype):
                    continue
                if found := _difference(twin, layer, x):
                    return f"for {kind} {found}"
    if dtype != torch.float32:  # in half precision an ε may be 0
        return None
    with torch.no_grad():  # an ε of each dtype shows where gates are open
        for parameter in twin.parameters():
            parameter.fill_(1 if parameter.dim() == 1 else 1 / in_features)
    zeros = torch.zeros((1, in_features), dtype=dtype, device="cpu")
    if found := _difference(twin, candidate.layer(twin), zeros):
        return f"for an input of zeros {found}"
    return None


def squashes_parameters(module: nn.Module) -> bool:
    """Whether forward takes both tanh and sigmoid of parameters: the module's own, of its Linears
    and containers, or made by it."""
    twin = copied(module).to("cpu", torch.float64)
    theirs = {
        id(parameter)
        for part in twin.modules()
        if part is not twin and is_foreign(type(part))
        for parameter in part.parameters()
    }
    widths = {width for parameter in twin.parameters() for width in parameter.shape} or {1}
    for width in sorted(widths):
        with _Squashed(theirs) as squashed, contextlib.suppress(Exception):
            twin(torch.ones(2, width, dtype=torch.float64, device="cpu"))
        if len(squashed.by) == 2:
            return True
    return False


class _Squashed(TorchFunctionMode):
    """Notes whether tanh and sigmoid are taken of parameters or of parts of them."""

    def __init__(self, but: set[int]) -> None:
        super().__init__()
        self.but, self.by = but, set[str]()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        squashing = _SQUASHING.get(getattr(func, "__name__", ""))
        if squashing and args and isinstance(args[0], Tensor):
            base = args[0] if args[0]._base is None else args[0]._base
            if isinstance(base, nn.Parameter) and id(base) not in self.but:
                self.by.add(squashing)
        return func(*args, **(kwargs or {}))


def _shapes(in_features: int) -> Iterator[tuple[int, ...]]:
    """Rows in any number of dimensions, of size 1 and 0 too; and what becomes rows if a module
    flattens, views or cuts it."""
    for rows in [
        (5,),
        (2, 3),
        (2, 3, 4),
        (1,),
        (),
        (1, 1),
        (6, 1),
        (1, 3),
        (1, 1, 1),
        (0,),
        (2, 0),
    ]:
        yield (*rows, in_features)
    yield from ((2, in_features, 1), (2, 1, in_features, 1), (2, in_features, 1, 1))
    yield from ((2, 2 * in_features), (2, in_features + 1), (2 * in_features,))


def _kinds(
    twin: nn.Module, candidate: Candidate, in_features: int, rng: torch.Generator
) -> Iterator[tuple[str, Any]]:
    """Rows in every dtype, and in lists and tuples."""
    x = (1 + 9 * torch.rand((5, in_features), generator=rng, device="cpu")).round()
    x = x.to(next(twin.parameters()).dtype)
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    if candidate.form.elementwise:
        dtypes = [x.dtype]
    elif not candidate.form.answers_integers:
        dtypes += [torch.int64, torch.int32, torch.uint8, torch.bool]
    for dtype in dtypes:
        yield f"an input of {str(dtype).removeprefix('torch.')}", x.to(dtype)
    yield "an input with NaN", x.masked_fill(x == x[0, 0], float("nan"))
    yield "an input with infinity", x.masked_fill(x == x[0, 0], float("inf"))
    yield "a list of rows", list(x.unbind())
    yield "a tuple of rows", x.unbind()
    yield "a list of columns", list(x.unbind(1))
    yield "a tuple of columns", x.unbind(1)
    yield "a list of matrices", list(x.split(1, 1))
    yield "a tuple of matrices", x.split(1, 1)
    yield "a list of one tensor", [x]
    yield "a list of numbers", x.tolist()


def _difference(twin: nn.Module, layer: nn.Module, x: Any) -> str | None:
    """What the module's twin makes of an input and the layer does not, in words."""
    given = x.detach().clone() if isinstance(x, Tensor) else None
    try:
        expected = twin(x)
    except Exception:  # whatever a stranger's forward raises; so may the layer
        return None
    if given is not None and not torch.equal(x.nan_to_num(), given.nan_to_num()):
        return "its forward changes the input"
    try:
        found = layer(x)
    except Exception as error:
        return f"its forward returns {_looks(expected)}, and a layer raises {type(error).__name__}"
    if _looks(found) != _looks(expected):
        return f"its forward returns {_looks(expected)}, and a layer {_looks(found)}"
    row, numbers = expected.detach().reshape(1, -1), found.detach().reshape(1, -1)
    off: Callable[[Tensor, Tensor], float] = relative if row.dtype == torch.float64 else mostly
    if row.numel() and not off(numbers, row) <= (_TOLERANCE if off is relative else _ROUGHLY):
        return "its forward returns other numbers than a layer"
    return None


def _looks(output: Any) -> str:
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    gradient = "" if output.requires_grad else " without a gradient"
    return f"shape {tuple(output.shape)} of {str(output.dtype).removeprefix('torch.')}{gradient}"
