"""The grid world and its agents."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import tiny
import torch

pytest.importorskip("gymnasium", reason="gymnasium is not installed")

from nalu_kernels import NACCell
from nalu_kernels.__main__ import main
from nalu_kernels.experiments import gridworld, load
from nalu_kernels.experiments.experiment import Outcome, Trial
from nalu_kernels.experiments.grid_environment import GridWorld, winnable
from nalu_kernels.experiments.gridworld import LATEST, MODELS, SPANS, TIMES
from nalu_kernels.experiments.training import build

CPU = torch.device("cpu")
EXPERIMENT = load("gridworld")
UP, DOWN, LEFT, RIGHT, STAY = range(5)


def played(starts: list[tuple[int, int, int]], moves: list[list[int]]) -> list[Any]:
    """(observation, rewards, terminations) after each of the moves of all games."""
    world = GridWorld(len(starts), 5, 12)
    first, _ = world.reset(options={"starts": np.array(starts)})
    assert first.tolist() == [list(start) for start in starts]
    steps = []
    for actions in moves:
        seen, rewards, over, truncated, info = world.step(np.array(actions))
        assert world.observation_space.contains(seen)
        assert not truncated.any() and info == {}
        steps.append((seen.tolist(), rewards.tolist(), over.tolist()))
    return steps


def test_only_an_arrival_with_move_T_is_rewarded() -> None:
    # From the corner, to the cell on its right: in time, too early, too late, and into a wall.
    starts = [(0, 1, 2), (0, 1, 2), (0, 1, 2), (4, 3, 1)]
    moves = [[STAY, RIGHT, STAY, RIGHT], [RIGHT, STAY, STAY, LEFT], [STAY, LEFT, RIGHT, LEFT]]
    first, second, third = played(starts, moves)
    assert first == (
        [[0, 1, 0], [1, 1, 0], [0, 1, 0], [4, 3, 0]],
        [0, 0, 0, 0],
        [False, True, False, True],
    )
    assert second == (
        [[1, 1, 0], [1, 1, 0], [0, 1, 0], [4, 3, 0]],
        [1, 0, 0, 0],
        [True] * 4,
    )
    # What is over stays as it is.
    assert third == (second[0], [0, 0, 0, 0], [True] * 4)


def test_moves() -> None:
    (up, *_), (down, *_), (left, *_), (right, *_), (stay, *_) = (
        played([(12, 0, 9), (0, 24, 9), (24, 0, 9)], [[action] * 3])[0] for action in range(5)
    )
    assert [[game[0] for game in seen] for seen in (up, down, left, right, stay)] == [
        [7, 0, 19],
        [17, 5, 24],
        [11, 0, 23],
        [13, 1, 24],
        [12, 0, 24],
    ]


def test_random_games() -> None:
    world = GridWorld(4000, 5, 12)
    seen, _ = world.reset(seed=3)
    assert world.observation_space.contains(seen)
    agent, target, time = seen.T
    assert set(agent) == set(target) == set(range(25))
    assert (agent != target).all()
    assert set(time) == set(range(5, 13))
    assert (world.reset(seed=3)[0] == seen).all()
    assert (world.reset(seed=4)[0] != seen).any()
    # Only some are reset, and the others go on.
    world.reset(seed=3)
    world.step(np.full(4000, STAY))
    mask = np.arange(4000) % 2 == 0
    again, _ = world.reset(options={"reset_mask": mask})
    assert (again[mask, 2] >= 5).all() and (again[~mask, 2] == 0).all()
    assert (again[~mask, :2] == seen[~mask, :2]).all()


def test_winnable_games() -> None:
    assert len(winnable(8, 5)) == 25 * 24
    assert len(winnable(7, 5)) == 25 * 24 - 4  # from corner to opposite corner
    assert len(winnable(1, 5)) == 2 * 2 * 4 * 5  # neighbours


def test_an_agent_with_a_counter_plays_as_one_wants() -> None:
    """Weights set by hand, for a policy that goes right when the time left is the distance."""
    agent = build(lambda: gridworld._Agent("NAC"), CPU, "t")
    counters = agent.memory
    assert isinstance(counters, gridworld._Counters)
    with torch.no_grad():
        for cell in counters.cells:
            assert isinstance(cell, NACCell)
            cell.nac.W_hat.copy_(torch.tensor([[-100.0, 100.0]]))
            cell.nac.M_hat.fill_(100.0)
        assert counters.weights() == [[-1.0, 1.0]] * 4
        time = torch.tensor([5.0, 60.0])
        history = agent.memory(time, 5)
        left = time - torch.arange(1, 6)[:, None]
        wanted = torch.tanh(counters.read((0.3 * left)[..., None].expand(5, 2, 4)))
        torch.testing.assert_close(history, wanted)

        # The first feature changes its sign when one step is left, after T - 1 moves.
        for layer in (counters.read, agent.see, agent.mix, agent.policy):
            layer.weight.zero_()
            layer.bias.zero_()
        counters.read.weight[0, 0] = 10.0
        counters.read.bias[0] = -10.0 * 0.3 * 0.5
        agent.mix.weight[0, gridworld._HIDDEN] = 1.0
        agent.policy.weight[STAY, 0] = 1.0
        agent.policy.bias[RIGHT] = 0.5
    starts = np.array([(0, 1, 7), (0, 1, 60), (0, 2, 60)])
    world = GridWorld(3, 5, 60)
    games = gridworld._play(agent, world, world.reset(options={"starts": starts})[0], CPU)
    assert games.rewards.sum(dim=0).tolist() == [1, 1, 0]
    assert games.rewards[6, 0] == games.rewards[59, 1] == 1
    assert games.playing.sum(dim=0).tolist() == [7, 60, 60]


def trained(model: str, steps: int) -> dict[str, Any]:
    return tiny.trained("gridworld", Trial(model, gridworld.TASK, 0), steps)


@pytest.mark.parametrize("model", MODELS)
def test_the_numbers_of_a_trial(model: str) -> None:
    first = trained(model, 3)
    assert len(first["success"]) == len(first["early"]) == len(TIMES)
    both = zip(first["success"], first["early"], strict=True)
    assert all(0 <= won <= won + early <= 1 for won, early in both)
    assert len(first["counters"]) == (0 if model == "LSTM" else 4)


def test_it_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    little = {"SIZE": 2, "_CELLS": 4, "SHORTEST": 2, "LONGEST": 4, "TIMES": (2, 3, 4)}
    for name, value in {**little, "_GAMES": 128}.items():
        monkeypatch.setattr(gridworld, name, value)
    first, later = (mean(trained("NAC", steps)["success"]) for steps in (1, 200))
    assert later > 0.5 > 10 * first


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tiny.run("gridworld", tmp_path, steps=2)
    printed = capsys.readouterr().out
    with tiny.quick():
        table = EXPERIMENT.table(outcome)
    assert len(table) == 3 + len(MODELS) and table[-1] in printed
    with tiny.quick():
        assert len(EXPERIMENT.claims(outcome)) == len(MODELS) + 3
        assert len(EXPERIMENT.compare(outcome)) == len(MODELS) * (len(SPANS) - 1)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert len(json.loads((tmp_path / "results.json").read_text())["trials"]) == len(MODELS)


def test_how_far_it_gets() -> None:
    """Of results that are made up."""
    results: dict[str, tuple[Callable[[int], float], Callable[[int], float]]] = {
        "NAC": (lambda time: 1.0, lambda time: 0.0),
        "LSTM": (lambda time: time <= 20, lambda time: 20 < time <= 40),
        "LSTM + NAC": (lambda time: 0.25, lambda time: 0.0),
    }
    rows = [
        {
            "model": model,
            "task": gridworld.TASK,
            "seed": 0,
            "success": [float(success(time)) for time in TIMES],
            "early": [float(early(time)) for time in TIMES],
            "counters": [[0.1, 0.2], [-0.995, 1.0]],
        }
        for model, (success, early) in results.items()
    ]
    recorded = {"seeds": 1, "steps": 1, "full": False, "options": {}, "trials": rows}
    nac, lstm, both, better, worse, exact = EXPERIMENT.claims(Outcome(recorded))
    assert f"up to T = {LATEST} " in nac and "loses none" in nac
    # 10 of the 18 times beyond training are beyond 20, and 5 of them beyond 40.
    assert "up to T = 20 " in lstm and "loses 56% of the games: 50% of these by" in lstm
    assert "up to T = 0 " in both
    assert better == "NAC wins more often than LSTM at T > 12: yes, on 1 of 1 seed"
    assert worse == "LSTM + NAC wins more often than LSTM at T > 12: no, on 0 of 1 seed"
    assert exact.endswith("yes, on 1 of 1 seed")


def test_without_gymnasium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert main(["gridworld", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.endswith("pip install gymnasium\n")
    assert not (tmp_path / "out").exists()
