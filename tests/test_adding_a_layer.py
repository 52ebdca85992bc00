"""Every layer has all the places that docs/adding_a_layer.md names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import nalu_kernels
from nalu_kernels import checks, family, functional, layers, published, recognise, reference, triton
from nalu_kernels.formulas import expressions, rounding
from nalu_kernels.layers.base import Layer
from nalu_kernels.sweep import stack

ROOT = Path(__file__).parents[1]
LAYERS = [
    layer for _, layer in inspect.getmembers(layers, inspect.isclass) if issubclass(layer, Layer)
]
# Some are made of another's.
NAMES = {"RealNPU": "real_npu", "NACSigma": "nac", "NACNMU": "real_npu"}
# Chance, and what an input of 0 gives, set theirs and others' apart; the logarithms of the last two
# are taken outside of their authors' layers.
ROUNDED_TO_ANOTHER = ("SNMU", "GNALU")
NOT_RECOGNISED = ("SNMU", "NRU", "NMRU", "NACSigma", "NACNMU")


def name_of(layer: type[nn.Module]) -> str:
    """Its function's."""
    return NAMES.get(layer.__name__, layer.__name__.lower())


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def kernels(layer: type[nn.Module]) -> str:
    return family.COMPOSED.get(name_of(layer), name_of(layer))


def found(pattern: str, *paths: str) -> bool:
    """Whether it stands in one of the files, as a word of its own where it begins and ends."""
    return any(re.search(pattern, text(path), re.MULTILINE) for path in paths)


# Of csrc/training.h, by the numbers that sweep/stack.py has.
(_ENUM,) = re.findall(r"enum class Kind .*?{(.*?)}", text("csrc/training.h"), re.DOTALL)
KINDS = re.findall(r"\w+", _ENUM)


def has_case(path: str, layer: type[nn.Module]) -> bool:
    kind = stack._KINDS.get(layer)
    return kind is not None and found(rf"\bcase Kind::{KINDS[kind]}:", path)


def is_called(layer: type[nn.Module]) -> bool:
    """What the layer's kind has of its own in csrc/rows/, if anything."""
    kind = stack._KINDS.get(layer)
    if kind is None:
        return False
    header = f"{KINDS[kind]}.h"
    of_its_own = (ROOT / "csrc/rows" / header).exists()
    return not of_its_own or found(rf'#include "{header}"', "csrc/rows/walk.h")


def is_trained_plainly(layer: type[nn.Module]) -> bool:
    return layer in stack._KINDS and layer.regularizer is Layer.regularizer and not layer._bounds


# What a layer has, by the place that is to have it.
PLACES: dict[str, Callable[[type[nn.Module]], bool]] = {
    "nalu_kernels/reference/__init__.py": lambda layer: hasattr(reference, name_of(layer)),
    "nalu_kernels/family.py": lambda layer: kernels(layer) in family.FAMILY,
    "nalu_kernels/checks.py": lambda layer: (
        kernels(layer) in family.FAMILY
        and getattr(checks, family.FAMILY[kernels(layer)].check.__name__, None) is not None
    ),
    "nalu_kernels/functional/__init__.py": lambda layer: hasattr(functional, name_of(layer)),
    "nalu_kernels/__init__.py": lambda layer: (
        {layer.__name__, name_of(layer)} <= {*nalu_kernels.__all__}
    ),
    "nalu_kernels/sweep/stack.py": lambda layer: layer in stack._KINDS,
    "nalu_kernels/published.py": lambda layer: any(
        layer.__name__ in row.layer.split(", ") for row in published.SETTINGS
    ),
    "nalu_kernels/recognise.py": lambda layer: (
        any(form.layer is layer for form in recognise.FORMS) or layer.__name__ in NOT_RECOGNISED
    ),
    "nalu_kernels/formulas/rounding.py": lambda layer: layer in rounding.KINDS,
    "nalu_kernels/formulas/expressions.py": lambda layer: (
        layer in expressions._EXPRESSIONS or layer.__name__ in ROUNDED_TO_ANOTHER
    ),
    "tests/formulas/test_printed.py": lambda layer: found(
        rf"\b{layer.__name__}\b", "tests/formulas/test_printed.py"
    ),
    "csrc/training.h": lambda layer: has_case("csrc/training.h", layer),
    "csrc/train/regularize.h": lambda layer: (
        is_trained_plainly(layer) or has_case("csrc/train/regularize.h", layer)
    ),
    "csrc/rows/lay_out.h": lambda layer: has_case("csrc/rows/lay_out.h", layer),
    "csrc/rows/walk.h": is_called,
    "csrc/rows/operators.h or csrc/operators.h": lambda layer: (
        found(rf'f\("{kernels(layer)}", ', "csrc/rows/operators.h")
        or found(rf"\bvoid {kernels(layer)}_forward\b", "csrc/operators.h")
    ),
    "csrc/ops.cpp": lambda layer: found(rf'"{kernels(layer)}_forward\(', "csrc/ops.cpp"),
    "nalu_kernels/triton/__init__.py": lambda layer: kernels(layer) in triton.FUNCTIONS,
    "tests/test_layers_family.py or tests/test_modules.py": lambda layer: found(
        rf"\b{layer.__name__}\b", "tests/test_layers_family.py", "tests/test_modules.py"
    ),
    "tests/test_family.py or tests/layers.py": lambda layer: found(
        rf'"{name_of(layer)}"', "tests/test_family.py", "tests/layers.py"
    ),
    "tests/test_family_kernels.py or tests/layers.py": lambda layer: (
        found(rf'Form\(\s*"{kernels(layer)}"', "tests/test_family_kernels.py")
        or found(rf'"{kernels(layer)}"', "tests/layers.py")
    ),
    "tests/sweep/test_kernel.py": lambda layer: found(
        rf"\b{layer.__name__}\(", "tests/sweep/test_kernel.py"
    ),
    "tests/test_golden.py": lambda layer: found(
        rf"\bTarget\(\s*(\w+\()?{layer.__name__}\b", "tests/test_golden.py"
    ),
    "docs/family.md": lambda layer: (
        found(rf"^\| `{layer.__name__}\b", "docs/family.md")
        and found(rf"^## .*\b{layer.__name__}\b", "docs/family.md")
    ),
    "docs/api.md": lambda layer: found(rf"nalu_kernels\.{layer.__name__}$", "docs/api.md"),
    "CHANGELOG.md": lambda layer: found(f"`{layer.__name__}`", "CHANGELOG.md"),
}


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_a_layer_has_all_its_places(layer: type[nn.Module]) -> None:
    missing = [place for place, has in PLACES.items() if not has(layer)]
    assert not missing, f"{layer.__name__} is missing in: {', '.join(missing)}"


@pytest.mark.parametrize("name", ["Forgotten", "MU", "PU"])
def test_a_layer_without_places_is_told_of_them(name: str) -> None:
    """Also one whose name is within another's."""
    layer = type(name, (Layer,), {"_names": ()})
    missing = [place for place, has in PLACES.items() if not has(layer)]
    assert missing == list(PLACES)


def test_the_page_names_the_places() -> None:
    page = text("docs/adding_a_layer.md")
    missing = [
        file
        for place in PLACES
        for file in place.split(" or ")
        if file not in page and Path(file).name not in page
    ]
    assert not missing
