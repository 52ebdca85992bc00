"""Random numbers by key, schedules, and steps that are resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nalu_kernels.experiments import training


def test_a_key_has_numbers_of_its_own() -> None:
    keys = [("a", 1), ("a", 2), ("b", 1), ("a", 1, 1), ("a", "1")]
    drawn = {key: torch.rand(4, generator=training.generator(*key)).tolist() for key in keys}
    assert len({tuple(numbers) for numbers in drawn.values()}) == len(keys)
    for key, numbers in drawn.items():
        assert torch.rand(4, generator=training.generator(*key)).tolist() == numbers


def test_build_draws_from_its_key_alone() -> None:
    def make() -> nn.Linear:
        return nn.Linear(3, 2)

    state = torch.get_rng_state()
    first = training.build(make, torch.device("cpu"), "key", 1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    second = training.build(make, torch.device("cpu"), "key", 1)
    assert torch.equal(first.weight, second.weight)
    other = training.build(make, torch.device("cpu"), "key", 2)
    assert not torch.equal(first.weight, other.weight)


@pytest.mark.parametrize(
    ("schedule", "start", "middle", "end"),
    [
        (training.constant, 1, 1, 1),
        (training.cool_down, 1, 1, 0),
        (training.warm_up, 0, 1, 1),
        (training.hill, 0, 1, 0),
        (training.saturate, 0.01, 10 ** (1 / 0.7 - 2), 1),
    ],
)
def test_schedules(schedule: training.Schedule, start: float, middle: float, end: float) -> None:
    assert [schedule(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([start, middle, end])


@pytest.mark.parametrize("total", [0, 1, 63, 64, 65, 128, 200])
def test_steps_are_all_done_and_counted(total: int) -> None:
    counted = []
    steps = training.Training(torch.device("cpu"), advance=counted.append).steps(total)
    assert list(steps) == list(range(total))
    assert sum(counted) == total


@pytest.mark.parametrize("rate", ["constant", "cool_down"])
def test_stopped_and_resumed_to_the_same_weights(rate: str, tmp_path: Path) -> None:
    """Adam's moments, the schedule, the generator and what the caller keeps all go on."""

    class Sum:
        def __init__(self) -> None:
            self.total = 0.0

        def state_dict(self) -> dict[str, float]:
            return {"total": self.total}

        def load_state_dict(self, state: dict[str, float]) -> None:
            self.total = state["total"]

    def fit(one: training.Training) -> tuple[list[float], float]:
        network = training.build(lambda: nn.Linear(2, 1), torch.device("cpu"), "weights")
        source, losses = training.generator("data"), Sum()

        def loss(x: torch.Tensor) -> torch.Tensor:
            value = (network(x) - x.sum(dim=1, keepdim=True)).square().mean()
            losses.total += value.item()
            return value

        one.fit(
            network,
            [training.Group(network.parameters(), 0.1, getattr(training, rate))],
            lambda count: torch.rand(count, 4, 2, generator=source),
            loss,
            300,
            source=source,
            losses=losses,
        )
        return torch.cat([p.flatten() for p in network.parameters()]).tolist(), losses.total

    wanted = fit(training.Training(torch.device("cpu")))
    path, stops = tmp_path / "deep" / "one.pt", 0
    while True:
        try:
            found = fit(training.Training(torch.device("cpu"), path, stopping=lambda: True))
            break
        except training.Stopped:
            stops += 1
    assert stops == 4  # 300 steps are four chunks of 64 and some
    assert found == wanted


def test_groups_have_their_own_rates() -> None:
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    before = first.weight.item(), second.weight.item()
    groups = [training.Group(first.parameters(), 0.1), training.Group(second.parameters(), 0.001)]
    network = nn.Sequential(first, second)
    training.Training(torch.device("cpu")).fit(
        network, groups, lambda count: torch.ones(count, 1, 1), lambda x: network(x).sum(), 1
    )
    assert abs(first.weight.item() - before[0]) == pytest.approx(0.1, rel=1e-3)
    assert abs(second.weight.item() - before[1]) == pytest.approx(0.001, rel=1e-3)


def test_after_each_step() -> None:
    network, seen = nn.Linear(1, 1), []
    training.Training(torch.device("cpu")).fit(
        network,
        [training.Group(network.parameters(), 0.1)],
        lambda count: torch.ones(count, 1, 1),
        lambda x: network(x).sum(),
        3,
        after=seen.append,
    )
    assert seen == [0, 1, 2]
