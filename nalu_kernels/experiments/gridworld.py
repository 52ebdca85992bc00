"""Being at a place at a given time: agents that have to keep track of time.

Source: Trask et al. 2018, "Neural Arithmetic Logic Units", section 4.5, "Learning to track time in
a grid-world environment". An agent on a grid of 5 x 5 cells is told a number T, once, at the
start, and is rewarded for stepping onto its target with move T, neither earlier nor later (an
early arrival ends the game). T is 5 to 12 in training; the test goes to 60. The environment is
grid_environment.py, a batch of games in gymnasium's interface for vector environments.

Every agent is a policy without a memory (who sees the two cells and the output of its memory) with
one of these memories, which hear T at the start and nothing of the game:

NAC: a few counters, each a NACCell of one unit that starts from T and takes a constant 1 at each
step; a linear layer and tanh read them together. A counter whose weights come to -1 for the 1 and
to 1 for itself holds the time that is left. The counters' weights start small (a NAC this small
would start saturated, and some agents would have no counter that can still become a useful one),
and need a learning rate of their own, low while the policy finds out what to use them for, and then
so high that they saturate.
LSTM: as many units as the reading of the counters has; T is its input at the first step, then 0.
LSTM + NAC: the LSTM, with the reading of such counters as further inputs: nearest to the paper,
whose NAC feeds the LSTM, which gets T itself as well.

Training is advantage actor-critic on whole games, a batch of fresh ones for each step, with an
entropy bonus that falls to 0. The policy that is tested always takes the likeliest action, and
plays every pair of cells that are near enough for T moves.
"""

from __future__ import annotations

import itertools
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nalu_kernels import NACCell

from .experiment import Comparison, Experiment, Outcome, Scale, Settings, Trial
from .plot import colour
from .report import columns, how_often, median
from .training import (
    FORGETS,
    Group,
    Training,
    adam,
    build,
    cool_down,
    generator,
    saturate,
    set_rates,
)

if TYPE_CHECKING:
    from .grid_environment import GridWorld, Integers

MODELS = ("NAC", "LSTM", "LSTM + NAC")
TASK = "arrive at T"
SIZE, ACTIONS = 5, 5
SHORTEST, LONGEST, LATEST = 5, 12, 60  # T: in training, and the largest in the test
TIMES = (*range(SHORTEST, 21), *range(24, LATEST + 1, 4))
SPANS = ((SHORTEST, LONGEST), (LONGEST + 1, 20), (24, 40), (44, LATEST))
GOOD = 0.9  # of the games won: a time counts as mastered
EXACT = 0.01  # from -1 and 1, weights count as such
_CELLS = SIZE**2
_GAMES, _HIDDEN, _FEATURES, _COUNTERS = 256, 48, 24, 4
_INITIAL = 1.0  # largest W_hat and M_hat of the counters at first; a NAC this small has 9.5
_UNIT = 0.3  # of the counters, as their reader takes them: tanh tells about ten steps apart


