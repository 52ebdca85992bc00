"""``python -m nalu_kernels fit``: a table's formula, printed, drawn and saved."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import sympy
import torch

from nalu_kernels import __version__
from nalu_kernels.experiments.refusal import Refusal, require
from nalu_kernels.experiments.report import columns, finite_or_infinite, paragraph, write_atomic
from nalu_kernels.experiments.store import locked, writable_folder
from nalu_kernels.formulas.names import written

from .clock import Clock
from .files import printable
from .fitting import Fit, Row, fit
from .plot import save_plot
from .table import read

_DIGITS = 4  # of numbers in the table of models
_FORMULA = 60  # characters of a formula there


def run(options: argparse.Namespace) -> Fit:
    """Reads, searches, checks, prints and saves.

    Raises:
        Refusal: the table or the folder cannot be used.
        KeyboardInterrupt: before anything was found.
    """
    require("matplotlib", "safetensors.torch", "tqdm", what="fit")
    try:
        table = read(options.table, options.target, options.columns)
    except ImportError as error:
        raise Refusal(str(error)) from error
    out = Path(options.out or f"results/fit/{Path(options.table).stem}")
    writable_folder(out)
    print(
        paragraph(
            f"{printable(options.table)}: {len(table)} rows, {_shown(table.target)} from "
            + ", ".join(map(_shown, table.names))
        )
    )
    for note in table.notes:
        print(paragraph(f"- {note}"))
    with locked(out):
        with Clock("searching", options.seconds):
            found = fit(table, seconds=options.seconds, seed=options.seed)
        _save(found, out, options)
        try:
            print("\n".join(["", *lines(found)]))
        finally:  # the plot is saved though nobody may read on
            save_plot(found, out / "plot.png")
    print(f"\n{found.seconds:.0f} s; {out}: formula.json, model.safetensors, plot.png", flush=True)
    return found


def _shown(name: str) -> str:
    return printable(name if name.isidentifier() else repr(name))


def lines(found: Fit) -> list[str]:
    """What is printed of a fit: the models that were checked, and the one that was chosen."""
    split = found.split
    rows = [["", "complexity", "inside", "outside", "  verdict", "formula"]]
    for row in found.rows:
        outside = row.formula.outside
        rows.append(
            [
                ">" if row is found.best else "",
                str(row.complexity),
                _error(row.formula.inside.rounded.spread),
                "-" if outside is None else _error(outside.rounded.spread),
                f"  {row.verdict}",
                _short(row),
            ]
        )
    said = [
        f"trained on {len(split.training)} rows, ranked by {len(split.choosing)}, checked on "
        f"{len(split.checking)} inside and {len(split.outside)} outside",
        "",
        *columns(rows, (-2, 10, 10, 10, -18, -_FORMULA)),
        "",
        "inside, outside: root of the mean squared error, as a share of the target's standard "
        "deviation",
    ]
    if any(row.formula.sympy().atoms(sympy.Float) for row in found.rows):
        said.append(f"numbers are shown to {_DIGITS} digits here; formula.json has the best's")
    return [*said, "", *_conclusion(found)]


def _conclusion(found: Fit) -> list[str]:
    best = found.best
    if not found.found:
        inside, outside = best.formula.inside.model, best.formula.outside
        also = "" if outside is None else f", {_error(outside.model.spread)} outside"
        return [
            "No formula found.",
            f"The best model, {best.candidate}, has an error of {_error(inside.spread)} "
            f"inside{also}.",
        ]
    return [
        printable(f"{found.table.target} = {written(best.formula.sympy())}"),
        *map(printable, str(best.formula).splitlines()[1:]),
    ]


def _error(value: float) -> str:
    value = finite_or_infinite(value)
    return "overflow" if value == float("inf") else f"{value:.1e}"


def _short(row: Row) -> str:
    expression = row.formula.sympy()
    rounded = expression.xreplace(
        {of: sympy.Float(of, _DIGITS) for of in expression.atoms(sympy.Float)}
    )
    text = printable(written(rounded))
    return text if len(text) <= _FORMULA else f"{text[: _FORMULA - 3]}..."


def _save(found: Fit, out: Path, options: argparse.Namespace) -> None:
    """formula.json and model.safetensors.

    Raises:
        Refusal: they cannot be written.
    """
    from safetensors.torch import save

    best, table = found.best, found.table
    state = {name: value.contiguous() for name, value in best.model.state_dict().items()}
    about = {
        "target": table.target,
        "inputs": json.dumps([table.names[column] for column in best.columns]),
        "model": str(best.model),
        "verdict": best.verdict,
    }
    described = json.dumps(describe(found, options), indent=1, allow_nan=False).encode()
    _write(out / "formula.json", described + b"\n")
    _write(out / "model.safetensors", save(state, about))


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise Refusal(f"{path}: cannot write: {error.strerror}") from error


def describe(found: Fit, options: argparse.Namespace) -> dict[str, Any]:
    """What formula.json has; null for a number that is not finite."""
    split = found.split
    return {
        "target": found.table.target,
        "verdict": found.best.verdict,
        "candidate": found.best.candidate,
        **{
            key: value
            for key, value in json.loads(found.best.formula.to_json()).items()
            if key != "verdict"
        },
        "rows": {
            "training": len(split.training),
            "choosing": len(split.choosing),
            "checking": len(split.checking),
            "outside": len(split.outside),
        },
        "checked": [
            {
                "candidate": row.candidate,
                "complexity": row.complexity,
                "error": row.error,
                "formula": written(row.formula.sympy()),
                "verdict": row.verdict,
                **{part: json.loads(row.formula.to_json())[part] for part in ("inside", "outside")},
            }
            for row in found.rows
        ],
        "notes": list(found.table.notes),
        "table": str(options.table),
        "seconds": options.seconds,
        "seed": options.seed,
        "nalu_kernels": __version__,
        "torch": torch.__version__,
    }
