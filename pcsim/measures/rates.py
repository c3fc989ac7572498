"""What every measure starts from: rates in a window, rectified, averaged over trials by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import check_choice, refusal
from pcsim.responses import check_responses

__all__ = [
    "RECTIFY",
    "condition_mean",
    "mean_rate",
    "quotient",
    "rectified",
    "trial_groups",
    "trial_labels",
    "windowed",
]

RECTIFY = ("none", "half", "abs")
"""What to do with negative rates: keep them, cut them at zero, or take the size."""

# Times are sums of steps in floating point; ends of a window include them within this, seconds.
TIME_TOLERANCE = 1e-9


def rectified(values: xr.DataArray, how: str) -> xr.DataArray:
    """Return rates without their negative part, their size, or as they are.

    Error units carry signed rates, neurons do not. Which of the two stands for a recorded cell is
    a choice of the analysis, so it is always said.

    Parameters
    ----------
    values
    how
        "none" keeps the sign; "half" cuts at zero, an on-cell; "abs" takes the size, an on- and an
        off-cell together.

    Examples
    --------
    >>> rectified(xr.DataArray([-2.0, 3.0]), "half").values
    array([0., 3.])
    """
    check_choice("rectified", "rectify", how, RECTIFY)
    if how == "half":
        return values.clip(min=0.0)
    return abs(values) if how == "abs" else values


def windowed(responses: xr.Dataset, window: slice | None, where: str) -> xr.DataArray:
    """Return `rate` between two times (seconds, both ends included), after checking the schema.

    Raises
    ------
    ValueError
        If no time lies in the window.
    """
    rate = check_responses(responses, where)["rate"].astype(np.float64)
    if window is None:
        return rate
    if not isinstance(window, slice) or window.step is not None:
        expected = "a slice of seconds without a step"
        raise TypeError(refusal(where, f"window {window!r}", expected, "Use slice(0.0, 0.2)."))
    time = rate["time"].values
    start = -np.inf if window.start is None else window.start - TIME_TOLERANCE
    stop = np.inf if window.stop is None else window.stop + TIME_TOLERANCE
    inside = (time >= start) & (time <= stop)
    if not inside.any():
        found = f"a window from {window.start} to {window.stop} s"
        expected = f"a part of {time[0]:.6g} to {time[-1]:.6g} s"
        raise ValueError(refusal(where, found, expected, "Widen the window."))
    return rate.isel(time=np.flatnonzero(inside))


def mean_rate(
    responses: xr.Dataset, *, window: slice | None = None, rectify: str = "none"
) -> xr.DataArray:
    """Return the mean rate of each unit in each trial.

    Rates are rectified at each instant, before the mean: a response that swings around zero has
    mean zero, but its halves do not.

    Parameters
    ----------
    responses
    window
        Seconds, both ends included; None for all times.
    rectify
        "none", "half" or "abs": see `rectified`.

    Returns
    -------
    rate : (trial, unit)

    Examples
    --------
    >>> from pcsim.responses import make_responses
    >>> r = make_responses([[[-1.0], [3.0], [5.0]]], time=[0.1, 0.2, 0.3],
    ...                    units={"population": "error", "level": 0}, trial={"condition": ["a"]})
    >>> mean_rate(r, window=slice(0.0, 0.2), rectify="half").item()
    1.5
    """
    return rectified(windowed(responses, window, "mean_rate"), rectify).mean("time")


def condition_mean(rate: xr.DataArray) -> xr.DataArray:
    """Average over the trials of each condition: dimension `trial` becomes `condition`, sorted."""
    return trial_groups(rate, ("condition",), "condition_mean")


def trial_labels(rate: xr.DataArray, parameter: str, where: str) -> np.ndarray[Any, Any]:
    """Return the values of a trial parameter, or say which ones there are."""
    known = sorted(str(n) for n, c in rate.coords.items() if c.dims == ("trial",) and n != "trial")
    values: np.ndarray[Any, Any]
    values = rate.coords[check_choice(where, "parameter", parameter, known)].values
    return values


def trial_groups(rate: xr.DataArray, parameters: Sequence[str], where: str) -> xr.DataArray:
    """Average over trials with equal parameters: `trial` becomes one dimension a parameter.

    Raises
    ------
    ValueError
        If some combination of values was never shown.
    """
    levels, codes = [], []
    for name in parameters:
        unique, inverse = np.unique(trial_labels(rate, name, where), return_inverse=True)
        levels.append(unique)
        codes.append(inverse)
    shape = tuple(level.size for level in levels)
    group = np.ravel_multi_index(tuple(codes), shape)
    count = np.bincount(group, minlength=int(np.prod(shape)))
    if (count == 0).any():
        missing = np.unravel_index(int(np.argmin(count)), shape)
        text = ", ".join(
            f"{n} {lv[i]}" for n, lv, i in zip(parameters, levels, missing, strict=True)
        )
        found, expected = f"no trial with {text}", "every combination of values"
        raise ValueError(refusal(where, found, expected, "Select one condition first."))
    # Summing in the order of the trial labels makes the mean independent of the order given.
    rate = rate.transpose("trial", ...)
    order = np.lexsort((rate["trial"].values, group))
    starts = np.concatenate([[0], np.cumsum(count)[:-1]])
    sums = np.add.reduceat(rate.values[order], starts, axis=0)
    means = sums / count.reshape((-1,) + (1,) * (sums.ndim - 1))
    dims = (*parameters, *rate.dims[1:])
    coords = {n: c for n, c in rate.coords.items() if "trial" not in c.dims}
    return xr.DataArray(
        means.reshape(shape + sums.shape[1:]),
        dims=dims,
        coords={**coords, **dict(zip(parameters, levels, strict=True))},
        name=rate.name,
    )


def quotient(upper: xr.DataArray, lower: xr.DataArray) -> xr.DataArray:
    """Return upper / lower where the denominator is above zero, else NaN.

    Examples
    --------
    >>> quotient(xr.DataArray([1.0, 1.0]), xr.DataArray([4.0, 0.0])).values
    array([0.25,  nan])
    """
    positive = lower > 0
    return (upper / lower.where(positive, 1.0)).where(positive)
