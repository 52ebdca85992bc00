"""What is compared in ``discover``: each fits a table within a number of seconds, on one core."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nalu_kernels.fit import Table, fit

from .refusal import optional

Predict = Callable[[Tensor], Tensor]

# gplearn's settings; all others are its own.
FUNCTIONS = ("add", "sub", "mul", "div", "sqrt", "inv")
POPULATION, GENERATIONS = 1000, 30
_SOLVED = 1e-9  # mean absolute error, of the targets' mean size, at which gplearn may stop
# What boosting chooses among by 5-fold cross-validation.
_BOOSTING = {"n_estimators": (100, 500), "max_depth": (2, 3, 5), "learning_rate": (0.03, 0.1, 0.3)}


class Found(NamedTuple):
    """``formula`` is empty where there is none; ``predict`` computes what it says. ``verdict`` is
    what the method itself says of it, if it does."""

    formula: str
    predict: Predict
    verdict: str = ""


@dataclass(frozen=True)
class Request:
    """A table, and what a method may take for it."""

    table: Table
    seconds: float
    seed: int

    def arrays(self) -> tuple[Any, Any]:
        """Inputs and targets for scikit-learn."""
        return self.table.x.numpy(), self.table.y.numpy()


def _ours(request: Request) -> Found:
    # In a thread: in the main one a signal to the run would end the search, and what it had by then
    # would pass for what it finds in its time.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(
            fit, request.table, seconds=request.seconds, seed=request.seed, threads=1
        ).result()
    module, columns = found.formula.module(), found.best.columns

    def predict(x: Tensor) -> Tensor:
        with torch.no_grad():
            y: Tensor = module(x[:, columns]).squeeze(1)
        return y

    return Found(str(found.formula.sympy()), predict, found.formula.verdict)


def _gplearn(request: Request) -> Found:
    """The program with the least error on the rows, until one fits or the next generation would be
    too late."""
    x, y = request.arrays()
    enough = _SOLVED * float(abs(y).mean())
    started = began = time.perf_counter()
    best: Any = None
    longest = 0.0
    for program in _generations(request, x, y):
        now = time.perf_counter()
        longest, began = max(longest, now - began), now
        if best is None or program.raw_fitness_ < best.raw_fitness_:
            best = program
        if best.raw_fitness_ <= enough or now - started + longest > request.seconds:
            break
    return Found(str(best), _by_sklearn(best.execute))


def _generations(request: Request, x: Any, y: Any) -> Iterator[Any]:
    """The best program of each generation, without end; anew after GENERATIONS."""
    genetic = optional("gplearn.genetic")
    for attempt in itertools.count():
        regressor = genetic.SymbolicRegressor(
            population_size=POPULATION,
            function_set=FUNCTIONS,
            feature_names=list(request.table.names),
            random_state=1000 * request.seed + attempt,
            warm_start=True,
            low_memory=True,
        )
        for generation in range(1, GENERATIONS + 1):
            yield regressor.set_params(generations=generation).fit(x, y)._program


def _linear(request: Request) -> Found:
    regressor = optional("sklearn.linear_model").LinearRegression().fit(*request.arrays())
    terms = zip(regressor.coef_.tolist(), request.table.names, strict=True)
    text = " + ".join(f"{weight!r}*{name}" for weight, name in terms)
    return Found(f"{text} + {float(regressor.intercept_)!r}", _by_sklearn(regressor.predict))


def _boosting(request: Request) -> Found:
    """Of the settings that could be tried in the time, the one with the least error."""
    ensemble = optional("sklearn.ensemble")
    selection = optional("sklearn.model_selection")
    started = time.perf_counter()
    x, y = request.arrays()
    settings = [
        dict(zip(_BOOSTING, of, strict=True)) for of in itertools.product(*_BOOSTING.values())
    ]
    order = torch.randperm(len(settings), generator=torch.Generator().manual_seed(request.seed))
    best: Any = None
    least, longest = float("inf"), 0.0
    for place in order.tolist():
        began = time.perf_counter()
        if best is not None and began - started + longest > request.seconds:
            break
        regressor = ensemble.GradientBoostingRegressor(**settings[place], random_state=request.seed)
        folds = selection.KFold(5, shuffle=True, random_state=request.seed)
        scores = selection.cross_val_score(
            regressor, x, y, cv=folds, scoring="neg_mean_absolute_error"
        )
        if best is None or -scores.mean() < least:
            best, least = regressor, -scores.mean()
        longest = max(longest, time.perf_counter() - began)
    return Found("", _by_sklearn(best.fit(x, y).predict))


def _by_sklearn(predict: Callable[[Any], Any]) -> Predict:
    return lambda x: torch.as_tensor(predict(x.numpy()), dtype=torch.float64)


class Method(NamedTuple):
    """``requires`` are the modules that it needs."""

    fit: Callable[[Request], Found]
    requires: Sequence[str] = ()

    def __call__(self, request: Request) -> Found:
        with warnings.catch_warnings():
            # gplearn's programs overflow now and then; it drops them.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="gplearn")
            return self.fit(request)


METHODS = {
    "fit": Method(_ours),
    "gplearn": Method(_gplearn, ("gplearn.genetic",)),
    "linear": Method(_linear, ("sklearn.linear_model",)),
    "boosting": Method(_boosting, ("sklearn.ensemble", "sklearn.model_selection")),
}
