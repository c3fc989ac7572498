"""From spikes to counts: bins, trials cut out of a long recording, and the PSTH."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import check_array, check_choice, check_number, refusal
from pcsim.neural_quality import counted
from pcsim.neural_spikes import check_spikes, make_spikes, renamed, spike_times
from pcsim.responses import check_responses, make_responses

__all__ = ["align_spikes", "bin_spikes", "on_labels", "psth"]

UNEQUAL = ("refuse", "shortest")

# A spike this close below an edge, in bins, is on it: edges are sums in floating point.
EDGE_TOLERANCE = 1e-6


def bin_spikes(spikes: xr.Dataset, bin_width: float, *, unequal: str = "refuse") -> xr.Dataset:
    """Count spikes in bins.

    A bin holds the spikes in [edge, next edge): a spike on an edge belongs to the bin that begins
    there, and one at the very end of the trial to none; `attrs["spikes_outside"]` counts those, and
    `pcsim.neural.exclusions` all that was left out, here and before.
    `time` is the end of each bin, as in the responses of a model.

    Parameters
    ----------
    spikes
    bin_width
        Seconds; it must divide the length of the trials.
    unequal
        If trials were observed for different times: "refuse", or keep what all have ("shortest");
        `attrs["seconds_cut"]` says how much was left out.

    Returns
    -------
    responses
        `rate` in Hz, `spike_count`; the scalar coordinate `bin_width` in seconds.

    Raises
    ------
    ValueError
        If the bins do not fill the trial, or trials are unequal and not to be cut.

    Examples
    --------
    >>> r = bin_spikes(make_spikes([[[0.0, 0.1, 0.15]]], stop=0.2), 0.1)
    >>> r.spike_count.values.ravel(), r.rate.values.ravel(), r.time.values
    (array([1., 2.]), array([10., 20.]), array([0.1, 0.2]))
    """
    where = "bin_spikes"
    spikes = check_spikes(spikes, where)
    width = check_number(where, "bin_width", bin_width, positive=True)
    start, stop, cut, n_cut = _shared_window(spikes, unequal)
    n_bins = round((stop - start) / width)
    if n_bins < 1 or abs((stop - start) / width - n_bins) > EDGE_TOLERANCE * n_bins:
        found = f"bins of {width:.6g} s for trials of {stop - start:.6g} s"
        advice = f"Take {(stop - start) / max(n_bins, 1):.6g} s, or align to another window."
        raise ValueError(refusal(where, found, "a whole number of bins", advice))
    trains = spike_times(spikes)
    count = np.zeros((len(trains), n_bins, len(trains[0])))
    for row, of_units in enumerate(trains):
        for column, times in enumerate(of_units):
            at = np.floor((times - start) / width + EDGE_TOLERANCE).astype(np.intp)
            at = at[(at >= 0) & (at < n_bins)]
            count[row, :, column] = np.bincount(at, minlength=n_bins)
    outside = int(spikes.sizes["spike"] - count.sum())
    attrs = {**spikes.attrs, "spikes_outside": outside}
    attrs |= {"seconds_cut": cut} if cut else {}
    time = start + width * np.arange(1, n_bins + 1)
    binned = on_labels(count, width, time, spikes, attrs)
    return counted(binned, {"spikes_outside": outside, "cut_trials": n_cut})


def _shared_window(spikes: xr.Dataset, unequal: str) -> tuple[float, float, float, int]:
    """Return the window that all trials share, and the seconds and trials that reach out of it."""
    check_choice("bin_spikes", "unequal", unequal, UNEQUAL)
    starts, stops = spikes["start"].values, spikes["stop"].values
    start, stop = float(starts.max()), float(stops.min())
    equal = np.ptp(starts) < 1e-9 and np.ptp(stops) < 1e-9
    if not equal and unequal == "refuse":
        lengths = stops - starts
        found = f"trials of {lengths.min():.6g} to {lengths.max():.6g} s"
        advice = "Pass unequal='shortest' to keep what all have, or drop trials."
        raise ValueError(refusal("bin_spikes", found, "trials of one length", advice))
    if stop <= start:
        found = "trials that share no time"
        raise ValueError(refusal("bin_spikes", found, "some", "Drop the trials that are short."))
    if equal:
        return start, stop, 0.0, 0
    longer = (stops - starts) - (stop - start)
    return start, stop, float(longer.sum()), int((longer > 1e-9).sum())


def on_labels(
    count: Any, width: float, time: Any, labels: xr.Dataset, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Return counts (trial, time, unit) in bins of `width` s as responses with these labels."""
    skipped = ("trial", "start", "stop")
    trial = {
        str(n): c.values
        for n, c in labels.coords.items()
        if c.dims == ("trial",) and n not in skipped
    }
    units = {
        str(n): c.values for n, c in labels.coords.items() if c.dims == ("unit",) and n != "unit"
    }
    responses = make_responses(count / width, time=time, units=units, trial=trial, attrs=attrs)
    responses["rate"].attrs["units"] = "Hz"
    responses["spike_count"] = (("trial", "time", "unit"), np.asarray(count, dtype=np.float64))
    named = {"trial": labels["trial"].values, "unit": labels["unit"].values}
    return check_responses(responses.assign_coords({"bin_width": width, **named}), "on_labels")


