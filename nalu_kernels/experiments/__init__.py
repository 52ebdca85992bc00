"""The literature's experiments on this library's layers; ``python -m nalu_kernels`` runs them.

They need the packages of the extra ``experiments``. A module for each experiment, by its name;
``experiment.py`` says what one is, ``narrowing.py`` which part of it runs, ``training.py`` trains,
``benchmark.py`` and ``ranges.py`` on sweeps; ``discover.py`` compares ``regressors.py`` on
``laws.py``; ``runner.py`` runs, ``store.py`` saves and resumes; ``report.py``, ``plot.py`` and
``summary.py`` show.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .experiment import Experiment

NAMES = (
    "identity",
    "static",
    "recurrent",
    "digits",
    "words",
    "programs",
    "gridworld",
    "testbench",
    "single",
    "division",
    "inalu",
)
BESIDE = ("discover",)  # by a script of its own, which needs what the extra of these lacks


def load(name: str) -> Experiment:
    """The experiment called ``name``, one of NAMES or BESIDE."""
    experiment: Experiment = importlib.import_module(f"{__name__}.{name}").EXPERIMENT
    return experiment
