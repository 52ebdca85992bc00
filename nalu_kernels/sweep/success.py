"""When a run has solved its task: its test error outside is below a threshold.

The field has three rules: the error of a solution whose weights are off by 1e-5 (Madsen and
Johansen 2020), by 1e-4 (Mistry, Farrahi and Hare 2022), and a flat mean squared error (Schlör, Ring
and Hotho 2020, 1e-5). A run has solved the task if its test error outside is below the threshold
at the test with the least error inside.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .tasks import OPERATIONS, SAMPLES, Arithmetic, Range, Task

WEIGHTS = {"weights_1e-5": 1e-5, "weights_1e-4": 1e-4}
FLAT = 1e-5
Success: TypeAlias = "str | float | Callable[[Task, Mapping[str, Any]], float]"


def check_success(success: Any, task: Task) -> Success:
    """The rule; None is "weights_1e-5" for Arithmetic, and the flat error 1e-5 otherwise.

    Raises:
        TypeError, ValueError: it is no rule, or none for this task.
    """
    if success is None:
        return "weights_1e-5" if isinstance(task, Arithmetic) else FLAT
    if isinstance(success, str):
        if success not in WEIGHTS:
            raise ValueError(
                f"success: expected one of {', '.join(WEIGHTS)}, a number or a function of task "
                f"and row, got {success!r}"
            )
        if not isinstance(task, Arithmetic):
            raise ValueError(
                f"success: {success!r} is for Arithmetic; {type(task).__name__} takes a number or "
                "a function of task and row"
            )
        return success
    if isinstance(success, bool) or not (isinstance(success, Real) or callable(success)):
        raise TypeError(
            f"success: expected a str, a number or a function, got {type(success).__name__}"
        )
    return success if callable(success) else float(success)


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the rate successes / total."""
    z = statistics.NormalDist().inv_cdf(0.975)
    rate = successes / total
    middle = rate + z * z / (2 * total)
    reach = z * math.sqrt(rate * (1 - rate) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    low, high = (middle - reach) / scale, (middle + reach) / scale
    return (low if successes else 0.0), (high if successes < total else 1.0)


def threshold(success: Success, task: Task, test: Range | None, row: Mapping[str, Any]) -> float:
    """The threshold of a run: ``test`` is its range outside, ``row`` its columns.

    Raises:
        TypeError, ValueError: it is not a positive number.
    """
    if isinstance(success, str):
        assert isinstance(task, Arithmetic) and test is not None
        return off_by(WEIGHTS[success], task, test)
    value = success(task, row) if callable(success) else success
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"success: expected it to return a number, got {type(value).__name__}")
    value = float(value)
    if not value > 0:
        raise ValueError(f"success: expected a threshold above 0, got {value}")
    return value


def off_by(epsilon: float, task: Arithmetic, test: Range) -> float:
    r"""The mean squared error, over 10,000 samples outside, of weights that are off by epsilon.

    With two inputs a solution errs as the authors of that task have it: by ε (|x₀| + |x₁|) for sums
    and differences, by the factor (1 - ε)² for products and squares, (1 - ε) / (1 + ε) for
    quotients, √(1 - ε) for roots. With more, weights of the first layer are ε where 0 is right and
    1 - ε where 1 is, and the second layer makes no error. There the published thresholds come from
    subsets that are one input longer than the data's, and have one more in common
    (``function_task_static_mse_expectation.r`` of the authors); so do these.

    Source: Madsen and Johansen 2020, "Neural Arithmetic Units", appendix; Mistry, Farrahi and Hare
    2022, "A Primer for Neural Arithmetic Logic Modules", ``generate_exp_thresholds.r``.
    """
    x = task.test_inputs(True, test, task.test_seed, SAMPLES, torch.float64)
    errors = _single(epsilon, task, x) if task.in_features == 2 else _sums(epsilon, task, x)
    return float(errors.square().mean())


def _single(epsilon: float, task: Arithmetic, x: Tensor) -> Tensor:
    if task.operation in ("a + b", "a - b"):
        return epsilon * x.abs().sum(1)
    factor = {
        "a * b": (1 - epsilon) ** 2,
        "a / b": (1 - epsilon) / (1 + epsilon),
        "a^2": (1 - epsilon) ** 2,
        "sqrt(a)": math.sqrt(1 - epsilon),
    }[task.operation]
    return (1 - factor) * task.targets(x, (0, 1))


def _sums(epsilon: float, task: Arithmetic, x: Tensor) -> Tensor:
    length, common, _ = task.lengths
    right = task.operands(x, (0, length - common), length + 1)
    total = x.sum(1, keepdim=True)
    near = [(1 - epsilon) * sum_ + epsilon * (total - sum_) for sum_ in right]
    operation = OPERATIONS[task.operation]
    return operation(near[0], near[1]) - operation(*right)
