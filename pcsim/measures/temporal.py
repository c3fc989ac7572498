r"""When units respond, and how much of the response is transient.

Responses are first averaged over the trials of each condition, then a baseline is taken off.
Recorded times are the ends of bins, seconds from stimulus onset.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.rates import condition_mean, quotient, rectified, windowed
from pcsim.messages import check_number, refusal

__all__ = ["latency", "transience_index"]

Floats = NDArray[np.float64]


def _evoked(
    responses: xr.Dataset, baseline: slice | None, rectify: str, where: str
) -> xr.DataArray:
    """Return the mean response of each condition less its baseline, rectified."""
    rate = condition_mean(windowed(responses, None, where))
    if baseline is not None:
        before = condition_mean(windowed(responses, baseline, where))
        rate = rate - before.mean("time")
    return rectified(rate, rectify)


def latency(
    responses: xr.Dataset,
    *,
    rectify: str,
    onset: float = 0.0,
    end: float | None = None,
    baseline: slice | None = None,
    fraction: float = 0.5,
) -> xr.DataArray:
    """Return the time from `onset` at which the response first reaches half of its peak.

    Between samples the response is a straight line; at `onset` it is at baseline.

    Parameters
    ----------
    responses
    rectify
        "none" follows the positive peak of signed rates, "half" too; "abs" the larger of both.
    onset, end
        Seconds from stimulus onset; the peak is the largest value after `onset` up to `end`.
    baseline
        Window whose mean is taken off; None: the rate at rest is 0.
    fraction
        Of the peak, between 0 and 1.

    Returns
    -------
    latency : (condition, unit)
        Seconds; NaN where no response rises above baseline.

    Raises
    ------
    ValueError
        If no time lies between `onset` and `end`.

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> r = make_responses([[[0.0], [1.0], [4.0], [3.0]]], time=[0.1, 0.2, 0.3, 0.4],
    ...                    units={"population": "error", "level": 0}, trial={"condition": ["on"]})
    >>> round(latency(r, rectify="none").item(), 4)
    0.2333
    """
    where = "latency"
    onset = check_number(where, "onset", onset)
    fraction = check_number(where, "fraction", fraction, low=1e-6, high=1.0)
    evoked = _evoked(responses, baseline, rectify, where)
    last = np.inf if end is None else check_number(where, "end", end) + 1e-9
    time = evoked["time"].values
    inside = np.flatnonzero((time > onset + 1e-9) & (time <= last))
    if inside.size == 0:
        found = f"no time after {onset:.6g} s up to {last:.6g} s"
        expected = f"some of {time[0]:.6g} to {time[-1]:.6g} s"
        raise ValueError(refusal(where, found, expected, "Widen the window."))
    evoked = evoked.isel(time=inside)
    at = np.concatenate([[0.0], time[inside] - onset])
    result: xr.DataArray = xr.apply_ufunc(
        lambda rate: _crossing(rate, at, fraction), evoked, input_core_dims=[["time"]]
    )
    return result.rename(where)


def _crossing(rate: Floats, at: Floats, fraction: float) -> Floats:
    """First time at which each row reaches the fraction of its peak, starting from 0 at at[0]."""
    rate = np.concatenate([np.zeros((*rate.shape[:-1], 1)), rate], axis=-1)
    peak = rate.max(axis=-1, keepdims=True)
    level = fraction * peak
    after = np.argmax(rate >= np.where(peak > 0, level, -np.inf), axis=-1)[..., None]
    after = np.maximum(after, 1)
    high, low = (np.take_along_axis(rate, k, axis=-1) for k in (after, after - 1))
    step = np.where(high > low, high - low, 1.0)
    time = at[after - 1] + (level - low) / step * (at[after] - at[after - 1])
    return np.where(peak > 0, time, np.nan)[..., 0]


def transience_index(
    responses: xr.Dataset,
    *,
    rectify: str,
    peak: slice = slice(0.03, 0.12),
    sustained: slice = slice(0.15, 0.24),
    baseline: slice | None = None,
) -> xr.DataArray:
    r"""Return how transient the response is.

    .. math:: TI = \frac{peak - sustained}{peak + |sustained|}

    with the largest value of one window and the mean of another. 0: no decay; 1: back at baseline
    or below it.

    Parameters
    ----------
    responses
    rectify
        "none", "half" or "abs", after the baseline is taken off.
    peak, sustained
        Windows, seconds from stimulus onset. The defaults are those used for macaque V1.
    baseline
        Window whose mean is taken off; None: the rate at rest is 0.

    Returns
    -------
    index : (condition, unit)
        NaN where the peak is not above zero.

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> r = make_responses([[[3.0], [1.0]]], time=[0.1, 0.2],
    ...                    units={"population": "error", "level": 0}, trial={"condition": ["on"]})
    >>> transience_index(r, rectify="none").item()
    0.5
    """
    where = "transience_index"
    evoked = _evoked(responses, baseline, rectify, where)
    high = _between(evoked, peak, "peak", where).max("time")
    late = _between(evoked, sustained, "sustained", where).mean("time")
    high = high.where(high > 0, 0.0)
    index = quotient(high - late, high + abs(late))
    return index.where(high > 0).rename(where)


def _between(evoked: xr.DataArray, window: slice, name: str, where: str) -> xr.DataArray:
    time = evoked["time"].values
    start = -np.inf if window.start is None else window.start - 1e-9
    stop = np.inf if window.stop is None else window.stop + 1e-9
    inside = np.flatnonzero((time >= start) & (time <= stop))
    if inside.size == 0:
        found = f"window {name} from {window.start} to {window.stop} s"
        expected = f"a part of {time[0]:.6g} to {time[-1]:.6g} s"
        raise ValueError(refusal(where, found, expected, "Move the window."))
    return evoked.isel(time=inside)
