"""Whole trainings of small stacks, thousands in a call: see :func:`run`."""

from .runs import Runs, grid
from .tasks import Arithmetic, Data, Function, Normal

__all__ = ["Arithmetic", "Data", "Function", "Normal", "Runs", "grid"]
