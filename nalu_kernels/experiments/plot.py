"""The picture: error against input for y = x, inside and outside for each operation, the digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .arithmetic import Arithmetic
from .digits import LENGTH, LONG, Digits
from .identity import NAC_STACK, Identity
from .report import finite_or_infinite, median, write_atomic
from .toolkit import Result

_COLOURS = {
    "NAC": "#0072b2",
    "NALU": "#d55e00",
    "ReLU6": "#7f7f7f",
    "Linear": "#b8a000",
    "LSTM": "#8c3b7a",
    "constant": "#9a9a9a",
}
_FLOOR, _CEILING = 1e-6, 1e6  # errors beyond are drawn at the edge


def _identity(axes: Any, result: Identity) -> None:
    from matplotlib import colormaps

    low, high = result.training_range
    axes.axvspan(low, high, color="0.9", zorder=0)
    centred = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
    axes.text(0, 0.98, "trained here", fontsize=7, color="0.35", **centred)
    usual = [name for name in result.curves if name != NAC_STACK]
    usual.sort(key=lambda name: -median(result.outside[name]))
    palette = colormaps["tab20"]
    for place, name in enumerate(usual):
        axes.plot(result.inputs, result.curves[name], label=name, lw=1, color=palette(place))
    axes.plot(result.inputs, result.curves[NAC_STACK], label=NAC_STACK, lw=2, color="black")
    axes.set(
        title="y = x by networks of 3 hidden layers of 8",
        xlabel="input",
        ylabel="mean absolute error",
        xlim=(min(result.inputs), max(result.inputs)),
        ylim=(0, None),
    )
    axes.legend(
        ncols=2, fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, 0.93), framealpha=0.9
    )


def _arithmetic(axes: Any, result: Arithmetic) -> None:
    models = list(next(iter(result.scores.values())))
    for place, scores in enumerate(result.scores.values()):
        if place:
            axes.axvline(place - 0.5, color="0.9", lw=0.8, zorder=0)
        for shift, model in enumerate(models):
            across = place + 0.2 * (shift - (len(models) - 1) / 2)
            _points(axes, across - 0.04, scores[model].inside_percent, model, filled=False)
            _points(axes, across + 0.04, scores[model].outside_percent, model, filled=True)
    axes.axhline(100, color="0.4", lw=0.8, ls=":")
    axes.text(len(result.scores) - 0.5, 130, "untrained", fontsize=7, color="0.35", ha="right")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set(
        title="arithmetic on hidden subset sums, a mark for each seed",
        ylabel="error, 0 = perfect, 100 = untrained",
        ylim=(low, max(high, 1000)),
        xlim=(-0.5, len(result.scores) - 0.5),
    )
    axes.set_xticks(range(len(result.scores)), list(result.scores))
    for model in models:
        axes.scatter([], [], color=_COLOURS[model], marker="s", s=16, label=model)
    axes.scatter([], [], edgecolor="0.2", facecolor="none", marker="o", s=14, label="inside")
    axes.scatter([], [], color="0.2", marker="^", s=14, label="outside")
    axes.legend(ncols=6, fontsize=6.5, loc="upper center", columnspacing=0.9, handletextpad=0.1)


def _points(axes: Any, across: float, errors: list[float], model: str, *, filled: bool) -> None:
    """A mark for each seed, spread a little so that equal ones show."""
    colour = _COLOURS[model]
    middle = (len(errors) - 1) / 2
    spread = [across + 0.05 * (seed - middle) / len(errors) for seed in range(len(errors))]
    axes.scatter(
        spread,
        [min(max(finite_or_infinite(error), _FLOOR), _CEILING) for error in errors],
        s=15,
        marker="^" if filled else "o",
        facecolor=colour if filled else "none",
        edgecolor=colour,
        linewidth=0.7,
        alpha=0.8,
    )


def _digits(axes: Any, result: Digits) -> None:
    for shift, (model, errors) in enumerate(result.errors.items()):
        places = [place + 0.26 * (shift - 1) for place in range(2)]
        heights = [median(errors[str(length)]) for length in (LENGTH, LONG)]
        axes.bar(places, heights, width=0.24, color=_COLOURS[model], alpha=0.55, label=model)
        for place, length in zip(places, (LENGTH, LONG), strict=True):
            found = [value for value in errors[str(length)] if math.isfinite(value)]
            axes.scatter([place] * len(found), found, s=9, color="black", zorder=3)
    axes.set(
        title="sums of handwritten digits",
        ylabel="mean absolute error of a sum",
        yscale="log",
    )
    axes.set_xticks(range(2), [f"{LENGTH} digits\n(as trained)", f"{LONG} digits"])
    axes.legend(fontsize=7, loc="upper left")


class _Panel(NamedTuple):
    draw: Callable[[Any, Any], None]  # axes, result
    width: float  # inches


_PANELS = {
    Identity: _Panel(_identity, 4.8),
    Arithmetic: _Panel(_arithmetic, 6.2),
    Digits: _Panel(_digits, 3.0),
}


def save(results: Iterable[Result], path: Path) -> None:
    """Draws a panel for each result into the PNG ``path``."""
    # Imported only now, and without pyplot: no global state, and no window anywhere.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [(_PANELS[type(result)], result) for result in results]
    widths = [panel.width for panel, _ in drawn]
    figure = Figure(figsize=(sum(widths), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(drawn), squeeze=False, width_ratios=widths)
    for axes, (panel, result) in zip(grid[0], drawn, strict=True):
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        panel.draw(axes, result)
        axes.title.set_fontsize(9)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=160))
