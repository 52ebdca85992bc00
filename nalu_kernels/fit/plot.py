"""Predicted against measured, on the rows that nothing had looked at before the verdict."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from torch import Tensor

from nalu_kernels.experiments.plot import own_defaults, tidy
from nalu_kernels.experiments.refusal import Refusal
from nalu_kernels.experiments.report import write_atomic

from .fitting import Fit

_INSIDE, _OUTSIDE = "#0072b2", "#d55e00"


def save_plot(fit: Fit, path: Path) -> None:
    """Writes the PNG ``path``.

    Raises:
        Refusal: it cannot be drawn or written.
    """
    image = io.BytesIO()
    try:
        with own_defaults():
            from matplotlib.figure import Figure

            figure = Figure(figsize=(7.2, 3.8), layout="constrained")
            _draw(figure, fit)
            figure.savefig(image, format="png", dpi=130)
    except Exception as error:  # of matplotlib, of many kinds
        reason = " ".join(str(error).split())
        raise Refusal(f"{path}: cannot be drawn: {type(error).__name__}: {reason}") from error
    try:
        write_atomic(path, lambda temporary: temporary.write_bytes(image.getbuffer()))
    except OSError as error:
        raise Refusal(f"{path}: cannot write: {error.strerror}") from error


def _draw(figure: Any, fit: Fit) -> None:
    parts = [("inside", fit.split.checking, _INSIDE), ("outside", fit.split.outside, _OUTSIDE)]
    shown = [part for part in parts if len(part[1])]
    for place, (name, rows, colour) in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), place)
        measured, predicted = fit.table.y[rows], fit.predict(fit.table.x[rows])
        axes.axline((float(measured[0]), float(measured[0])), slope=1, color="0.7", linewidth=0.8)
        axes.scatter(_list(measured), _list(predicted), s=14, color=colour, alpha=0.7, linewidth=0)
        axes.set_title(f"{name}, {len(rows)} rows: {fit.best.verdict}")
        axes.set_xlabel(_plain(f"measured {fit.table.target}"))
        axes.set_ylabel("predicted")
        tidy(axes)


def _list(values: Tensor) -> list[float]:
    """What cannot be drawn is left out."""
    return values.nan_to_num(posinf=float("nan"), neginf=float("nan"), nan=float("nan")).tolist()


def _plain(text: str) -> str:
    """Without what matplotlib takes for mathematics."""
    return text[:60].replace("$", r"\$")
