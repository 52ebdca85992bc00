"""What the experiments' plots share: colours, marks for seeds, saving without a display."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .narrowing import words
from .refusal import Refusal, optional
from .report import paragraph, write_atomic

if TYPE_CHECKING:
    from .experiment import Experiment, Outcome

# One colour for each kind of model in all plots.
COLOURS = {
    "NAC": "#0072b2",
    "NAC log": "#56b4e9",
    "NAC sigma": "#882255",
    "NAC NMU": "#661100",
    "NALU": "#d55e00",
    "GNALU": "#f0a070",
    "INALU": "#a03010",
    "INALU tied": "#e6ab02",
    "NAU": "#117733",
    "NMU": "#cc79a7",
    "NPU": "#332288",
    "RealNPU": "#8877cc",
    "RealNPU modified": "#332288",
    "NRU": "#aa4499",
    "NMRU": "#44aa99",
    "LSTM": "#8c3b7a",
    "RNN": "#009e73",
    "ReLU6": "#7f7f7f",
    "Linear": "#b8a000",
    "constant": "#9a9a9a",
}
_SHOWN = 1e-6, 1e6  # errors


def colour(model: str) -> str:
    """Of the model, or of the last part of its name that has one: "LSTM + NAC" is a NAC's."""
    for part in (model, *reversed(model.split(" + "))):
        if part in COLOURS:
            return COLOURS[part]
    return "#333333"


def marks(
    axes: Any,
    across: float,
    errors: Sequence[float],
    model: str,
    *,
    filled: bool,
) -> None:
    """A mark for each seed, spread a little so that equal ones show; errors beyond the ends of
    _SHOWN are drawn there."""
    middle = (len(errors) - 1) / 2
    axes.scatter(
        [across + 0.05 * (seed - middle) / len(errors) for seed in range(len(errors))],
        [min(max(error, _SHOWN[0]), _SHOWN[1]) for error in errors],
        s=15,
        marker="^" if filled else "o",
        facecolor=colour(model) if filled else "none",
        edgecolor=colour(model),
        linewidth=0.7,
        alpha=0.8,
    )


def tidy(axes: Any) -> None:
    """Small type and no box."""
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize(9)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)


@contextmanager
def own_defaults() -> Iterator[Any]:
    """matplotlib, within its own rcParams whatever the user's are. Without pyplot a figure needs no
    back end, keeps no global state and opens no window."""
    matplotlib = optional("matplotlib")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield matplotlib


def save_plot(experiment: Experiment, outcome: Outcome, path: Path) -> None:
    """Lets the experiment draw, and writes the PNG ``path``: the same whatever the user's back end
    and rcParams are.

    Raises:
        Refusal: it cannot be drawn or written.
    """
    image = io.BytesIO()
    try:
        with own_defaults():
            from matplotlib.figure import Figure

            figure = Figure(figsize=(7.2, 4.2), layout="constrained")
            experiment.draw(figure, outcome)
            for axes in figure.axes:
                tidy(axes)
            if outcome.narrowed:
                figure.suptitle(paragraph(words(outcome.narrowed)), fontsize=7, color="0.35")
            figure.savefig(image, format="png", dpi=130)
    except Exception as error:  # of matplotlib, of many kinds
        reason = " ".join(str(error).split())
        raise Refusal(
            f"{path}: cannot be drawn: {type(error).__name__}: {reason}; the numbers are saved"
        ) from error
    try:
        write_atomic(path, lambda temporary: temporary.write_bytes(image.getbuffer()))
    except OSError as error:
        raise Refusal(f"{path}: cannot write: {error.strerror}; the numbers are saved") from error
