"""ArithmeticRegressor: an estimator like scikit-learn's own, and one that SRBench can call."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("sklearn")

import numpy
import sympy
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from nalu_kernels import sklearn
from nalu_kernels.sklearn import ArithmeticRegressor
from selection import long


@pytest.fixture
def data() -> tuple[Any, Any]:
    """y = a c²/b of four columns."""
    X = numpy.random.RandomState(0).uniform(1, 4, (150, 4))
    return X, X[:, 0] * X[:, 2] ** 2 / X[:, 1]


@pytest.fixture
def quick() -> ArithmeticRegressor:
    """Without a search: what a regression finds."""
    return ArithmeticRegressor(random_state=0, max_time=0)


def checked(estimator: ArithmeticRegressor) -> None:
    results = check_estimator(estimator, on_skip=None)
    assert len(results) > 40
    assert {result["status"] for result in results} <= {"passed", "skipped"}


def test_it_passes_scikit_learns_checks(quick: ArithmeticRegressor) -> None:
    checked(quick)


@long
def test_it_passes_them_with_a_search() -> None:
    checked(ArithmeticRegressor(max_time=0.2, n_jobs=1))


def test_a_formula(data: tuple[Any, Any], quick: ArithmeticRegressor) -> None:
    X, y = data
    assert quick.fit(X, y) is quick
    assert str(quick.formula_.sympy()) == "x0*x2**2/x1" and quick.formula_.verdict == "exact"
    assert quick.n_features_in_ == 4 and not hasattr(quick, "feature_names_in_")
    fresh = 10 * X
    expected = fresh[:, 0] * fresh[:, 2] ** 2 / fresh[:, 1]
    numpy.testing.assert_allclose(quick.predict(fresh), expected, rtol=1e-12)
    assert quick.score(fresh, expected) == pytest.approx(1)


def test_a_law_that_is_searched() -> None:
    X = numpy.random.RandomState(1).uniform(1, 4, (150, 3))
    y = (X[:, 0] + X[:, 2]) * X[:, 1]
    fitted = ArithmeticRegressor(random_state=1).fit(X, y)
    assert fitted.formula_.verdict == "exact" and fitted.score(10 * X, 100 * y) == pytest.approx(1)
    assert fitted.fit_.best.candidate not in ("linear regression", "power law")


def test_names_of_a_data_frame(data: tuple[Any, Any], quick: ArithmeticRegressor) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = data
    frame = pandas.DataFrame(X, columns=["mass", "length", "speed", "lambda"])
    frame.insert(1, "unit", 1.0)  # constant
    quick.fit(frame, pandas.Series(y))
    assert str(quick.formula_.sympy()) == "mass*speed**2/length"
    assert list(quick.feature_names_in_) == list(frame.columns) and quick.n_features_in_ == 5
    numpy.testing.assert_allclose(quick.predict(frame), y)
    with pytest.raises(ValueError, match="feature names"):
        quick.predict(frame.rename(columns={"mass": "weight"}))


def test_srbench(data: tuple[Any, Any]) -> None:
    """Its names, and a string that sympy reads."""
    pandas = pytest.importorskip("pandas")
    X, y = data
    fitted = clone(sklearn.est).set_params(random_state=7, max_time=1).fit(X, y)
    assert sklearn.model(fitted) == "x0*x2**2/x1"
    frame = pandas.DataFrame(X, columns=["x2", "x0", "m", "v"])  # two that change places
    assert sympy.sympify(sklearn.model(fitted, frame)) == sympy.sympify("x2*m**2/x0")
    assert sklearn.model(fitted, X) == sklearn.model(fitted)
    assert sympy.sympify(sklearn.model(fitted.fit(frame, y), frame)) == sympy.sympify("x2*m**2/x0")


def test_without_a_formula_the_model_predicts(quick: ArithmeticRegressor) -> None:
    generator = numpy.random.RandomState(2)
    X = generator.normal(size=(100, 3))
    y = X @ [1.234, -2.345, 0] + generator.normal(size=100)
    quick.fit(X, y)
    assert quick.formula_.verdict == "not a formula" and quick.score(X, y) > 0.7
    assert quick.fit_.best.candidate == "linear regression"
    assert isinstance(sympy.sympify(sklearn.model(quick)), sympy.Expr)


@pytest.mark.parametrize("rows", [3, 4, 10])
@pytest.mark.parametrize("columns", [1, 5])
def test_little_data(rows: int, columns: int, quick: ArithmeticRegressor) -> None:
    X = numpy.random.RandomState(3).normal(size=(rows, columns))
    for y in (X[:, 0], numpy.ones(rows), numpy.zeros(rows)):
        assert numpy.isfinite(quick.fit(X, y).predict(X)).all()
    assert numpy.isfinite(quick.fit(numpy.ones((rows, columns)), X[:, 0]).predict(X)).all()


def test_two_rows_are_too_few(quick: ArithmeticRegressor) -> None:
    with pytest.raises(ValueError, match=r"minimum of 3 is required"):
        quick.fit([[1.0], [2.0]], [1.0, 2.0])


def test_pipelines_and_cross_validation(data: tuple[Any, Any], quick: ArithmeticRegressor) -> None:
    X, y = data
    assert cross_val_score(quick, X, y, cv=3) == pytest.approx(1)
    logs = make_pipeline(FunctionTransformer(numpy.log), StandardScaler(), quick)
    assert cross_val_score(logs, X, numpy.log(y), cv=3) == pytest.approx(1)
    search = GridSearchCV(quick, {"outside": [0.1, 0.3]}, cv=2).fit(X, y)
    assert search.best_estimator_.formula_.verdict == "exact"


def test_the_same_seed_and_a_pickle_predict_the_same(data: tuple[Any, Any]) -> None:
    X, y = data
    y = y + numpy.random.RandomState(4).normal(size=len(y))
    first, again = (ArithmeticRegressor(random_state=5, max_time=0).fit(X, y) for _ in range(2))
    assert numpy.array_equal(first.predict(X), again.predict(X))
    assert numpy.array_equal(pickle.loads(pickle.dumps(first)).predict(X), first.predict(X))


def test_scikit_learn_is_asked_for_by_its_extra() -> None:
    code = "import sys; sys.modules['sklearn'] = None\nimport nalu_kernels.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'nalu-kernels[sklearn]'" in done.stderr.splitlines()[-1]
