"""What a recording must be to count: rules that refuse, or leave out and say how much."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import check_array, check_choice, check_integer, check_number, refusal
from pcsim.responses import check_responses, make_responses

__all__ = ["MISSING", "counted", "exclude_units", "exclusions", "responses_from_array"]

MISSING = ("refuse", "drop_trials", "drop_units")

MANY_SPIKES = 200
LONG_BIN = 1.0
"""Seconds. Among so many spikes some lie in one bin, if bins are longer than this."""


def exclude_units(
    responses: xr.Dataset, *, min_rate: float = 0.0, min_trials: int = 1
) -> xr.Dataset:
    """Leave out units that are silent or too slow, and conditions shown too few times.

    Parameters
    ----------
    responses
        A recording; rates in Hz.
    min_rate
        Hz, mean over trials and time; units below it go, as do silent ones (no spike at all).
    min_trials
        Conditions with fewer trials go.

    Returns
    -------
    kept
        The same labels; `exclusions` of it tells how many units and trials went, and why.

    Raises
    ------
    ValueError
        If nothing would be left.

    Examples
    --------
    >>> r = responses_from_array([[[4.0, 0.0]], [[2.0, 0.0]]], bin_width=0.1)
    >>> exclusions(exclude_units(r, min_rate=1.0))
    {'silent_units': 1}
    """
    where = "exclude_units"
    responses = check_responses(responses, where)
    least = check_number(where, "min_rate", min_rate, low=0.0)
    check_integer(where, "min_trials", min_trials, low=1)
    conditions, row = np.unique(responses["condition"].values, return_inverse=True)
    many = np.bincount(row)[row] >= min_trials
    if not many.any():
        found = f"no condition of {conditions.size} with {min_trials} trials"
        raise ValueError(refusal(where, found, "at least one", "Lower min_trials."))
    kept = responses.isel(trial=np.flatnonzero(many))
    mean = kept["rate"].mean(("trial", "time")).values
    silent = (kept["rate"] == 0).all(("trial", "time")).values
    slow = ~silent & (mean < least)
    if (silent | slow).all():
        found = f"{silent.size} units, none above {least:.6g} Hz (fastest {mean.max():.6g})"
        raise ValueError(refusal(where, found, "at least one", "Lower min_rate."))
    kept = kept.isel(unit=np.flatnonzero(~(silent | slow)))
    gone = {"silent_units": silent.sum(), "slow_units": slow.sum(), "rare_trials": (~many).sum()}
    return counted(kept, gone)


def exclusions(recording: xr.Dataset) -> dict[str, int]:
    """Return how many units, trials, bins or spikes each rule left out of a recording, by rule.

    ==================  =========================================================
    nan_bins            entries of an array that were NaN, and nan_trials or
                        nan_units, what was left out for them
    cut_trials          trials that `bin_spikes` cut to what all have
    spikes_outside      spikes in no bin, or of an NWB file in no trial
    unobserved_trials   trials of an NWB file during which a unit was not
                        observed, or unobserved_units, units so left out
    silent_units        units without a spike; slow_units, below `min_rate`
    rare_trials         trials of conditions with too few
    ==================  =========================================================

    Examples
    --------
    >>> exclusions(responses_from_array(np.ones((1, 1, 2)), bin_width=0.1))
    {}
    """
    counted: dict[str, int] = json.loads(recording.attrs.get("exclusions", "{}"))
    return counted


def counted(recording: xr.Dataset, gone: Mapping[str, Any]) -> xr.Dataset:
    """Return a recording, or spikes, whose `exclusions` hold these numbers besides those before."""
    total = exclusions(recording)
    for rule, number in gone.items():
        if number:
            total[rule] = total.get(rule, 0) + int(number)
    if not total:
        return recording
    return recording.assign_attrs(exclusions=json.dumps(total, sort_keys=True))


def responses_from_array(
    count: Any,
    *,
    bin_width: float,
    start: float = 0.0,
    units: Mapping[str, Any] | None = None,
    trial: Mapping[str, Any] | None = None,
    missing: str = "refuse",
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Label an array of spike counts as responses; NaN marks bins that were not recorded.

    Parameters
    ----------
    count : (trial, time, unit)
        Spikes in each bin; not negative.
    bin_width, start
        Seconds; the first bin begins at `start`.
    units, trial
        Labels, as in `pcsim.neural.make_spikes`.
    missing
        What to do with NaN: "refuse", or leave out each trial ("drop_trials") or each unit
        ("drop_units") that has one; `exclusions` of the result counts them.
    attrs
        Provenance.

    Raises
    ------
    ValueError
        If counts are negative, infinite, or missing and that is refused, or all are; if no two
        of many spikes lie in one bin of more than a second: such a width is in milliseconds.

    Examples
    --------
    >>> count = np.array([[[1.0], [np.nan]], [[2.0], [0.0]]])
    >>> kept = responses_from_array(count, bin_width=0.5, missing="drop_trials")
    >>> kept.rate.values.ravel(), exclusions(kept)
    (array([4., 0.]), {'nan_bins': 1, 'nan_trials': 1})
    """
    where = "responses_from_array"
    shape = ("trial", "time", "unit")
    array = check_array(where, "count", count, shape=shape, finite=False)
    width = check_number(where, "bin_width", bin_width, positive=True)
    begin = check_number(where, "start", start)
    check_choice(where, "missing", missing, MISSING)
    nan = np.isnan(array)
    if np.isinf(array).any() or (array[~nan] < 0).any():
        low = float(array[~nan].min())
        found = f"counts from {low:.6g} to {array[~nan].max():.6g}"
        raise ValueError(refusal(where, found, "finite counts, not negative", "Mend them."))
    _check_width(where, array[~nan], width)
    kept, gone = _without_missing(nan, missing)
    on_trial = {"condition": "recording", **(trial or {})}
    on_unit = {"population": "output", "level": 0, "area": "", **(units or {})}
    responses = make_responses(
        np.where(nan, 0.0, array) / width,
        time=begin + width * np.arange(1, array.shape[1] + 1),
        units=on_unit,
        trial={
            n: np.repeat(v, array.shape[0]) if np.ndim(v) == 0 else v for n, v in on_trial.items()
        },
        attrs=attrs,
    ).assign_coords(bin_width=width)
    responses["rate"].attrs["units"] = "Hz"
    responses["spike_count"] = (shape, np.where(nan, 0.0, array).astype(np.float64))
    return counted(check_responses(responses.isel(kept), where), gone)