def align_spikes(
    spikes: xr.Dataset,
    onsets: Any,
    *,
    window: tuple[float, float],
    trial: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Cut trials out of one long recording: spikes relative to each onset.

    A spike may lie in several windows if these overlap. A window that reaches beyond what was
    recorded is refused: its missing spikes would count as silence.

    Parameters
    ----------
    spikes
        One trial.
    onsets : (trial,)
        Seconds in the recording.
    window
        First and last second of each trial, from its onset.
    trial
        Label -> (trial,) values of the new trials, as in `make_spikes`.

    Examples
    --------
    >>> long = make_spikes([[[0.9, 1.2, 3.3]]], stop=5.0)
    >>> cut = align_spikes(long, [1.0, 3.0], window=(-0.2, 0.5))
    >>> [times[0].round(3).tolist() for times in spike_times(cut)]
    [[-0.1, 0.2], [0.3]]
    """
    where = "align_spikes"
    spikes = check_spikes(spikes, where)
    if spikes.sizes["trial"] != 1:
        found = f"{spikes.sizes['trial']} trials"
        raise ValueError(refusal(where, found, "one long recording", "Select one trial first."))
    at = check_array(where, "onsets", onsets, shape=("trial",))
    first, last = (check_number(where, "window", end) for end in window)
    begin, end = float(spikes["start"][0]), float(spikes["stop"][0])
    lost = (at + first < begin - 1e-9) | (at + last > end + 1e-9)
    if lost.any() or last <= first:
        found = f"{int(lost.sum())} of {at.size} windows {first:.6g} to {last:.6g} s that reach out"
        expected = f"windows within {begin:.6g} to {end:.6g} s"
        advice = "Drop those onsets or shorten the window; are onsets in seconds?"
        raise ValueError(refusal(where, found, expected, advice))
    trains, rows = spike_times(spikes)[0], []
    for onset in at:
        ends = (onset + first, onset + last)
        rows.append([t[slice(*np.searchsorted(t, ends))] - onset for t in trains])
    units = {str(n): c.values for n, c in spikes.coords.items() if c.dims == ("unit",)}
    named = units.pop("unit")
    cut = make_spikes(
        rows, start=first, stop=last, units=units, trial=trial, attrs=dict(spikes.attrs)
    )
    return renamed(cut, unit=named)


def psth(responses: xr.Dataset) -> xr.Dataset:
    """Return the peri-stimulus time histogram: mean rate of each condition and its standard error.

    Returns
    -------
    psth : (condition, time, unit)
        `rate`, `standard_error` (NaN for a single trial), in the unit of the rate, and `n_trials`
        (condition); conditions in alphabetical order.

    Examples
    --------
    >>> r = bin_spikes(make_spikes([[[0.05]], [[0.01, 0.02]], [[]]], stop=0.1), 0.1)
    >>> psth(r).rate.values.ravel(), psth(r).n_trials.values
    (array([10.]), array([3]))
    """
    rate = check_responses(responses, "psth")["rate"]
    names, row = np.unique(rate["condition"].values, return_inverse=True)
    parts = [rate.isel(trial=np.flatnonzero(row == k)) for k in range(names.size)]
    along = xr.DataArray(names, dims="condition", name="condition")
    mean = xr.concat([part.mean("trial") for part in parts], dim=along)
    errors = [_standard_error(part) for part in parts]
    n_trials = np.bincount(row)
    return xr.Dataset(
        {
            "rate": mean.assign_attrs(rate.attrs),
            "standard_error": xr.concat(errors, dim=along).assign_attrs(rate.attrs),
            "n_trials": ("condition", n_trials),
        }
    )


def _standard_error(rate: xr.DataArray) -> xr.DataArray:
    n = rate.sizes["trial"]
    if n == 1:
        return xr.full_like(rate.isel(trial=0, drop=True), np.nan)
    error: xr.DataArray = rate.std("trial", ddof=1) / np.sqrt(n)
    return error