class _Counters(nn.Module):
    """Numbers that start from T, one NACCell each, and tanh of linear features of them."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList(NACCell(1, 1) for _ in range(_COUNTERS))
        for parameter in self.cells.parameters():
            nn.init.uniform_(parameter, -_INITIAL, _INITIAL)
        self.read = nn.Linear(_COUNTERS, _FEATURES)

    def forward(self, time: Tensor, steps: int) -> Tensor:
        """(games,) to (steps, games, features)."""
        one = time.new_ones(steps, len(time), 1)
        counts = []
        for cell in self.cells:
            assert isinstance(cell, NACCell)
            counts.append(cell.unroll(one, time[:, None]))
        return torch.tanh(self.read(_UNIT * torch.cat(counts, dim=2)))

    def weights(self) -> list[list[float]]:
        """For each counter, that of the constant 1 and its own: -1 and 1 count down."""
        with torch.no_grad():
            unit = torch.eye(2, device=self.read.weight.device)
            return [
                [float(cell(unit[0, :1], unit[0, 1:])), float(cell(unit[1, :1], unit[1, 1:]))]
                for cell in self.cells
            ]


class _LSTM(nn.Module):
    def __init__(self, counters: _Counters | None) -> None:
        super().__init__()
        self.counters = counters
        self.lstm = nn.LSTM(1 + (_FEATURES if counters else 0), _FEATURES)

    def forward(self, time: Tensor, steps: int) -> Tensor:
        """(games,) to (steps, games, features)."""
        heard = F.pad(time[None, :, None], (0, 0, 0, 0, 0, steps - 1))
        if self.counters:
            heard = torch.cat((heard, self.counters(time, steps)), dim=2)
        output: Tensor = self.lstm(heard)[0]
        return output


class _Agent(nn.Module):
    def __init__(self, model: str) -> None:
        super().__init__()
        self.memory: _Counters | _LSTM
        if model == "NAC":
            self.memory = _Counters()
        else:
            self.memory = _LSTM(_Counters() if model == "LSTM + NAC" else None)
        self.see = nn.Linear(2 * _CELLS, _HIDDEN)
        self.mix = nn.Linear(_HIDDEN + _FEATURES, _HIDDEN)
        self.policy = nn.Linear(_HIDDEN, ACTIONS)
        self.value = nn.Linear(_HIDDEN, 1)

    def forward(self, cells: Tensor, remembered: Tensor) -> Tensor:
        """(..., 2) cells and (..., features) to what the policy and the value are read from."""
        agent, target = F.one_hot(cells, _CELLS).to(remembered).unbind(dim=-2)
        seen = F.relu(self.see(torch.cat((agent, target), dim=-1)))
        return F.relu(self.mix(torch.cat((seen, remembered), dim=-1)))

    def counters(self) -> _Counters | None:
        return next((part for part in self.modules() if isinstance(part, _Counters)), None)


class _Games(NamedTuple):
    """A batch of games, played to their ends: (moves, games) each, cells with two of the last."""

    cells: Tensor
    remembered: Tensor
    actions: Tensor
    playing: Tensor
    rewards: Tensor


def _play(
    agent: _Agent,
    world: GridWorld,
    seen: Integers,
    device: torch.device,
    source: torch.Generator | None = None,
) -> _Games:
    """Plays the games that ``seen`` begins, with actions drawn from the policy by ``source``, or
    the likeliest ones."""
    time = torch.as_tensor(seen[:, 2], dtype=torch.float32, device=device)
    remembered = agent.memory(time, int(seen[:, 2].max()))
    playing = torch.ones(len(seen), dtype=torch.bool)
    moves: list[tuple[Tensor, ...]] = []
    for step in remembered.detach():
        cells = torch.from_numpy(seen[:, :2])
        with torch.no_grad():
            scores = agent.policy(agent(cells.to(device), step)).cpu()
        if source is None:
            action = scores.argmax(dim=1)
        else:
            action = torch.multinomial(scores.softmax(dim=1), 1, generator=source)[:, 0]
        seen, reward, over, _, _ = world.step(action.numpy())
        moves.append((cells, action, playing, torch.from_numpy(reward)))
        playing = torch.from_numpy(~over)
        if not playing.any():
            break
    cells, actions, played, rewards = (
        torch.stack(part).to(device) for part in zip(*moves, strict=True)
    )
    return _Games(cells, remembered[: len(moves)], actions, played, rewards)


def _loss(agent: _Agent, games: _Games, entropy_bonus: float) -> Tensor:
    """Of advantage actor-critic. Without discount: a game's reward comes at its last move, so
    that it is the return of all of its moves."""
    output = agent(games.cells, games.remembered)[games.playing]
    returns = games.rewards.sum(dim=0).expand_as(games.rewards)[games.playing]
    value = agent.value(output)[:, 0]
    advantage = returns - value.detach()
    # In units of their size, or the few rewards of the beginning would move nothing.
    advantage = advantage / advantage.square().mean().sqrt().clamp_min(1e-3)
    logs = F.log_softmax(agent.policy(output), dim=1)
    chosen = logs.gather(1, games.actions[games.playing][:, None])[:, 0]
    entropy = -(logs.exp() * logs).sum(dim=1).mean()
    critic = 0.5 * F.mse_loss(value, returns)
    return critic - (advantage * chosen).mean() - entropy_bonus * entropy


def _groups(agent: _Agent) -> list[Group]:
    counters = agent.counters()
    slow = set(counters.cells.parameters()) if counters else set()
    groups = [Group([p for p in agent.parameters() if p not in slow], 0.003, cool_down)]
    if counters:
        groups.append(Group(counters.cells.parameters(), 1.0, saturate, FORGETS))
    return groups


def _within(shares: list[float], span: tuple[int, int]) -> list[float]:
    """Those of the times of the span, of a list with one for each of TIMES."""
    first, last = span
    return [share for time, share in zip(TIMES, shares, strict=True) if first <= time <= last]


def _mastered(success: list[float]) -> int:
    """The last time until which all are mastered; 0 if even the first is not."""
    good = list(itertools.takewhile(lambda share: share >= GOOD, success))
    return TIMES[len(good) - 1] if good else 0


def _test(agent: _Agent, device: torch.device) -> dict[str, list[float]]:
    """For each time, the share of the games that are won, and that of those that end too early."""
    from .grid_environment import GridWorld, winnable

    shares: dict[str, list[float]] = {"success": [], "early": []}
    for time in TIMES:
        starts = winnable(time, SIZE)
        world = GridWorld(len(starts), time, time, SIZE)
        seen, _ = world.reset(options={"starts": starts})
        with torch.no_grad():
            games = _play(agent, world, seen, device)
        shares["success"].append(float(games.rewards.sum()) / len(starts))
        shares["early"].append(float((games.playing.sum(dim=0) < time).sum()) / len(starts))
    return shares


class GridWorldExperiment(Experiment):
    name = "gridworld"
    title = "being on a cell of a grid exactly at time T, beyond the times of training"
    source = "Trask et al. 2018, section 4.5"
    differs = (
        "The agents see the two cells instead of pixels, and are trained by synchronous actor-"
        "critic on whole games instead of A3C. The memory hears the instruction only, while the "
        "paper's LSTM gets all that the agent sees. NAC without an LSTM is not in the paper, nor "
        "are the learning rate with which its weights saturate and their small initial range. "
        "Reported is how often the agents succeed, on games that can be won, not the mean reward."
    )
    small = Scale(seeds=3, steps=1500)
    full = Scale(seeds=10, steps=10_000)
    requires = ("gymnasium",)
    models, tasks = MODELS, (TASK,)

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        from .grid_environment import GridWorld

        agent = build(
            lambda: _Agent(trial.model), training.device, self.name, trial.model, trial.seed
        )
        source = generator(self.name, "games", trial.seed)
        world = GridWorld(_GAMES, SHORTEST, LONGEST, SIZE)
        groups = _groups(agent)
        optimizer = adam(groups)
        total = settings.steps
        for step in training.steps(total, agent=agent, optimizer=optimizer, source=source):
            progress = (step + 0.5) / total
            set_rates(optimizer, groups, progress)
            # The games begin anew at each step, from a seed: the environment keeps no state.
            seen, _ = world.reset(seed=int(torch.randint(2**31, (), generator=source)))
            games = _play(agent, world, seen, training.device, source)
            optimizer.zero_grad()
            _loss(agent, games, entropy_bonus=0.1 * (1 - progress)).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
            optimizer.step()
        counters = agent.counters()
        return {
            **_test(agent.eval(), training.device),
            "counters": counters.weights() if counters else [],
        }

    def _shares(self, outcome: Outcome, model: str, span: tuple[int, int]) -> list[float]:
        """The share of the games that are won over the times of ``span``, for each seed."""
        success = outcome.values("success", model=model, task=TASK)
        return [mean(_within(won, span)) for won in success]

    def table(self, outcome: Outcome) -> list[str]:
        spans = [f"T {first}-{last}" for first, last in SPANS]
        rows = [["memory", "seed", *spans, f"{GOOD:.0%} up to"]]
        for model in outcome.models:
            shares = [self._shares(outcome, model, span) for span in SPANS]
            for seed, won in enumerate(outcome.values("success", model=model, task=TASK)):
                cells = [f"{share[seed]:.1%}" for share in shares]
                rows.append([model, str(seed), *cells, f"T = {_mastered(won)}"])
        return [
            f"stepping onto the target exactly at time T, trained with T from {SHORTEST} to "
            f"{LONGEST}: games won",
            "",
            *columns(rows, (-14, 6, 12, 12, 12, 12, 16)),
        ]

    def claims(self, outcome: Outcome) -> list[str]:
        beyond = (LONGEST + 1, LATEST)
        claims = [self._extent(outcome, model) for model in outcome.models]
        for model in outcome.models:
            if model != "LSTM" and "LSTM" in outcome.models:
                ours, theirs = (self._shares(outcome, name, beyond) for name in (model, "LSTM"))
                better = how_often([a > b for a, b in zip(ours, theirs, strict=True)])
                claims.append(f"{model} wins more often than LSTM at T > {LONGEST}: {better}")
        if "NAC" in outcome.models:
            exact = [
                any(abs(tick + 1) < EXACT and abs(own - 1) < EXACT for tick, own in counters)
                for counters in outcome.values("counters", model="NAC", task=TASK)
            ]
            claims.append(
                f"one of NAC's counters counts down by one (weights within {EXACT:g}): "
                f"{how_often(exact)}"
            )
        return claims

    def _extent(self, outcome: Outcome, model: str) -> str:
        """How far the model gets, and how it fails there."""
        success, early = (
            outcome.values(metric, model=model, task=TASK) for metric in ("success", "early")
        )
        until = ", ".join(str(_mastered(won)) for won in success)
        text = f"{model} wins at least {GOOD:.0%} up to T = {until} (one number for each seed)"
        beyond = (LONGEST + 1, LATEST)
        lost = mean(1 - share for won in success for share in _within(won, beyond))
        if not lost:
            return f"{text}, and loses none at T > {LONGEST}"
        too_early = mean(share for ended in early for share in _within(ended, beyond)) / lost
        return (
            f"{text}; at T > {LONGEST} it loses {lost:.0%} of the games: {too_early:.0%} of these "
            f"by arriving too early, {1 - too_early:.0%} by not arriving"
        )

    def compare(self, outcome: Outcome) -> list[Comparison]:
        return [
            Comparison(
                f"{model}, games won at T = {first} to {last}",
                f"{median(self._shares(outcome, model, (first, last))):.1%}",
                "",
                "",
            )
            for model in outcome.models
            for first, last in SPANS[1:]
        ]

    def draw(self, figure: Any, outcome: Outcome) -> None:
        axes = figure.subplots()
        axes.axvspan(SHORTEST, LONGEST, color="0.9", zorder=0)
        place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axes.text((SHORTEST + LONGEST) / 2, 0.02, "trained here", fontsize=7, color="0.35", **place)
        for model in outcome.models:
            style = {"color": colour(model), "ls": "--" if model == "LSTM + NAC" else "-"}
            curves = outcome.values("success", model=model, task=TASK)
            for curve in curves:
                axes.plot(TIMES, curve, lw=0.7, alpha=0.5, **style)
            middle = [median(shares) for shares in zip(*curves, strict=True)]
            axes.plot(TIMES, middle, lw=2, label=model, **style)
        axes.set(
            title=f"stepping onto the target exactly at time T: median of {outcome.seeds} seeds",
            xlabel="T",
            ylabel="games won",
            xlim=(SHORTEST, LATEST),
            ylim=(0, 1.02),
        )
        axes.legend(fontsize=7, loc="center", bbox_to_anchor=(0.45, 0.5))


EXPERIMENT = GridWorldExperiment()
