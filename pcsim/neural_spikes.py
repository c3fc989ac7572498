"""Spikes: times of spikes of units over trials, one flat labelled table.

An `xarray.Dataset` with `spike_time` (seconds from stimulus onset), `spike_trial` and `spike_unit`,
all along `spike`, sorted by trial, unit and time. On `trial` lie `condition`, every parameter of
the stimulus, and `start` and `stop`, between which the trial was observed; on `unit` the labels
that responses have. A trial without spikes, and a silent unit, keep their label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_array, check_choice, refusal
from pcsim.schema import check_labels, check_names, check_trials, label_array, need_coord

__all__ = ["TIME_UNITS", "check_spikes", "make_spikes", "renamed", "spike_times"]

Floats = NDArray[np.float64]

TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
"""Seconds in each unit of time that spike times may be given in."""
VARIABLES = ("spike", "spike_time", "spike_trial", "spike_unit")

# Neurons fire no two spikes closer than about 1 ms, and among this many intervals of a neuron in
# seconds the shortest is far below half a second: a shortest one above it betrays milliseconds.
MANY_INTERVALS = 200
LONG_INTERVAL = 0.5
SHORT_INTERVAL = 2e-4


def make_spikes(
    times: Sequence[Sequence[Any]],
    *,
    stop: Any,
    start: Any = 0.0,
    units: Mapping[str, Any] | None = None,
    trial: Mapping[str, Any] | None = None,
    time_unit: str = "s",
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Label spike times.

    Parameters
    ----------
    times : [trial][unit] -> (spike,)
        Times from the onset of the stimulus of their trial, in `time_unit`; they are sorted here.
    start, stop : number or (trial,)
        Seconds between which each trial was observed; spikes must lie in [start, stop].
    units
        Label -> (unit,) values or one value; `population` is "output", `level` 0, `area` "" unless
        given.
    trial
        Label -> (trial,) values or one value; `condition` is "recording" unless given.
    time_unit
        "s", "ms" or "us"; intervals between spikes that no neuron has are refused.
    attrs
        Provenance.

    Raises
    ------
    ValueError
        If times are NaN, outside of their trial, or in another unit than said, or a label is on
        trial and on unit.

    Examples
    --------
    >>> spikes = make_spikes([[[12.0, 40.0], []]], stop=0.1, time_unit="ms")
    >>> spikes.spike_time.values, spikes.sizes["unit"]
    (array([0.012, 0.04 ]), 2)
    """
    where = "make_spikes"
    scale = TIME_UNITS[check_choice(where, "time_unit", time_unit, TIME_UNITS)]
    trains = [[_train(where, train) * scale for train in row] for row in times]
    n_trials, n_units = len(trains), len(trains[0]) if trains else 0
    if n_units == 0 or any(len(row) != n_units for row in trains):
        found = f"{n_trials} trials of {sorted({len(row) for row in trains})} units"
        raise ValueError(refusal(where, found, "trials of equally many units", "Give [] for none."))
    _check_unit_of_time(where, trains, time_unit)
    flat = [train for row in trains for train in row]
    size = np.array([train.size for train in flat])
    pair = np.repeat(np.arange(len(flat)), size)
    on_trial = {"condition": "recording", **(trial or {})}
    on_unit = {"population": "output", "level": 0, "area": "", **(units or {})}
    check_names(where, on_trial, on_unit, (*VARIABLES, "start", "stop"))
    on_trial |= {"start": start, "stop": stop}
    coords: dict[str, Any] = {"trial": np.arange(n_trials), "unit": np.arange(n_units)}
    coords |= {n: ("trial", _labels(where, n, v, n_trials)) for n, v in on_trial.items()}
    coords |= {n: ("unit", _labels(where, n, v, n_units)) for n, v in on_unit.items()}
    data = {
        "spike_time": ("spike", np.concatenate(flat)),
        "spike_trial": ("spike", coords["trial"][pair // n_units]),
        "spike_unit": ("spike", coords["unit"][pair % n_units]),
    }
    return check_spikes(xr.Dataset(data, coords=coords, attrs=dict(attrs or {})), where)


def _train(where: str, times: Any) -> Floats:
    return np.sort(check_array(where, "times", times, shape=("spike",)).astype(np.float64))


def _labels(where: str, name: str, value: Any, size: int) -> NDArray[Any]:
    array = label_array(where, name, value)
    if name in ("start", "stop"):
        array = array.astype(np.float64)
    array = np.repeat(array, size) if array.ndim == 0 else array
    if array.shape != (size,):
        found = f"{name} of shape {array.shape}"
        raise ValueError(refusal(where, found, f"one value or ({size},)", f"Mend {name}."))
    return array


def _check_unit_of_time(where: str, trains: list[list[Floats]], unit: str) -> None:
    gaps = [np.diff(train) for row in trains for train in row if train.size > 1]
    # Times that are equal are duplicates, not short intervals.
    intervals = np.concatenate(gaps) if gaps else np.empty(0)
    intervals = intervals[intervals > 0]
    if intervals.size < MANY_INTERVALS:
        return
    shortest, middle = float(intervals.min()), float(np.median(intervals))
    if shortest >= LONG_INTERVAL:
        found = f"no two spikes closer than {shortest:.6g} s among {intervals.size} intervals"
        expected = f"some below {LONG_INTERVAL} s, as neurons have"
        advice = f"The times look like milliseconds, not {unit}: pass time_unit='ms'."
        raise ValueError(refusal(where, found, expected, advice))
    if middle < SHORT_INTERVAL:
        found = f"a median interval of {middle:.3g} s between spikes of a unit"
        expected = f"more than {SHORT_INTERVAL} s, as neurons have"
        advice = f"The times are not in {unit}: pass the time_unit that they are in."
        raise ValueError(refusal(where, found, expected, advice))


def check_spikes(spikes: Any, where: str = "check_spikes") -> xr.Dataset:
    """Return `spikes` unchanged if they obey the schema of this module, else refuse them.

    Raises
    ------
    TypeError
        If it is not a Dataset.
    ValueError
        If variables, labels or times are not as the schema says.

    Examples
    --------
    >>> check_spikes(make_spikes([[[0.3]]], stop=0.2))
    Traceback (most recent call last):
    ValueError: make_spikes: found 1 of 1 spikes outside of their trial, up to 0.3 s, expected ...
    """
    advice = "Build spikes with make_spikes."
    if not isinstance(spikes, xr.Dataset):
        found = f"a {type(spikes).__name__}"
        raise TypeError(refusal(where, found, "an xarray.Dataset of spikes", advice))
    for name in VARIABLES[1:]:
        if name not in spikes.data_vars or spikes[name].dims != ("spike",):
            raise ValueError(refusal(where, f"no {name} along spike", "spikes", advice))
    check_labels(where, spikes)
    check_trials(where, spikes)
    start = need_coord(where, spikes, "start", ("trial",))
    stop = need_coord(where, spikes, "stop", ("trial",))
    need_coord(where, spikes, "unit", ("unit",))
    if not (np.isfinite(start).all() and np.isfinite(stop).all() and (stop > start).all()):
        found = f"start {start[:4]} and stop {stop[:4]} s"
        raise ValueError(refusal(where, found, "start before stop, both finite", "Mend them."))
    row = _positions(where, spikes, "trial")
    _positions(where, spikes, "unit")
    _check_inside(where, spikes["spike_time"].values, start[row], stop[row])
    return spikes


def _positions(where: str, spikes: xr.Dataset, dim: str) -> NDArray[np.intp]:
    """Return where the label of each spike stands along trial or unit."""
    labels, own = spikes[dim].values, spikes[f"spike_{dim}"].values
    order = np.argsort(labels)
    at: NDArray[np.intp] = order[
        np.searchsorted(labels, own, sorter=order).clip(max=labels.size - 1)
    ]
    if not np.array_equal(labels[at], own):
        found = f"spikes of a {dim} that is not listed"
        raise ValueError(refusal(where, found, f"labels of {dim}", "Select spikes with it."))
    return at


def _check_inside(where: str, times: Floats, start: Floats, stop: Floats) -> None:
    # Times and ends are sums of steps in floating point.
    outside = ~((times >= start - 1e-9) & (times <= stop + 1e-9))
    if outside.any():
        found = f"{int(outside.sum())} of {times.size} spikes outside of their trial, "
        found += f"up to {times[outside].max():.6g} s"
        expected = f"times from {start.min():.6g} to {stop.max():.6g} s"
        late = times[outside].max() > 100 * stop.max()
        advice = "Are they in milliseconds? Pass time_unit='ms'." if late else "Mend start, stop."
        raise ValueError(refusal(where, found, expected, advice))


def spike_times(spikes: xr.Dataset) -> list[list[Floats]]:
    """Return the times, seconds, as [trial][unit] -> (spike,): the inverse of `make_spikes`.

    Examples
    --------
    >>> spike_times(make_spikes([[[0.01], [0.02, 0.03]]], stop=0.1))
    [[array([0.01]), array([0.02, 0.03])]]
    """
    spikes = check_spikes(spikes, "spike_times")
    n_trials, n_units = spikes.sizes["trial"], spikes.sizes["unit"]
    pair = _positions("spike_times", spikes, "trial") * n_units
    pair = pair + _positions("spike_times", spikes, "unit")
    order = np.lexsort((spikes["spike_time"].values, pair))
    ends = np.cumsum(np.bincount(pair, minlength=n_trials * n_units))
    trains = np.split(spikes["spike_time"].values[order], ends[:-1])
    return [trains[k * n_units : (k + 1) * n_units] for k in range(n_trials)]


def renamed(spikes: xr.Dataset, *, unit: Any = None, trial: Any = None) -> xr.Dataset:
    """Give units (unit,) or trials (trial,), numbered from 0 by `make_spikes`, other numbers.

    Examples
    --------
    >>> renamed(make_spikes([[[0.01], [0.02]]], stop=0.1), unit=[7, 4]).spike_unit.values
    array([7, 4])
    """
    for dim, numbers in (("unit", unit), ("trial", trial)):
        if numbers is not None:
            labels = np.asarray(numbers)[_positions("renamed", spikes, dim)]
            spikes = spikes.assign({f"spike_{dim}": ("spike", labels)})
            spikes = spikes.assign_coords({dim: np.asarray(numbers)})
    return check_spikes(spikes, "renamed")
