"""Every layer has all the places that docs/adding_a_layer.md names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import nalu_kernels
from nalu_kernels import family, functional, layers, published, recognise, reference
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
NOT_RECOGNISED = ("SNMU", "NRU", "NMRU", "NACSigma", "NACNMU")


def name_of(layer: type[nn.Module]) -> str:
    """Its function's."""
    return NAMES.get(layer.__name__, layer.__name__.lower())


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def kernels(layer: type[nn.Module]) -> str:
    return family.COMPOSED.get(name_of(layer), name_of(layer))


# What a layer has, by the place that is to have it.
PLACES: dict[str, Callable[[type[nn.Module]], bool]] = {
    "nalu_kernels/reference/__init__.py": lambda layer: hasattr(reference, name_of(layer)),
    "nalu_kernels/family.py": lambda layer: kernels(layer) in family.FAMILY,
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
    "csrc/ops.cpp": lambda layer: f'"{kernels(layer)}_forward(' in text("csrc/ops.cpp"),
    "tests/test_layers_family.py or tests/test_modules.py": lambda layer: any(
        layer.__name__ in text(f"tests/{file}.py")
        for file in ("test_layers_family", "test_modules")
    ),
    "tests/test_family.py or tests/layers.py": lambda layer: any(
        f'"{name_of(layer)}' in text(f"tests/{file}.py") for file in ("test_family", "layers")
    ),
    "tests/sweep/test_kernel.py": lambda layer: (
        f"{layer.__name__}(" in text("tests/sweep/test_kernel.py")
    ),
    "tests/test_golden.py": lambda layer: layer.__name__ in text("tests/test_golden.py"),
    "docs/family.md": lambda layer: f"| `{layer.__name__}" in text("docs/family.md"),
    "docs/api.md": lambda layer: f"nalu_kernels.{layer.__name__}\n" in text("docs/api.md"),
    "CHANGELOG.md": lambda layer: f"`{layer.__name__}`" in text("CHANGELOG.md"),
}


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_a_layer_has_all_its_places(layer: type[nn.Module]) -> None:
    missing = [place for place, has in PLACES.items() if not has(layer)]
    assert not missing, f"{layer.__name__} is missing in: {', '.join(missing)}"


def test_a_layer_without_places_is_told_of_them() -> None:
    class Forgotten(Layer):
        _names = ()

    missing = [place for place, has in PLACES.items() if not has(Forgotten)]
    assert missing == list(PLACES)


def test_the_page_names_the_places() -> None:
    page = text("docs/adding_a_layer.md")
    for place in PLACES:
        for file in place.split(" or "):
            named = file in page or Path(file).name in page or Path(file).parent.name in page
            assert named, file
