"""From a trained model to a formula that was checked."""

from .read import formula
from .result import Formula

__all__ = ["Formula", "formula"]
