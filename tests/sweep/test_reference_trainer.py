"""The reference executor against an eager loop that is written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import F64, OPTIONS, SMALL, TASKS, assert_same, diverging, run
from torch import nn

from nalu_kernels import NAC, NALU, sweep, use_backend
from nalu_kernels.sweep import reference, stream
from nalu_kernels.sweep.specification import Specification

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
