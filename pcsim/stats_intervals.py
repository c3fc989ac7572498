"""Intervals and p values from bootstrap draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from pcsim.messages import check_array, check_choice, check_number, refusal

__all__ = ["bootstrap_p", "interval"]

Floats = NDArray[np.float64]


def interval(
    draws: Any,
    estimate: float,
    *,
    level: float = 0.95,
    method: str = "percentile",
    jackknife: Any = None,
) -> tuple[float, float]:
    r"""Return a two-sided confidence interval from bootstrap draws.

    "percentile" takes the quantiles of the draws. "bca" shifts and stretches them by the median
    bias :math:`z_0` and the acceleration :math:`a` (a sixth of the skewness of the jackknife):

    .. math:: \alpha_i = \Phi\left(z_0 + \frac{z_0 + z_i}{1 - a(z_0 + z_i)}\right)

    Parameters
    ----------
    draws : (draws,)
    estimate
        The statistic of the data themselves.
    level
        Coverage, between 0 and 1.
    method
        "percentile" or "bca".
    jackknife : (n_replicas,), for "bca"
        The estimate with each replica left out: `Bootstrap.jackknife`.

    Returns
    -------
    low, high

    Raises
    ------
    ValueError
        If BCa lacks the jackknife or the estimate lies outside all draws.

    References
    ----------
    Efron (1987), https://doi.org/10.1080/01621459.1987.10478410

    Examples
    --------
    >>> draws = np.linspace(0.0, 1.0, 1001)
    >>> tuple(round(end, 3) for end in interval(draws, 0.5))
    (0.025, 0.975)
    """
    where = "interval"
    values = check_array(where, "draws", draws, shape=("draws",)).astype(np.float64)
    if values.size == 0:
        raise ValueError(refusal(where, "no draws", "at least one"))
    estimate = check_number(where, "estimate", estimate)
    level = check_number(where, "level", level, low=1e-6, high=1.0 - 1e-6)
    check_choice(where, "method", method, ("percentile", "bca"))
    tails = np.array([0.5 * (1.0 - level), 0.5 * (1.0 + level)])
    if method == "bca":
        tails = _bca_tails(where, values, estimate, tails, jackknife)
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def _bca_tails(where: str, draws: Floats, estimate: float, tails: Floats, jackknife: Any) -> Floats:
    if jackknife is None:
        advice = "Pass jackknife=bootstrap.jackknife, or method='percentile'."
        raise ValueError(refusal(where, "no jackknife", "one for 'bca'", advice))
    left_out = check_array(where, "jackknife", jackknife, shape=("n",)).astype(np.float64)
    if left_out.size < 2:
        found, expected = f"{left_out.size} jackknife values", "at least 2"
        raise ValueError(refusal(where, found, expected, "Use method='percentile'."))
    # Sums in another order differ in the last digits: such draws are ties, and count half.
    tie = np.abs(draws - estimate) <= 1e-12 * max(1.0, abs(estimate))
    below = float(np.mean(np.where(tie, 0.5, draws < estimate)))
    if not 0.0 < below < 1.0:
        found = f"the estimate {estimate:.6g} outside all draws"
        raise ValueError(refusal(where, found, "it among them", "Use method='percentile'."))
    deviation = left_out.mean() - left_out
    scale = float(np.abs(deviation).max())
    acceleration = 0.0
    if scale > 1e-12 * max(1.0, abs(estimate)):
        unit = deviation / scale
        acceleration = float((unit**3).sum() / (6.0 * (unit**2).sum() ** 1.5))
    z = ndtri(below) + ndtri(tails)
    shifted: Floats = ndtr(ndtri(below) + z / (1.0 - acceleration * z))
    return shifted


def bootstrap_p(draws: Any, null: float = 0.0) -> float:
    r"""Return the two-sided p value of `null` from bootstrap draws.

    .. math:: p = \min\left(1, 2\,\frac{1 + \min(\#\{d \le h_0\}, \#\{d \ge h_0\})}{B + 1}\right)

    The added 1 keeps p above zero: B draws cannot show less than 2 / (B + 1).

    Examples
    --------
    >>> bootstrap_p(np.arange(1.0, 100.0))
    0.02
    """
    values = check_array("bootstrap_p", "draws", draws, shape=("draws",))
    null = check_number("bootstrap_p", "null", null)
    if values.size == 0:
        raise ValueError(refusal("bootstrap_p", "no draws", "at least one"))
    fewer = min(int((values <= null).sum()), int((values >= null).sum()))
    return min(1.0, 2.0 * (1 + fewer) / (values.size + 1))
