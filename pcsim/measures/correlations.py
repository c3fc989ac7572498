r"""Signal and noise correlation: what two units share across conditions, and within one.

.. math:: r_{sc} = \mathrm{corr}(z_i, z_j), \qquad z = \frac{r - \bar r_c}{s_c}

where :math:`\bar r_c` and :math:`s_c` are the mean and the standard deviation of a unit in the
condition of the trial. Conditions with a single trial, or in which a unit never varies, say nothing
about noise and are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.centred import is_still
from pcsim.measures.rates import condition_mean, mean_rate, trial_labels
from pcsim.messages import check_array, refusal

__all__ = [
    "noise_correlation",
    "noise_correlation_matrix",
    "noise_signal_correlation",
    "signal_correlation",
    "signal_correlation_matrix",
]

Floats = NDArray[np.float64]


def noise_correlation(
    responses: xr.Dataset, *, window: slice | None = None, rectify: str = "none"
) -> xr.DataArray:
    """Return the correlation of trial-to-trial fluctuations of every two units.

    Parameters
    ----------
    responses
        Several trials a condition, not necessarily as many of each.
    window, rectify
        As in `mean_rate`.

    Returns
    -------
    correlation : (unit, unit_b)
        A pair counts the trials of conditions in which both units varied; NaN if there is none. The
        diagonal is 1.

    Raises
    ------
    ValueError
        If no condition was repeated.

    References
    ----------
    Cohen & Kohn (2011), https://doi.org/10.1038/nn.2842

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> rate = np.array([[1.0, 5.0], [3.0, 9.0], [20.0, 8.0], [22.0, 9.0]])[:, None, :]
    >>> r = make_responses(rate, time=[0.1], units={"population": "latent", "level": 1},
    ...                    trial={"condition": ["a", "a", "b", "b"]})
    >>> noise_correlation(r).values.round(12)
    array([[1., 1.],
           [1., 1.]])
    """
    where = "noise_correlation"
    rate = mean_rate(responses, window=window, rectify=rectify).transpose("trial", "unit")
    matrix = noise_correlation_matrix(rate.values, trial_labels(rate, "condition", where))
    return _labelled(matrix, rate, where)


def noise_correlation_matrix(rate: Any, condition: Any) -> Floats:
    """Return noise correlations of arrays, which may lack units in some trials.

    Parameters
    ----------
    rate : (n_trials, n_units)
        NaN where a unit was not recorded.
    condition : (n_trials,)
        Equal entries are repeats.

    Returns
    -------
    correlation : (n_units, n_units)
        As in `noise_correlation`; a pair counts the trials that have both units.

    Examples
    --------
    >>> rate = [[1.0, 5.0], [3.0, 9.0], [2.0, np.nan]]
    >>> noise_correlation_matrix(rate, [0, 0, 0])[0, 1].round(12).item()
    1.0
    """
    where = "noise_correlation_matrix"
    rate, group, count = _trials(where, rate, condition)
    if count.max(initial=0) < 2:
        found, advice = f"{count.size} conditions with one trial each", "Repeat the stimuli."
        raise ValueError(refusal(where, found, "at least 2 trials of a condition", advice))
    z, varies = _standardized(rate, group, count.size)
    return _pairwise(z, varies)


def _trials(where: str, rate: Any, condition: Any) -> tuple[Floats, Any, Any]:
    """Return rates, the number of the condition of each trial, and how many trials each has."""
    rate = check_array(where, "rate", rate, shape=("n_trials", "n_units"), finite=False)
    labels = np.asarray(condition)
    if labels.shape != rate.shape[:1]:
        found = f"condition of shape {labels.shape}"
        raise ValueError(refusal(where, found, f"one for each of {len(rate)} trials"))
    if np.isinf(rate).any():
        raise ValueError(refusal(where, "infinite rates", "finite ones, or NaN where none was"))
    _, group, count = np.unique(labels, return_inverse=True, return_counts=True)
    return rate.astype(np.float64), group, count


def _totals(values: Floats, group: NDArray[np.int64], n_groups: int) -> Floats:
    sums = np.zeros((n_groups, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def _standardized(rate: Floats, group: NDArray[np.int64], n_groups: int) -> tuple[Floats, Floats]:
    """Return deviations in standard deviations, and 1.0 where the unit varies in the condition."""
    there = np.isfinite(rate)
    known = np.where(there, rate, 0.0)

    def total(values: Floats) -> Floats:
        return _totals(values, group, n_groups)

    count = total(there.astype(np.float64))
    deviation = np.where(there, known - (total(known) / np.maximum(count, 1.0))[group], 0.0)
    sigma = np.sqrt(total(deviation**2) / np.maximum(count - 1.0, 1.0))
    # What rounding leaves of a constant is no variation.
    varies = sigma > 1e-13 * np.sqrt(total(known**2))
    z = deviation / np.where(varies, sigma, 1.0)[group]
    counted = varies[group] & there
    return np.where(counted, z, 0.0), counted.astype(np.float64)


def _pairwise(z: Floats, present: Floats) -> Floats:
    """Return the correlation over the trials of conditions in which both of two units vary."""
    square = (z**2).T @ present
    size = np.sqrt(square * square.T)
    return np.where(size > 0.0, (z.T @ z) / np.where(size > 0.0, size, 1.0), np.nan)


def signal_correlation(
    responses: xr.Dataset, *, window: slice | None = None, rectify: str = "none"
) -> xr.DataArray:
    """Return the correlation of the mean responses of every two units over conditions.

    With few trials, noise correlation leaks into it.

    Parameters
    ----------
    responses
        At least 3 conditions.
    window, rectify
        As in `mean_rate`.

    Returns
    -------
    correlation : (unit, unit_b)
        NaN for a unit that responds equally to all conditions.

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> rate = np.array([[1.0, 5.0], [3.0, 1.0], [5.0, -3.0]])[:, None, :]
    >>> r = make_responses(rate, time=[0.1], units={"population": "latent", "level": 1},
    ...                    trial={"condition": ["a", "b", "c"]})
    >>> signal_correlation(r).values[0, 1].round(12).item()
    -1.0
    """
    where = "signal_correlation"
    rate = condition_mean(mean_rate(responses, window=window, rectify=rectify))
    values = rate.transpose("condition", "unit").values
    if len(values) < 3:
        raise ValueError(refusal(where, f"{len(values)} conditions", "at least 3"))
    deviation = values - values.mean(axis=0)
    size = np.linalg.norm(deviation, axis=0)
    varies = size > 1e-13 * np.abs(values).max(axis=0)
    unit = np.where(varies, deviation / np.where(varies, size, 1.0), np.nan)
    return _labelled(unit.T @ unit, rate, where)


def signal_correlation_matrix(rate: Any, condition: Any) -> Floats:
    """Return signal correlations of arrays, which may lack units in some trials or conditions.

    Parameters
    ----------
    rate : (n_trials, n_units)
        NaN where a unit was not recorded.
    condition : (n_trials,)
        Equal entries are repeats.

    Returns
    -------
    correlation : (n_units, n_units)
        A pair counts the conditions in which both units were recorded; NaN if these are fewer than
        3 or one of them never varies.

    Examples
    --------
    >>> rate = [[1.0, 5.0], [3.0, 4.0], [np.nan, 9.0], [2.0, 4.5]]
    >>> signal_correlation_matrix(rate, ["a", "b", "c", "d"])[0, 1].round(12).item()
    -1.0
    """
    where = "signal_correlation_matrix"
    rate, group, count = _trials(where, rate, condition)
    if count.size < 3:
        raise ValueError(refusal(where, f"{count.size} conditions", "at least 3"))
    there = np.isfinite(rate)
    n = _totals(there.astype(np.float64), group, count.size)
    known = n > 0
    mean = _totals(np.where(there, rate, 0.0), group, count.size) / np.where(known, n, 1.0)
    both = known.astype(np.float64)
    # A constant taken off first leaves no digits to lose; the means of a pair differ by pair.
    mean = np.where(known, mean - mean.sum(axis=0) / np.maximum(both.sum(axis=0), 1.0), 0.0)
    shared = both.T @ both
    usable = shared >= 3
    per = np.where(usable, shared, 1.0)
    first, square = mean.T @ both / per, (mean**2).T @ both / per
    variance = square - first**2
    floor = 1e-20 * np.nanmax(np.where(there, rate, 0.0) ** 2, initial=0.0)
    size = variance * variance.T
    varies = usable & (np.minimum(variance, variance.T) > floor)
    covariance = mean.T @ mean / per - first * first.T
    found = covariance / np.sqrt(np.where(varies, size, 1.0))
    return np.where(varies, np.clip(found, -1.0, 1.0), np.nan)


def noise_signal_correlation(noise: Any, signal: Any) -> float:
    """Return the correlation of noise and signal correlations over all pairs of units.

    Parameters
    ----------
    noise, signal : (n_units, n_units)
        Of `noise_correlation` and `signal_correlation`, of the same units in the same order. Pairs
        in which one of the two is NaN are left out.

    Returns
    -------
    correlation
        NaN if all pairs have one and the same value.

    Raises
    ------
    ValueError
        If fewer than 3 pairs are left.

    References
    ----------
    Cohen & Kohn (2011), https://doi.org/10.1038/nn.2842

    Examples
    --------
    >>> noise = np.array([[1.0, 0.1, 0.3], [0.1, 1.0, 0.2], [0.3, 0.2, 1.0]])
    >>> round(noise_signal_correlation(noise, 2 * noise - 1), 12)
    1.0
    """
    where = "noise_signal_correlation"
    both = [
        check_array(where, name, value, shape=("n_units", "n_units"), finite=False)
        for name, value in (("noise", noise), ("signal", signal))
    ]
    if both[0].shape != both[1].shape:
        found = f"{both[0].shape} and {both[1].shape}"
        raise ValueError(refusal(where, found, "the same units in both"))
    pairs = np.triu_indices(len(both[0]), 1)
    one, other = (matrix[pairs] for matrix in both)
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 3:
        raise ValueError(refusal(where, f"{known.sum()} pairs", "at least 3"))
    one, other = one[known], other[known]
    if any(is_still(each).item() for each in (one, other)):
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _labelled(matrix: Floats, rate: xr.DataArray, name: str) -> xr.DataArray:
    units = rate["unit"].values
    coords = {n: c for n, c in rate.coords.items() if c.dims == ("unit",)}
    return xr.DataArray(
        np.clip(matrix, -1.0, 1.0),
        dims=("unit", "unit_b"),
        coords={**coords, "unit_b": units},
        name=name,
    )
