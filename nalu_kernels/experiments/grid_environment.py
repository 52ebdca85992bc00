"""The grid world of gridworld.py: many games at once, as one gymnasium environment."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

_MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])  # up, down, left, right, stay

Integers = NDArray[np.int64]
_Flags = NDArray[np.bool_]
_Step = tuple[Integers, NDArray[np.float32], _Flags, _Flags, dict[str, Any]]


class GridWorld(VectorEnv[Integers, Integers, NDArray[Any]]):
    """An agent is to step onto its target at one given time, neither earlier nor later.

    A game begins with the agent and its target on two different random cells of a square grid, and
    with the instruction T. The reward is 1 for arriving with the T-th move; an earlier arrival ends
    the game without one, and so does time T anywhere else. Moves into a wall leave the agent where
    it is.

    Observation of one game: the agent's cell, the target's cell (row times size plus column), and
    T before the first move, 0 afterwards. Actions: up, down, left, right, stay.

    No game starts anew by itself (AutoresetMode.DISABLED); until reset, one that is over stays as
    it is, without rewards, while the others go on.

    Args:
        num_envs: how many games.
        shortest, longest: T is uniform between them, both included.
        size: cells along each side, at least 2.

    Options of reset: ``reset_mask``, which games to reset (all); ``starts``, an array with a row
    (agent's cell, target's cell, T) for each of them (random).
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, num_envs: int, shortest: int, longest: int, size: int = 5) -> None:
        self.num_envs = num_envs
        self.shortest, self.longest, self.size = shortest, longest, size
        self.single_observation_space = spaces.MultiDiscrete([size**2, size**2, longest + 1])
        self.single_action_space = spaces.Discrete(len(_MOVES))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._games = np.zeros((num_envs, 3), dtype=np.int64)  # agent, target, T
        self._clock = np.zeros(num_envs, dtype=np.int64)
        self._over = np.ones(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Integers, dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        mask = options.get("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        starts = options.get("starts")
        self._games[mask] = self._random_starts(int(mask.sum())) if starts is None else starts
        self._clock[mask] = 0
        self._over[mask] = False
        return self._observation(), {}

    def step(self, actions: Integers) -> _Step:
        agent, target, time = self._games.T
        place = np.stack((agent // self.size, agent % self.size), axis=1) + _MOVES[actions]
        row, column = np.clip(place, 0, self.size - 1).T
        playing = ~self._over
        self._games[:, 0] = np.where(playing, row * self.size + column, agent)
        self._clock += playing
        arrived = self._games[:, 0] == target
        in_time = self._clock == time
        rewards = (playing & arrived & in_time).astype(np.float32)
        self._over |= arrived | in_time
        return self._observation(), rewards, self._over.copy(), np.zeros_like(self._over), {}

    def _random_starts(self, count: int) -> Integers:
        cells = self.size**2
        agent = self.np_random.integers(cells, size=count)
        target = (agent + self.np_random.integers(1, cells, size=count)) % cells  # another cell
        time = self.np_random.integers(self.shortest, self.longest, size=count, endpoint=True)
        return np.stack((agent, target, time), axis=1)

    def _observation(self) -> Integers:
        observation = self._games.copy()
        observation[self._clock > 0, 2] = 0
        return observation


def winnable(time: int, size: int) -> Integers:
    """The starts of all games in which the target can be reached by ``time``."""
    starts = [
        (agent, target, time)
        for agent, target in itertools.permutations(range(size**2), 2)
        if abs(agent // size - target // size) + abs(agent % size - target % size) <= time
    ]
    return np.array(starts, dtype=np.int64)
