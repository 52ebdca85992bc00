"""A scikit-learn estimator that finds formulas, and the names by which SRBench calls it.

It needs scikit-learn: ``pip install 'nalu-kernels[sklearn]'``. Nothing else of the library imports
this module.
"""

from __future__ import annotations

from typing import Any

import numpy
import torch
from sympy import Symbol
from torch import Tensor

from .fit import Fit, Table, fit
from .formulas import Formula
from .formulas.names import is_read_by_sympy

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"nalu_kernels.sklearn needs scikit-learn: pip install 'nalu-kernels[sklearn]' ({error})"
    ) from error

_LEAST_ROWS = 3  # one to train on, one to choose by, one to check


class ArithmeticRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Finds a formula of the target in the inputs by :func:`nalu_kernels.fit.fit`.

    Where no formula was found it predicts by the best model that was trained. Fewer than 12 rows
    are no matter of a search: they get a linear regression or a product of powers.

    Args:
        random_state: an int, or what scikit-learn takes besides, for the split and the search. As
            the search ends by the clock, two fits may differ all the same where it found no law.
        max_time: the seconds that ``fit`` may take. 0 leaves the search out.
        outside: the share of rows with the largest magnitudes that is held back as the test of
            extrapolation, at most a half.
        n_jobs: threads of the search; None is one for each core.

    Attributes:
        formula_: a :class:`nalu_kernels.Formula`, with its verdict and errors.
        fit_: a :class:`nalu_kernels.fit.Fit`, with all models that were checked.
        n_features_in_: as of every estimator.
        feature_names_in_: likewise, where the inputs had names.
    """

    formula_: Formula
    fit_: Fit
    n_features_in_: int
    feature_names_in_: Any

    def __init__(
        self,
        random_state: Any = None,
        max_time: float = 60.0,
        outside: float = 0.2,
        n_jobs: int | None = None,
    ) -> None:
        self.random_state = random_state
        self.max_time = max_time
        self.outside = outside
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any) -> ArithmeticRegressor:
        """Fits to inputs ``X`` (rows, features) and a target ``y`` (rows,), all of them finite.

        Raises:
            ValueError: fewer than 3 rows, numbers that are not finite, or another shape.
        """
        X, y = validate_data(
            self, X, y, y_numeric=True, dtype=numpy.float64, ensure_min_samples=_LEAST_ROWS
        )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        x, target = _tensor(X), _tensor(y)
        self._columns = _varying(x)
        names = [_names(self)[column] for column in self._columns]
        table = Table(tuple(names), "y", x[:, self._columns].contiguous(), target)
        self.fit_ = fit(
            table, seconds=self.max_time, seed=seed, outside=self.outside, threads=self.n_jobs
        )
        self.formula_ = self.fit_.formula
        return self

    def predict(self, X: Any) -> Any:
        """Predictions (rows,) in float64 for inputs (rows, features): by the rounded module, which
        is what the formula says, where the verdict is "exact"; else by the trained model."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=numpy.float64)
        return self.fit_.predict(_tensor(X)[:, self._columns]).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True  # the search ends by the clock
        return tags


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(numpy.array(array, dtype=numpy.float64))  # an own, writable one


def _varying(x: Tensor) -> list[int]:
    """The columns that are not constant; the first, if all are."""
    return (x != x[0]).any(0).nonzero()[:, 0].tolist() or [0]


def _names(fitted: ArithmeticRegressor) -> list[str]:
    """Of the features: x0, x1 and so on without names of their own."""
    own = getattr(fitted, "feature_names_in_", None)
    return [f"x{k}" for k in range(fitted.n_features_in_)] if own is None else list(map(str, own))


# SRBench's, whose experiments set random_state and max_time.
est = ArithmeticRegressor(random_state=0)


def model(est: ArithmeticRegressor, X: Any = None) -> str:
    """The formula of a fitted ``est`` as a string that sympy reads.

    Args:
        X: a DataFrame, whose columns' names the formula gets; None keeps those of the fit. A name
            that sympy takes for something else (``E``, ``a b``) is x0, x1 and so on by its place.
    """
    check_is_fitted(est)
    expression, own = est.formula_.sympy(), _names(est)
    names = map(str, X.columns) if hasattr(X, "columns") else own
    new = {
        name: Symbol(shown if is_read_by_sympy(shown) else f"x{place}")
        for place, (name, shown) in enumerate(zip(own, names, strict=True))
    }
    return str(expression.xreplace({of: new[of.name] for of in expression.free_symbols}))
