"""What an operator launches is worked out once, and the same each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

pytest.importorskip("triton", reason="triton is not installed")

import triton
from triton import knobs
from triton.runtime import driver

from layers import BY_NAME, FULLEST, Layer, draw
from nalu_kernels.triton import launch, operators
from nalu_kernels.triton.forms import Weights
from nalu_kernels.triton.recipe import Recipe, Slot, Step, bind

TESTS = Path(__file__).parent


class Kernel:
    """As much of a kernel, which is also the compiled one, as a step asks for."""

    arg_names = ("x", "weights", "size", "FORM", "BLOCK")
    function, packed_metadata = "function", "metadata"

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.runs: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **options: Any) -> Any:
            self.calls.append((grid, args, options))
            return self

        return launch

    def run(self, *args: Any) -> None:
        self.runs.append(args)


class Driver:
    def get_current_device(self) -> int:
        return 1

    def get_current_stream(self, device: int) -> str:
        return f"stream of {device}"


@pytest.fixture
def active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(driver), "active", Driver())


def test_tensors_take_the_places_of_their_slots() -> None:
    tensors = [torch.tensor(float(number)) for number in range(3)]
    template = (Slot(1), Weights(Slot(2), None, G=Slot(0)), (4, (5, Slot(0))), 1e-7, None)
    x, weights, (four, (five, y)), eps, nothing = bind(template)(tensors)
    assert x is tensors[1] and y is tensors[0]
    assert isinstance(weights, Weights)
    assert weights.W_hat is tensors[2] and weights.M_hat is None and weights.G is tensors[0]
    assert (four, five, eps, nothing) == (4, 5, 1e-7, None)


WAYS = ["none", "launch_enter_hook", "launch_exit_hook", "an unknown Triton"]


@pytest.mark.parametrize("hook", WAYS)
def test_later_launches_pass_the_constants_too(
    hook: str, active: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hook == "an unknown Triton":
        monkeypatch.setattr(triton, "__version__", "3.60.1")
    kernel = Kernel()
    x, weights = torch.ones(2), Weights(Slot(1), None)
    options = {"BLOCK": 8, "num_warps": 4, "FORM": "form"}
    step = Step(kernel, (3, 2), (Slot(0), weights, 7), options)
    step.launch([x, x])
    if hook.startswith("launch"):  # a profiler is told of a launch that was made before it came
        monkeypatch.setattr(getattr(knobs.runtime, hook), "calls", [lambda _: None])
    step.launch([x, x])
    (grid, args, found), *again = kernel.calls
    assert (grid, found) == ((3, 2), options) and args == (x, Weights(x, None), 7)
    # A compiled kernel takes three sizes of a grid, and its constants by place, in their order.
    expected = (x, Weights(x, None), 7, "form", 8)
    if hook == "none":
        to_driver = (3, 2, 1, "stream of 1", "function", "metadata", None, None, None)
        assert kernel.runs == [(*to_driver, *expected)] and not again
    else:
        assert again == [((3, 2, 1), expected, {})] and not kernel.runs


def test_what_is_allocated_like_a_tensor_is_contiguous(rng: Generator) -> None:
    x = torch.randn(3, 4, generator=rng)
    flat = (x, x.T, x[:, ::2], x[:, :1].expand(3, 5), x[1:, 1:], x[:1, :1].expand(6, 6))
    deep = torch.randn(2, 3, 4, generator=rng)
    for view in (*flat, x[0], deep, deep.transpose(0, 1), deep[None], deep[:, :0]):
        tensors = [view, *(torch.randn(2, view.shape[-1], generator=rng) for _ in range(3))]
        y, saved = operators.nalu_forward(1e-7, True, *tensors)
        dx, *grads = operators.nalu_backward(1e-7, -1, torch.ones_like(y), saved, *tensors)
        assert dx is not None and dx.shape == view.shape
        assert all(grad is not None and grad.is_contiguous() for grad in (dx, *grads[:3]))


def test_first_and_later_launches_are_the_same() -> None:
    """By Triton's own way to a compiled kernel and by ours, on a GPU that is not there."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), *sys.path]),
    }
    environment.pop("TRITON_INTERPRET", None)
    ended = subprocess.run(
        [sys.executable, str(TESTS / "stubbed_gpu.py")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    for first, second, third in json.loads(ended.stdout).values():
        assert len(first) >= 3
        assert first == second == third


def forward_recipe(layer: Layer, **changed: Tensor) -> Recipe:
    """The recipe that the library takes for a layer."""
    found: list[Recipe] = []
    original = Recipe.run

    def run(self: Recipe, tensors: list[Any]) -> list[Any]:
        found.append(self)
        return original(self, tensors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "run", run)
        operators.nalu_forward(1e-7, False, *{**layer.tensors, **changed}.values())
    (recipe,) = found
    return recipe


def test_a_repeated_call_takes_the_same_recipe_and_another_one_its_own(rng: Generator) -> None:
    layer = draw(rng, FULLEST, (5, 8, 3))
    recipe = forward_recipe(layer)
    assert forward_recipe(layer.map(torch.clone)) is recipe
    x = layer.tensors["input"]
    others = [
        torch.cat([x, x]),
        x.expand(2, 5, 8),
        torch.cat([x, x], 1)[:, :8],
        torch.nn.functional.pad(x.flatten(), (1, 0))[1:].view(5, 8),  # not aligned to 16 bytes
    ]
    assert others[-1].data_ptr() % 16
    recipes = [recipe, *(forward_recipe(layer, input=other) for other in others)]
    recipes.append(forward_recipe(draw(rng, FULLEST, (5, 8, 3), torch.float64)))
    assert len(set(map(id, recipes))) == len(recipes)


def test_recipes_are_forgotten_in_the_end() -> None:
    for cached in (launch.forward, launch.backward):
        assert 100 < cached.cache_info().maxsize < 1_000_000


@pytest.mark.parametrize("name", ["nac", "nac_log_space", "nalu_output_tied"])
def test_a_recipe_holds_no_tensors(name: str, rng: Generator) -> None:
    """Else a cache of recipes would keep a model's memory."""
    layer = draw(rng, BY_NAME[name], (5, 8, 3))
    if name == "nalu_output_tied":
        recipe = forward_recipe(layer)
    else:
        described = tuple(
            operators.describe(tensor) for tensor in (*layer.tensors.values(), *[None] * 4)
        )
        chip = operators.chip(torch.device("cpu"))
        log_space = name == "nac_log_space"
        recipe = launch.forward("", False, chip, 1e-7, not log_space, log_space, described)

    def tensors(value: Any) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value]
        if isinstance(value, (tuple, list)):
            return [found for part in value for found in tensors(part)]
        return []

    for step in recipe.steps:
        assert not tensors(list(vars(step).values()))
    assert not tensors(list(vars(recipe).values()))
