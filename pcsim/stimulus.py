"""Stimuli: one labelled array a set of trials, and what it has to obey.

A stimulus is an `xarray.DataArray` with dimensions (trial, time, y, x), an image sequence, or
(trial, time, feature). On `trial` lie `condition` and every parameter; on `time` the frame onsets
in seconds. Every frame is held for the scalar coordinate `frame_duration`; images carry
`px_per_deg`. Luminance lies in [0, 1] with mean grey 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import check_array, check_number, refusal
from pcsim.schema import (
    check_labels,
    check_time,
    check_trials,
    check_values,
    label_array,
    need_coord,
)

__all__ = ["check_stimulus", "stimulus_array", "trial_coords"]

IMAGE_DIMS = ("trial", "time", "y", "x")
FEATURE_DIMS = ("trial", "time", "feature")


def stimulus_array(
    values: Any,
    *,
    frame_duration: float,
    px_per_deg: float | None = None,
    condition: Any = "stimulus",
    **trial_coords: Any,
) -> xr.DataArray:
    """Label an array as a stimulus.

    Parameters
    ----------
    values : (trial, time, y, x) or (trial, time, feature)
        Luminance or features. Float32 stays, other numbers become float64.
    frame_duration
        How long every frame is held, seconds.
    px_per_deg
        Pixels per degree of visual angle; images need it.
    condition : str or (trial,)
        The name of the condition of each trial, or of all.
    **trial_coords : scalar or (trial,)
        Parameters of each trial, numbers or text; a scalar holds for all trials.

    Raises
    ------
    TypeError, ValueError
        If the result would not pass `check_stimulus`.

    Examples
    --------
    >>> grey = stimulus_array(np.full((2, 3, 4, 4), 0.5), frame_duration=0.02, px_per_deg=16.0,
    ...                       condition=["left", "right"], contrast=0.0)
    >>> grey.time.values, grey.condition.values.tolist()
    (array([0.  , 0.02, 0.04]), ['left', 'right'])
    """
    where = "stimulus_array"
    array = check_array(where, "values", values)
    dims = {4: IMAGE_DIMS, 3: FEATURE_DIMS}.get(array.ndim)
    if dims is None:
        found, expected = f"values of shape {array.shape}", f"axes {IMAGE_DIMS} or {FEATURE_DIMS}"
        raise ValueError(refusal(where, found, expected, "Add the axes that are missing."))
    duration = check_number(where, "frame_duration", frame_duration, positive=True)
    n_trials, n_frames = array.shape[:2]
    coords: dict[str, Any] = {
        "trial": np.arange(n_trials),
        "time": duration * np.arange(n_frames),
        "frame_duration": duration,
    }
    if px_per_deg is not None:
        coords["px_per_deg"] = check_number(where, "px_per_deg", px_per_deg, positive=True)
    for name, value in {"condition": condition, **trial_coords}.items():
        coords[name] = ("trial", _on_trials(where, name, value, n_trials))
    return check_stimulus(xr.DataArray(array, dims=dims, coords=coords, name="stimulus"), where)


def _on_trials(where: str, name: str, value: Any, n_trials: int) -> np.ndarray[Any, Any]:
    if name in (*IMAGE_DIMS, "feature", "frame_duration"):
        found = f"a trial parameter called {name!r}"
        raise ValueError(refusal(where, found, "another name", "That name is taken."))
    array = label_array(where, name, value)
    if array.ndim == 0:
        array = np.repeat(array, n_trials)
    if array.shape != (n_trials,):
        found = f"{name} of shape {array.shape} for {n_trials} trials"
        raise ValueError(refusal(where, found, "one value, or one a trial", f"Mend {name}."))
    return array


def check_stimulus(stimulus: Any, where: str = "check_stimulus") -> xr.DataArray:
    """Return `stimulus` unchanged if it obeys the schema of this module, else refuse it.

    Raises
    ------
    TypeError
        If it is not a DataArray of floats.
    ValueError
        If dimensions, coordinates or values are not as the schema says.

    Examples
    --------
    >>> check_stimulus(xr.DataArray(np.zeros((2, 3)), dims=("trial", "x")))
    Traceback (most recent call last):
    ValueError: check_stimulus: found dims ('trial', 'x'), expected ('trial', 'time', 'y', 'x') or
    ('trial', 'time', 'feature'). Build stimuli with stimulus_array.
    """
    if not isinstance(stimulus, xr.DataArray):
        advice = "Build stimuli with stimulus_array."
        found = f"a {type(stimulus).__name__}"
        raise TypeError(refusal(where, found, "an xarray.DataArray", advice))
    if stimulus.dims not in (IMAGE_DIMS, FEATURE_DIMS):
        found, expected = f"dims {stimulus.dims}", f"{IMAGE_DIMS} or {FEATURE_DIMS}"
        raise ValueError(refusal(where, found, expected, "Build stimuli with stimulus_array."))
    check_values(where, "stimulus", stimulus)
    check_labels(where, stimulus)
    check_trials(where, stimulus)
    check_time(where, stimulus)
    _check_frames(where, stimulus)
    return stimulus


def _check_frames(where: str, stimulus: xr.DataArray) -> None:
    scalars = ("frame_duration", "px_per_deg") if "y" in stimulus.dims else ("frame_duration",)
    for name in scalars:
        check_number(where, name, need_coord(where, stimulus, name, ())[()], positive=True)
    duration = float(stimulus.coords["frame_duration"])
    time = stimulus.coords["time"].values
    if time[0] < 0:
        found = f"a first frame at {time[0]:.6g} s"
        raise ValueError(refusal(where, found, "frames from 0 s on", "Count from stimulus onset."))
    # Onsets are sums of durations in floating point: a thousandth of a frame is no gap.
    if not np.allclose(np.diff(time), duration, rtol=1e-3, atol=0.0):
        steps = np.diff(time)
        found = f"frame onsets {steps.min():.6g} to {steps.max():.6g} s apart"
        expected = f"the frame_duration of {duration:.6g} s"
        raise ValueError(refusal(where, found, expected, "Repeat a frame to hold it longer."))


def trial_coords(
    where: str, source: xr.DataArray | xr.Dataset | Mapping[str, Any]
) -> dict[str, tuple[tuple[Any, ...], np.ndarray[Any, Any]]]:
    """Return the labels on `trial`, and those that hold for all, of a stimulus or of a mapping."""
    if not isinstance(source, xr.DataArray | xr.Dataset):
        return {name: (("trial",), label_array(where, name, v)) for name, v in source.items()}
    kept = {"frame_duration", "px_per_deg"}
    return {
        str(name): (coord.dims, label_array(where, str(name), coord.values))
        for name, coord in source.coords.items()
        if coord.dims == ("trial",) or (coord.ndim == 0 and name in kept)
    }