def _check_width(where: str, count: Any, width: float) -> None:
    """Refuse bins that hold at most one spike each and yet are said to be longer than a second."""
    total = float(count.sum())
    if width > LONG_BIN and total >= MANY_SPIKES and count.max() <= 1:
        found = f"no two of {total:.0f} spikes in one bin of {width:.6g} s"
        advice = "The width looks like milliseconds: give seconds."
        raise ValueError(refusal(where, found, "some, as neurons fire", advice))


def _without_missing(nan: Any, missing: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the trials or units to keep, and what goes."""
    n_bad = int(nan.sum())
    if n_bad == 0:
        return {}, {}
    dim, axes = ("unit", (0, 1)) if missing == "drop_units" else ("trial", (1, 2))
    bad = nan.any(axis=axes)
    found = f"{n_bad} of {nan.size} bins NaN, in {int(bad.sum())} of {bad.size} {dim}s"
    if missing == "refuse":
        advice = "Pass missing='drop_trials' or 'drop_units' to leave those out."
        raise ValueError(refusal("responses_from_array", found, "counts", advice))
    if bad.all():
        other = "drop_trials" if dim == "unit" else "drop_units"
        advice = f"Try missing='{other}', or select what was recorded."
        raise ValueError(refusal("responses_from_array", found, f"some whole {dim}s", advice))
    return {dim: np.flatnonzero(~bad)}, {"nan_bins": n_bad, f"nan_{dim}s": int(bad.sum())}
