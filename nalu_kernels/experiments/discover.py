"""Which laws are found from 200 rows: by ``fit``, by gplearn, and by two regressors.

The laws are those of laws.py, the methods those of regressors.py. A method gets a law's table
twice, exact and with noise, each time with the same seconds on one core. Fresh rows, which no
method has seen, judge what it found. Its formula is the law if it differs from it on no row, inside
or outside, by more than 1e-5: relative to the row's target, or to the median target where that is
larger. With noise, too, the law itself is what it is compared with: a constant that was fitted to
noise is off.
"""

from __future__ import annotations

import re
import time
from typing import Any

import torch
from torch import Tensor

from nalu_kernels.fit import Table

from .experiment import Comparison, Experiment, Outcome, Scale, Settings, Trial
from .laws import KINDS, LAWS, Law
from .refusal import require
from .regressors import FUNCTIONS, GENERATIONS, METHODS, POPULATION, Request
from .report import columns, finite_or_infinite, median, number
from .training import Training, generator

ROWS, FRESH = 200, 1000
NOISE = {"exact": 0.0, "1 % noise": 0.01}  # standard deviation, of each target
RECOVERED = 1e-5
NEAR = 0.01
_COLOURS = {"fit": "#332288", "gplearn": "#d55e00", "linear": "#b8a000", "boosting": "#44aa99"}
_NAME, _FORMULA = 21, 70  # columns of a law's name, and of a formula that is not it
_SHOWN = 1e-16, 1e4  # errors in the plot
_BUSY = 0.8  # a share of the clock's seconds: with fewer of the processor, others were at work


def noisy(law: Law, x: Tensor, noise: float, seed: int) -> Tensor:
    """The law's targets, each times 1 + ``noise`` z with z from the normal distribution."""
    source = generator("discover", "noise", law.name, seed)
    return law(x) * (1 + noise * torch.randn(len(x), generator=source, dtype=torch.float64))


def relative(predicted: Tensor, y: Tensor) -> Tensor:
    """Errors of rows relative to their targets, or to the median target where that is larger."""
    off = (predicted - y).abs() / torch.maximum(y.abs(), y.abs().median())
    return off.nan_to_num(nan=float("inf"))


class Discover(Experiment):
    name = "discover"
    title = f"which of {len(LAWS)} textbook laws are found from {ROWS} rows"
    source = "Laws of textbook physics; gplearn and scikit-learn are those of constraints.txt"
    differs = (
        "Only operations that this library has are in these laws, and their ranges suit it: the "
        "list was made for it, and says nothing of laws with sines or exponentials. gplearn has "
        f"the functions {', '.join(FUNCTIONS)}, {POPULATION:,} programs, and begins anew after "
        f"{GENERATIONS} generations until its time is over; its other settings are its own. "
        "PySR, which needs Julia, was not run. The benchmark SRBench gives a method hours, and "
        "calls a law solved that is off by a constant; here no constant may be off."
    )
    small = Scale(seeds=1, steps=15)
    full = Scale(seeds=1, steps=60)
    unit = "seconds for each method and table"
    models = tuple(METHODS)
    tasks = tuple(LAWS)

    def check(self, settings: Settings) -> None:
        for name in settings.narrowed.get("models", self.models):
            require(*METHODS[name].requires, what=f"the method {name}")

    def steps(self, trial: Trial, settings: Settings) -> int:
        return len(NOISE)

    def run(self, trial: Trial, settings: Settings, training: Training) -> dict[str, Any]:
        law, tables = LAWS[trial.task], list(NOISE)
        return {
            tables[step]: _measured(law, tables[step], trial, settings.steps)
            for step in training.steps(len(tables))
        }

    def table(self, outcome: Outcome) -> list[str]:
        models, laws = self.ran(outcome)
        lines = _list_of(laws)
        for table in NOISE:
            lines += ["", *_errors(outcome, table, models, laws)]
        for table in NOISE:
            lines += ["", *_missed(outcome, table, models, laws)]
        return lines

    def claims(self, outcome: Outcome) -> list[str]:
        models, laws = self.ran(outcome)
        claims = []
        for table in NOISE:
            counts = [
                f"{model} {len(_recovered(outcome, table, model, laws))} of {len(laws)}"
                for model in models
                if model != "boosting"
            ]
            claims.append(f"{table}: laws recovered: {', '.join(counts)}")
        claims += [_near(outcome, table, models, laws) for table in NOISE]
        if {"fit", "gplearn"} <= {*models}:
            claims += _between(outcome, laws)
        if "fit" in models:
            claims += [_by_kind(outcome, laws), _honest(outcome, laws)]
        return [*claims, _seconds(outcome, models)]

    def compare(self, outcome: Outcome) -> list[Comparison]:
        return []

    def draw(self, figure: Any, outcome: Outcome) -> None:
        models, laws = self.ran(outcome)
        low, high = _SHOWN
        for axes, table in zip(figure.subplots(1, len(NOISE), sharey=True), NOISE, strict=True):
            for model in models:
                errors = sorted(
                    min(max(_of(outcome, table, model, law)["outside"], low), high) for law in laws
                )
                axes.step(
                    [low, *errors, high],
                    [0, *range(1, len(errors) + 1), len(errors)],
                    where="post",
                    label=model,
                    color=_COLOURS[model],
                )
            axes.axvline(RECOVERED, color="0.7", lw=0.7, ls=":")
            axes.set(title=table, xscale="log", xlabel="median relative error outside, at most")
        figure.axes[0].set_ylabel("laws")
        figure.axes[0].legend(fontsize=7)


