"""Student's interval of a mean over few seeds, and of the mean of paired differences."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from pcsim.messages import check_array, check_number

__all__ = ["Mean", "mean_interval"]


class Mean(NamedTuple):
    """A mean and its two-sided interval."""

    estimate: float
    low: float
    high: float
    n: int


def mean_interval(values: Any, *, level: float = 0.95) -> Mean:
    r"""Return :math:`\bar x \pm t_{n-1}\, s/\sqrt n`; an infinite interval if there is one value.

    For a paired comparison give the differences.

    Parameters
    ----------
    values : (n,)
        One a seed.
    level
        Coverage, if the values are normal and independent.

    Examples
    --------
    >>> [round(float(one), 3) for one in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484, 3.0]
    """
    numbers = check_array("mean_interval", "values", values, shape=("n",)).astype(np.float64)
    check_number("mean_interval", "level", level, low=0.0, high=1.0)
    n, mean = numbers.size, float(numbers.mean())
    if n < 2:
        return Mean(mean, float("-inf"), float("inf"), n)
    error = float(numbers.std(ddof=1)) / n**0.5
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * error
    return Mean(mean, mean - half, mean + half, n)
