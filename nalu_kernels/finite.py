"""Which layer is the first whose output is not finite, and why: a check that the user turns on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import reference
from .checks import is_dtensor
from .layers import NAC, NALU, NMRU, NMU, NRU, SNMU


class check_finite:
    r"""Watches a model: the first module whose output is not finite raises an error that says why.

    It consists of forward hooks on the model and all modules within, of any class, and inner
    modules come before those that contain them. As a context it takes them off at the end of the
    ``with`` block, whatever ends it::

        with nalu_kernels.check_finite(model):
            loss = criterion(model(x), y)

    Without ``with`` they work from its making until :meth:`remove`, so keep what it returns::

        watch = nalu_kernels.check_finite(model)
        ...
        watch.remove()

    Before and after, a model has no hook and no cost. Within, each output is read once, and on a
    GPU each module waits for its output.

    For the product of a :class:`nalu_kernels.NALU` or of a :class:`nalu_kernels.NAC` in log space,

    .. math::
        m = \prod_i (|x_i| + \epsilon)^{w_i},

    the error has the largest product and its largest factor, in float64. Where an input is 0 and
    its weight is negative, that factor is :math:`\epsilon^{w_i}`, up to :math:`1/\epsilon`. For
    the product of a :class:`nalu_kernels.NMU`, :class:`nalu_kernels.NRU` or
    :class:`nalu_kernels.NMRU` it has the same of a faulty output.

    Args:
        model: its modules may be shared and nested, and return tensors in tuples, lists and dicts.
            Sparse tensors are not looked at, nor are modules that it gets later. Of a DTensor each
            process looks at its own part.
        limit: outputs of this size or more are taken for faults too; by default only NaN and
            infinities are.

    Raises:
        TypeError, ValueError: the model is no module, or limit no positive number.
        FloatingPointError: from the model's forward. It names the module, counts its faulty outputs
            and gives the reason: the module's input was not finite, a parameter of it is not, or
            how it came about.

    The check looks at numbers, so it is not for models within torch.compile, torch.export or the
    transforms of torch.func.
    """

    def __init__(self, model: nn.Module, *, limit: float = math.inf) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)):
            raise TypeError(f"limit: expected a positive number, got {type(limit).__name__}")
        if not limit > 0:
            raise ValueError(f"limit: expected a positive number, got {limit}")
        names: dict[nn.Module, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            names.setdefault(module, []).append(name)
        self._handles = [
            module.register_forward_hook(partial(_look, found, float(limit)), with_kwargs=True)
            for module, found in names.items()
        ]

    def remove(self) -> None:
        """Ends the check. May be called again."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> check_finite:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