def _measured(law: Law, table: str, trial: Trial, seconds: int) -> dict[str, Any]:
    """What the method finds of one table, on fresh rows."""
    x = law.inside(ROWS, "given", trial.seed)
    given = Table(law.names, "y", x, noisy(law, x, NOISE[table], trial.seed))
    began, used = time.perf_counter(), time.process_time()
    found = METHODS[trial.model](Request(given, float(seconds), trial.seed))
    took, used = time.perf_counter() - began, time.process_time() - used
    inside, outside = (
        relative(found.predict(rows), law(rows))
        for rows in (law.inside(FRESH, "fresh", trial.seed), law.outside(FRESH, trial.seed))
    )
    largest = finite_or_infinite(float(torch.cat([inside, outside]).max()))
    return {
        "formula": found.formula,
        "verdict": found.verdict,
        "recovered": bool(found.formula) and largest <= RECOVERED,
        "inside": float(inside.median()),
        "outside": float(outside.median()),
        "largest": largest,
        "seconds": took,
        "processor": used,
    }


def _of(outcome: Outcome, table: str, model: str, law: str) -> dict[str, Any]:
    """A method's numbers of a law's table."""
    numbers: dict[str, Any] = outcome.values(table, model=model, task=law)[0]
    return numbers


def _recovered(outcome: Outcome, table: str, model: str, laws: list[str]) -> list[str]:
    return [law for law in laws if _of(outcome, table, model, law)["recovered"]]


def _list_of(laws: list[str]) -> list[str]:
    lines = [
        "the laws, and the ranges inside; outside a magnitude is up to twice the range's largest"
    ]
    for kind in KINDS:
        rows = [
            [law.name, law.formula, law.ranges]
            for law in LAWS.values()
            if law.kind == kind and law.name in laws
        ]
        if rows:
            lines += ["", kind, *columns(rows, (-_NAME, -46, -1))]
    return lines


def _errors(outcome: Outcome, table: str, models: list[str], laws: list[str]) -> list[str]:
    rows = [["", *(part for model in models for part in (model, ""))]]
    rows.append(["", *(part for _ in models for part in ("inside", "outside "))])
    for law in laws:
        row = [law]
        for numbers in (_of(outcome, table, model, law) for model in models):
            mark = "*" if numbers["recovered"] else " "
            row += [number(numbers["inside"]), number(numbers["outside"]) + mark]
        rows.append(row)
    return [
        f"{table}: median relative error on {FRESH:,} fresh rows; * recovered",
        "",
        *columns(rows, (-_NAME, *(width for _ in models for width in (9, 10)))),
    ]


