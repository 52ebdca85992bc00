"""The reference executor against an eager loop that is written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import F64, OPTIONS, SMALL, TASKS, assert_same, diverging, run
from torch import nn

from nalu_kernels import INALU, NAC, NALU, sweep, use_backend
from nalu_kernels.sweep import reference, stream
from nalu_kernels.sweep.specification import Specification
from nalu_kernels.sweep.state import BEGUN

EAGER = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("optimizer", list(EAGER))
@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_it_is_an_ordinary_training_loop(optimizer: str, loss: str) -> None:
    options = {name: values[0] for name, values in OPTIONS[optimizer].items()}
    task = sweep.Arithmetic("a + b", in_features=2, samples=40)
    runs = {"seed": [5], "lr": [1e-2], "weight_decay": [1e-3], "clip_norm": [0.7]}
    runs |= {name: [value] for name, value in options.items()}
    result = sweep.run(
        NALU(2, 1), task, runs, optimizer=optimizer, loss=loss, backend="reference", **SMALL,
        dtype=F64,
    )  # fmt: skip
    stack = Specification(NALU(2, 1), task, runs, optimizer=optimizer, steps=1).stack
    model = stack.module(stack.draw(torch.tensor([5]), F64)[0])
    updates = EAGER[optimizer](model.parameters(), lr=1e-2, weight_decay=1e-3, **options)
    with use_backend("reference"):
        for step in range(SMALL["steps"]):
            u = stream.draw(5, stream.TRAIN, step, 16, 2)
            x = stream.uniform(u, ((1.0, 2.0),), F64)
            error = model(x) - x.sum(1, keepdim=True)
            updates.zero_grad()
            (error.square() if loss == "mse" else error.abs()).mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.7)
            updates.step()
    for name, value in result.module(0, which="last").state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-9, atol=1e-12)


def test_turns_and_steps_on_saturation_by_hand() -> None:
    """Adam written out, which counts all steps for all parameters."""
    below, lr = 4.3, 1e-2
    runs = {
        "seed": [5], "lr": [lr], "weight_steps": [3], "gate_steps": [2], "clip_value": [0.1],
        "saturation": [0.05], "saturation_start": [4], "saturation_below": [below],
        "restart_above": [1e9],
    }  # fmt: skip
    task = sweep.Arithmetic("a + b", in_features=2, samples=40)
    options = {**SMALL, "steps": 60, "test_every": 20}
    result = sweep.run(INALU(2, 1), task, runs, backend="reference", **options, dtype=F64)
    stack = Specification(INALU(2, 1), task, runs, steps=1).stack
    model = stack.module(stack.draw(torch.tensor([5]), F64)[0])
    moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters()}

    def update(value: torch.Tensor, number: int, moving: set[str]) -> None:
        found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        for (name, parameter), grad in zip(model.named_parameters(), found, strict=True):
            if name in moving and grad is not None:
                first, second = moments[parameter]
                grad = grad.clamp(-0.1, 0.1)
                first += 0.1 * (grad - first)
                second += 0.001 * (grad * grad - second)
                size = (second / (1 - 0.999**number)).sqrt() + 1e-8
                parameter.data -= lr * first / (1 - 0.9**number) / size

    names = {name for name, _ in model.named_parameters()}
    losses = []
    with use_backend("reference"):
        for step in range(60):
            x = stream.uniform(stream.draw(5, stream.TRAIN, step, 16, 2), ((1.0, 2.0),), F64)
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            losses.append(float(loss.detach()))
            update(loss, step + 1, names - {"g"} if step % 5 < 3 else {"g"})
            if step > 4 and losses[-1] < below:
                left = [(20 - p.abs()).clamp_min(0).mean() for p in model.parameters()]
                update(0.05 * torch.stack(left).sum(), step + 1, names)
    assert 5 < sum(loss < below for loss in losses) < 55
    for name, value in result.module(0, which="last").state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-9, atol=1e-12)
    sums = torch.tensor([losses, [loss * loss for loss in losses]], dtype=F64)
    expected = sums.reshape(2, 3, 20).sum(2).T
    torch.testing.assert_close(result._state.curves[0, :, 2:], expected)


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_losses_beyond_all_bounds(loss: str) -> None:
    """Neither the kernel nor the reference ends by them, and both begin anew."""
    x = torch.ones(8, 2, dtype=F64)
    runs = {"seed": [1], "lr": [0.0], "restart_above": [1.0], "restart_after": [3]}
    for size in (1e100, 1e160, 1e300):
        task = sweep.Data(x, x[:, :1] * size, x, x[:, :1] * size)
        options = {"steps": 20, "test_every": 4, "batch_size": 4, "dtype": F64, "loss": loss}
        found, expected = (
            sweep.run(nn.Linear(2, 1), task, runs, **options, backend=name)
            for name in ("cpu", "reference")
        )
        assert found._state.scores[0, BEGUN] == expected._state.scores[0, BEGUN] == 16
        assert found._state.parameters.equal(expected._state.parameters)


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("optimizer", list(OPTIONS))
def test_pausing_changes_nothing(task: str, optimizer: str) -> None:
    runs = sweep.grid(seed=range(2), lr=[1e-2], **OPTIONS[optimizer])
    expected = run(task, runs, optimizer=optimizer)
    chosen, stack = TASKS[task]
    specification = Specification(stack, chosen, runs, optimizer=optimizer, **SMALL)
    state = specification.begin()
    for _ in range(200):  # a step at a time, each with an optimizer of its own
        next(reference.advance(specification, state, lambda: 0.0, torch.device("cpu")), None)
    found = sweep.Result(specification.stack, specification.columns.table, state, 23, 5, None)
    assert_same(found, expected)


def test_the_frequency_of_tests_changes_no_training() -> None:
    often, seldom = run(test_every=1), run(test_every=23)
    assert often._state.parameters.equal(seldom._state.parameters)


def test_a_test_is_at_every_multiple_and_after_the_last_step() -> None:
    curves = run()._state.curves[..., :2]
    assert curves.shape == (6, 5, 2) and not curves.isnan().any()


def test_the_best_test_inside_decides() -> None:
    result = run(runs=sweep.grid(seed=range(4), lr=[3.0]), test_every=1)
    columns = result.columns()
    inside, outside = result._state.curves[..., :2].unbind(2)
    places = inside.argmin(1)
    assert columns["best_step"] == (places + 1).tolist() and min(columns["best_step"]) < 23
    assert columns["error_inside"] == inside.amin(1).tolist()
    assert columns["error_outside"] == outside[torch.arange(4), places].tolist()


def test_stop_when_solved() -> None:
    kept: dict[str, Any] = {"runs": {"seed": [0, 1]}, "success": 1e6, "test_every": 5}
    all_steps, stopped = run(**kept), run(**kept, stop="solved")
    assert all_steps.columns()["status"] == stopped.columns()["status"] == ["solved"] * 2
    assert all_steps.columns()["steps"] == [23, 23] and "stop" not in all_steps.columns()
    assert stopped.columns()["stop"] == ["solved", "solved"]
    assert stopped.columns()["steps"] == stopped.columns()["solved_at"] == [5, 5]


def test_a_run_that_diverges_stays_alone() -> None:
    result, alone = diverging(backend="reference")
    assert result.columns()["status"] == ["diverged", "out_of_steps"]
    assert alone._state.parameters[0].equal(result._state.parameters[1])


def test_half_a_million_numbers_are_those_of_the_stream() -> None:
    """The batches of run 1 at steps 70 and 3, drawn in blocks, are those of the recipe."""
    task = sweep.Arithmetic("a + b")
    specification = Specification(NAC(100, 1), task, {"seed": [4, 9]}, steps=100)
    x, y = reference.batches(specification, 1, torch.tensor([70, 3]))
    for place, step in enumerate((70, 3)):
        u = stream.draw(9, stream.TRAIN, step, 128, 100)
        assert x[place].equal(stream.uniform(u, ((1.0, 2.0),), torch.float32))
    start_a, start_b = task.starts(torch.tensor([9]))[0].tolist()
    a, b = x[..., start_a : start_a + 25].sum(-1), x[..., start_b : start_b + 25].sum(-1)
    torch.testing.assert_close(y[..., 0], a + b)
