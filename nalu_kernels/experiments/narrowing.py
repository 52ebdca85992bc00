"""Which part of an experiment runs: ``--models``, ``--tasks`` and ``--ranges``.

Every trial has a place on each axis of its experiment, and a run is narrowed to some names of an
axis. A trial's random numbers come from its own key (training.py), so its numbers are the same
whichever others run, and a later, wider run in the same folder goes on with what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .experiment import AXES, Experiment, Outcome, Trial
from .refusal import Refusal
from .report import paragraph

Choice = dict[str, list[str]]  # axis to names, in the order of the tables; whole axes are not in it


def choose(experiment: Experiment, wanted: Mapping[str, Sequence[str] | None]) -> Choice:
    """What ``wanted`` narrows the experiment to.

    Args:
        wanted: for each of AXES the user's words, each a name or several with commas between;
            None, or no entry, is the whole axis. Spaces and capitals do not matter.

    Raises:
        Refusal: the experiment has no such axis, the axis no such name, or a name no trial that
            the other axes leave.
    """
    axes = experiment.axes()
    choice: Choice = {}
    for axis, words in wanted.items():
        if words is None:
            continue
        if axis not in axes:
            there = " and ".join(f"--{other}" for other in axes)
            raise Refusal(f"--{axis} {' '.join(words)}: {experiment.name} has {there} only")
        found = {name for text in words for name in _names(text, axis, axes[axis])}
        if len(found) < len(axes[axis]):
            choice[axis] = [name for name in axes[axis] if name in found]
    places = list(_places(experiment, experiment.trials(1), choice))
    for axis, names in choice.items():
        for name in names:
            if not any(place[axis] == name for place in places):
                others = {other: chosen for other, chosen in choice.items() if other != axis}
                raise Refusal(
                    f"--{axis} {name}: {experiment.name} has no trial of it with {_listed(others)}"
                )
    return choice


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


def _names(text: str, axis: str, known: Sequence[str]) -> Iterator[str]:
    """The names of ``known`` in ``text``, which may have commas of their own: "[1, 2]"."""
    rest = _plain(text)
    while True:
        fitting = [name for name in known if f"{rest},".startswith(f"{_plain(name)},")]
        if not fitting:
            found = _first(rest)
            there = ", ".join(map(repr, known))
            raise Refusal(f"--{axis} {text}: {found!r} is none of {there}")
        name = max(fitting, key=len)
        yield name
        rest = rest[len(_plain(name)) :]
        if not rest:
            return
        rest = rest[1:]


def _first(text: str) -> str:
    """What stands before the first comma that is not within brackets."""
    depth = 0
    for at, sign in enumerate(text):
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth <= 0:
            return text[:at]
    return text


def _places(
    experiment: Experiment, trials: Sequence[Trial], choice: Choice
) -> Iterator[dict[str, str]]:
    """Where the chosen trials are that have a place on every axis."""
    axes = experiment.axes().keys()
    for trial in trials:
        place = experiment.place(trial)
        if place.keys() == axes and all(place[axis] in names for axis, names in choice.items()):
            yield place


def trials(experiment: Experiment, seeds: int, choice: Choice) -> list[Trial]:
    """Those that ``choice`` leaves, in the order of the tables.

    A trial without a place on some axis (a yardstick) comes along with any other that has its place
    on the rest of them.
    """
    everything = experiment.trials(seeds)
    chosen = {tuple(place.items()) for place in _places(experiment, everything, choice)}
    return [
        trial
        for trial in everything
        if any(experiment.place(trial).items() <= dict(place).items() for place in chosen)
    ]


def words(choice: Choice) -> str:
    """For example "narrowed to models NAC, NALU; tasks a + b"; empty for a whole experiment."""
    return f"narrowed to {_listed(choice)}" if choice else ""


def _listed(choice: Choice) -> str:
    return "; ".join(f"{axis} {', '.join(choice[axis])}" for axis in AXES if axis in choice)


def table(experiment: Experiment, outcome: Outcome) -> list[str]:
    """The lines of the experiment's table, after one that says what the run was narrowed to."""
    narrowed = words(outcome.narrowed)
    return [*([paragraph(narrowed)] if narrowed else []), *experiment.table(outcome)]
