"""Student's interval of a mean over few seeds, of paired differences, and of a crossed table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pcsim.messages import check_array, check_number

__all__ = ["Mean", "mean_interval", "standard_errors"]

Floats = NDArray[np.float64]


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


def standard_errors(margins: Sequence[Floats]) -> list[tuple[Any, Any]]:
    r"""Return standard errors and degrees of freedom of a mean, by each margin and by all together.

    A table of replicas and units has two margins: the means of its rows and those of its columns.
    Each gives a standard error :math:`e = s/\sqrt m` with m - 1 degrees of freedom, which lacks
    what the other one adds. All together: :math:`\sqrt{\sum e^2}`, with the degrees of freedom
    :math:`(\sum e^2)^2 / \sum (e^4 / (m-1))` of Satterthwaite. That has the scatter within the
    table once for every margin, so it is too large rather than too small.

    Parameters
    ----------
    margins : each (..., m)
        Those of one value say nothing of their scatter and are passed over.

    References
    ----------
    Satterthwaite (1946), https://doi.org/10.2307/3002019

    Examples
    --------
    >>> rows, columns = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.5])
    >>> [(round(float(e), 3), round(float(df), 2)) for e, df in standard_errors([rows, columns])]
    [(0.577, 2.0), (0.5, 1.0), (0.764, 2.88)]
    """
    found = [
        (one.std(axis=-1, ddof=1) / one.shape[-1] ** 0.5, np.float64(one.shape[-1] - 1))
        for one in margins
        if one.shape[-1] > 1
    ]
    if len(found) < 2:
        return found
    total = np.sum([error**2 for error, _ in found], axis=0)
    squares = np.sum([error**4 / freedom for error, freedom in found], axis=0)
    # Without any scatter there is no doubt, whatever the degrees of freedom.
    together = np.divide(total**2, squares, out=np.ones_like(total), where=squares > 0)
    return [*found, (np.sqrt(total), together)]