@torch.no_grad()
def _look(
    names: list[str],
    limit: float,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    for tensor in _tensors(output):
        faulty = ~(tensor.abs() < limit)
        if faulty.any():
            who = " and ".join(name or "the model itself" for name in names)
            raise FloatingPointError(
                f"{who}, {_in_words(module)}: {_faults(tensor, faulty, limit)}. "
                + _reason(module, list(_tensors([args, kwargs])), faulty, limit)
            )


def _tensors(value: object) -> Iterator[Tensor]:
    """The dense tensors of numbers that can be infinite."""
    if isinstance(value, Tensor):
        if value.layout == torch.strided and (value.is_floating_point() or value.is_complex()):
            yield value.to_local() if is_dtensor(value) else value  # type: ignore[attr-defined]
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for part in value:
            yield from _tensors(part)


def _in_words(module: nn.Module) -> str:
    kind = type(module).__name__
    return kind if any(True for _ in module.children()) else f"{kind}({module.extra_repr()})"


def _faults(tensor: Tensor, faulty: Tensor, limit: float) -> str:
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    counts = [f"{nan:,} are NaN", f"{infinite:,} infinite"]
    if limit < math.inf:
        counts.append(f"{int(faulty.sum()) - nan - infinite:,} of size {limit:g} or more")
    return f"of {tensor.numel():,} outputs ({_name(tensor.dtype)}) {', '.join(counts)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _reason(module: nn.Module, inputs: list[Tensor], faulty: Tensor, limit: float) -> str:
    before = sum(int((~tensor.isfinite()).sum()) for tensor in inputs)
    if before:
        return f"Numbers in its input that are not finite: {before:,}. The cause comes before it."
    for name, parameter in module.named_parameters():
        count = sum(int((~tensor.isfinite()).sum()) for tensor in _tensors(parameter))
        if count:
            return f"Numbers in its parameter {name} that are not finite: {count:,}."
    whole = getattr(module, "units", None) is None
    whole = whole and not any(map(is_dtensor, module.parameters()))
    if whole and (isinstance(module, NALU) or (isinstance(module, NAC) and module.log_space)):
        reason = _of_the_product(module, inputs[0], faulty)
        if reason:
            return reason
    noisy = isinstance(module, SNMU) and module.training
    if whole and isinstance(module, (NMU, NRU, NMRU)) and not noisy:
        return _of_the_factors(module, inputs[0], faulty)
    parameters = list(_tensors([*module.parameters()]))
    sizes = [
        f"{what} at most {max(float(tensor.abs().max()) for tensor in tensors):.3g}"
        for what, tensors in (
            ("inputs", [tensor for tensor in inputs if tensor.numel()]),
            (
                "parameters",
                [tensor for tensor in parameters if tensor.numel()],
            ),
        )
        if tensors
    ]
    return f"All that it starts from is finite: {', '.join(sizes) or 'nothing'} in size."


def _of_the_product(layer: NAC | NALU, input: Tensor, faulty: Tensor) -> str | None:
    """Of the faulty output with the largest product; None if its sum is larger still."""
    x = input.double().reshape(-1, layer.in_features)
    W_sum = W = reference.weight(layer.W_hat.double(), layer.M_hat.double())
    if isinstance(layer, NALU) and layer.W_hat_mul is not None and layer.M_hat_mul is not None:
        W = reference.weight(layer.W_hat_mul.double(), layer.M_hat_mul.double())
    logarithms = torch.log(x.abs() + layer.eps)
    exponents = (logarithms @ W.T).masked_fill(~faulty.reshape(-1, layer.out_features), -math.inf)
    row, column = divmod(int(exponents.argmax()), layer.out_features)
    if isinstance(layer, NALU) and exponents[row, column].exp() < (x[row] @ W_sum[column]).abs():
        return None
    terms = logarithms[row] * W[column]
    i = int(terms.argmax())
    number, weight = float(x[row, i]), float(W[column, i])
    reason = (
        f"The product of row {row}, output {column} is exp({float(terms.sum()):.4g}). "
        f"Its largest factor is (|{number:.4g}| + {layer.eps:g}) ** {weight:.4g} = "
        f"{float(terms[i].exp()):.4g}, of input {i}."
    )
    zeros = (x[row] == 0) & (W[column] < 0)
    if zeros.any():
        reason += (
            f" {int(zeros.sum()):,} of its {layer.in_features:,} inputs are 0 and have a negative "
            f"weight: together they make exp({float(terms[zeros].sum()):.4g}). A larger eps, such "
            "as 0.01, or a start without negative weights keeps that small."
        )
    return reason


def _of_the_factors(layer: NMU | NRU | NMRU, input: Tensor, faulty: Tensor) -> str:
    """Of the first faulty output: how large its product is, and the largest factor."""
    row, column = divmod(int(faulty.flatten().nonzero()[0]), layer.out_features)
    x = input.double().reshape(-1, layer.in_features)[row]
    W = layer.W.double()[column]
    if isinstance(layer, NMU):
        factors = (W * x + 1 - W).abs()
    elif isinstance(layer, NRU):
        part = torch.tanh(1000 * W) ** 2 if layer.training else W.abs()
        factors = (part * torch.where(x < 0, -1, 1) * x.abs() ** W + 1 - part).abs()
    else:
        factors = W * torch.cat((x, 1 / x)).abs() + 1 - W
    i = int(factors.argmax())
    number, place = float(x[i % layer.in_features]), i % layer.in_features
    what = f"{number:.4g}" if i == place else f"1 / {number:.4g}"
    reason = (
        f"The product of row {row}, output {column} is 10 to the power of "
        f"{float(factors.log10().sum()):.4g} in size. Its largest factor is "
        f"{float(factors[i]):.4g}, of input {place}: {what} with a weight of {float(W[i]):.4g}."
    )
    if number == 0 and factors[i].isinf():
        reason += " A quotient by 0 has no finite value; keep this input away from 0."
    return reason
