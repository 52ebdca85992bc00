"""Whole trainings of small stacks, thousands in a call.

:func:`run` trains one network for each row of a table, with the row's own seed and rates, and
returns a :class:`Result`. :mod:`.stream` has the random numbers.
"""

from .result import Result
from .run import Event, run
from .runs import Runs, grid
from .store import join, load
from .tasks import Arithmetic, Data, Exponential, Function, Normal

__all__ = [
    "Arithmetic",
    "Data",
    "Event",
    "Exponential",
    "Function",
    "Normal",
    "Result",
    "Runs",
    "grid",
    "join",
    "load",
    "run",
]
