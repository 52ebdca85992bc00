"""Who runs on a GPU: every back end of this library, eager, torch.compile twice, and a floor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

import nalu_kernels
from nalu_kernels import reference

from ..cases import Case
from ..contenders import EAGER, layer_of, linears
from .device import Device

COMPILED, AUTOTUNED = "torch.compile", "torch.compile max-autotune"
PRODUCTS = "three products"
RIVALS = (EAGER, COMPILED, AUTOTUNED)
AUTOTUNE_MODE = "max-autotune-no-cudagraphs"


class Provider(NamedTuple):
    """``forced`` has to be open while ``function`` is called, and costs what must not be timed."""

    name: str
    function: Callable[..., Any]
    forced: Callable[[], AbstractContextManager[None]] = nullcontext


def library_backends(input: Tensor) -> list[str]:
    """The back ends with kernels for tensors like ``input``, best first."""
    found = []
    for name, status in nalu_kernels.backends().items():
        if not status.usable or name == "reference":
            continue
        try:
            with nalu_kernels.use_backend(name):
                nalu_kernels.which_backend(input)
        except ValueError:  # it serves other devices or dtypes
            continue
        found.append(name)
    return found


def library(case: Case, input: Tensor) -> list[Provider]:
    """Every back end; the one that a user gets unasked is not forced, which would cost time."""
    automatic = nalu_kernels.which_backend(input)[0]
    function = layer_of(case, nalu_kernels)
    return [
        Provider(name, function)
        if name == automatic
        else Provider(name, function, functools.partial(nalu_kernels.use_backend, name))
        for name in library_backends(input)
    ]


def compiled(case: Case, device: Device, *, autotune: bool) -> Provider:
    """For one shape, with nothing kept from the last one."""
    torch._dynamo.reset()
    function = layer_of(case, reference)
    if autotune:
        return Provider(AUTOTUNED, device.compile(function, AUTOTUNE_MODE))
    return Provider(COMPILED, device.compile(function, None))


def build(case: Case, input: Tensor, device: Device, *, autotune: bool) -> list[Provider]:
    """With ``autotune`` that one, beside those that its ratios are to."""
    providers = [*library(case, input), Provider(EAGER, layer_of(case, reference))]
    if not autotune:
        providers.append(Provider(PRODUCTS, lambda x, *weights: linears(x, *weights[:3])))
    return [*providers, compiled(case, device, autotune=autotune)]