def _missed(outcome: Outcome, table: str, models: list[str], laws: list[str]) -> list[str]:
    """What the methods that have a formula to read say of the laws that ``fit`` missed."""
    if "fit" not in models:
        return []
    lines = []
    recovered = _recovered(outcome, table, "fit", laws)
    for law in [law for law in laws if law not in recovered]:
        lines += ["", f"{law}: {LAWS[law].formula}"]
        for model in ("fit", *(["gplearn"] if "gplearn" in models else [])):
            numbers = _of(outcome, table, model, law)
            verdict = "recovered" if numbers["recovered"] else numbers["verdict"]
            text = f"  {model}: {_short(numbers['formula'])}"
            lines.append(f"{text}  ({verdict})" if verdict else text)
    return [f"{table}: the laws that fit missed", *lines] if lines else []


def _short(formula: str) -> str:
    """With numbers of 4 digits, and no longer than a line has room for."""
    text = re.sub(r"\d+\.\d+(e[+-]?\d+)?", lambda found: f"{float(found[0]):.4g}", formula)
    return text if len(text) <= _FORMULA else f"{text[: _FORMULA - 4]} ..."


def _between(outcome: Outcome, laws: list[str]) -> list[str]:
    """Which laws one of the two finds, and the other does not."""
    claims = []
    for table in NOISE:
        ours, theirs = (_recovered(outcome, table, model, laws) for model in ("fit", "gplearn"))
        for what, names in (
            ("fit alone", [law for law in ours if law not in theirs]),
            ("gplearn alone", [law for law in theirs if law not in ours]),
            ("neither", [law for law in laws if law not in (*ours, *theirs)]),
        ):
            claims.append(f"{table}: recovered by {what}: {', '.join(names) or 'none'}")
    return claims


def _near(outcome: Outcome, table: str, models: list[str], laws: list[str]) -> str:
    """How often a method predicts well outside, formula or not."""
    counts = []
    for model in models:
        errors = [_of(outcome, table, model, law)["outside"] for law in laws]
        counts.append(f"{model} {sum(error <= NEAR for error in errors)}")
    said = f"{table}: median error outside at most {NEAR:.0%}, of {len(laws)} laws"
    return f"{said}: {', '.join(counts)}"


def _by_kind(outcome: Outcome, laws: list[str]) -> str:
    parts = []
    for kind in KINDS:
        of_kind = [law for law in laws if LAWS[law].kind == kind]
        if of_kind:
            found = (len(_recovered(outcome, table, "fit", of_kind)) for table in NOISE)
            parts.append(f"{kind} {' and '.join(map(str, found))} of {len(of_kind)}")
    return f"fit, {' and with '.join(NOISE)}: {'; '.join(parts)}"


def _honest(outcome: Outcome, laws: list[str]) -> str:
    """Whether what ``fit`` calls exact is the law."""
    found = [_of(outcome, table, "fit", law) for table in NOISE for law in laws]
    called = [numbers["recovered"] for numbers in found if numbers["verdict"] == "exact"]
    return f"fit called {len(called)} formulas exact, and {sum(called)} of them are the law"


def _seconds(outcome: Outcome, models: list[str]) -> str:
    found = {
        model: [numbers for table in NOISE for numbers in _every(outcome, table, model)]
        for model in models
    }
    parts = [
        f"{model} {number(median([numbers['seconds'] for numbers in of]))} and "
        f"{number(median([numbers['processor'] for numbers in of]))}"
        for model, of in found.items()
    ]
    every = [numbers for of in found.values() for numbers in of]
    clock, processor = (sum(numbers[key] for numbers in every) for key in ("seconds", "processor"))
    busy = "; other work ran on the machine" if processor < _BUSY * clock else ""
    return f"seconds of the clock and of the processor, median of tables: {', '.join(parts)}{busy}"


def _every(outcome: Outcome, table: str, model: str) -> list[dict[str, Any]]:
    return [row[table] for row in outcome.rows if row["model"] == model]


EXPERIMENT = Discover()
