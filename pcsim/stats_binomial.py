"""Exact interval of a rate, and how many replicas Student's test needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, nctdtr, stdtrit

from pcsim.messages import check_number, refusal

__all__ = ["clopper_pearson", "replicas_needed", "student_power"]

Floats = NDArray[np.float64]
MOST = 1000


def clopper_pearson(hits: Any, n: Any, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return the exact two-sided interval of a rate.

    Parameters
    ----------
    hits, n : (...)
        How often it happened in how many trials.
    level
        Coverage, at least.

    Raises
    ------
    ValueError
        If there are no trials, or more hits than trials.

    References
    ----------
    Clopper & Pearson (1934), https://doi.org/10.1093/biomet/26.4.404

    Examples
    --------
    >>> low, high = clopper_pearson(28, 32)
    >>> round(float(low), 3), round(float(high), 3)
    (0.71, 0.965)
    """
    k, n = np.broadcast_arrays(np.asarray(hits, dtype=float), np.asarray(n, dtype=float))
    level = check_number("clopper_pearson", "level", level, low=0.0, high=1.0)
    if (n < 1).any() or (k < 0).any() or (k > n).any():
        found = f"{k.max():g} hits in {n.min():g} trials"
        raise ValueError(refusal("clopper_pearson", found, "hits from 0 to n, n from 1"))
    tail = 0.5 * (1.0 - level)
    low = np.where(k > 0, betaincinv(np.maximum(k, 1.0), n - k + 1.0, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - tail), 1.0)
    return low, high


def student_power(size: float, n: int, *, alpha: float = 0.05) -> float:
    r"""Return how often the two-sided test over `n` replicas finds an effect on its own side.

    .. math:: P\left(T_{n-1}(\sqrt n\, d) > t_{n-1, 1 - \alpha/2}\right)

    with the noncentral t distribution.

    Parameters
    ----------
    size
        d: the effect over the standard deviation between replicas.
    n
        Replicas, at least 2.
    alpha
        Two-sided.

    Examples
    --------
    >>> round(student_power(0.0, 5), 3)
    0.025
    """
    bound = stdtrit(n - 1, 1.0 - alpha / 2.0)
    return float(1.0 - nctdtr(n - 1, n**0.5 * size, bound))


def replicas_needed(size: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return the smallest number of replicas, from 3 on, with this power; 1000 if more.

    Examples
    --------
    >>> replicas_needed(1.0), replicas_needed(5.0)
    (10, 3)
    """
    size = check_number("replicas_needed", "size", size, low=0.0)
    counts = range(3, MOST)
    return next((n for n in counts if student_power(size, n, alpha=alpha) >= power), MOST)
