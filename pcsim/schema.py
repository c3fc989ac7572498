"""The schema of responses, and the rules about labels that responses and stimuli share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import refusal, unknown_name

__all__ = [
    "POPULATIONS",
    "VARIABLES",
    "check_labels",
    "check_names",
    "check_responses",
    "check_time",
    "check_trials",
    "check_values",
    "label_array",
    "need_coord",
    "text_array",
]

POPULATIONS = (
    "latent",
    "error",
    "weighted_error",
    "prediction",
    "precision",
    "input",
    "interneuron",
    "output",
)
"""Roles of units. Those that carry one sign of a quantity end in ``_pos`` or ``_neg``."""

VARIABLES = {
    "rate": ("trial", "time", "unit"),
    "free_energy": ("trial", "time"),
    "spike_count": ("trial", "time", "unit"),
    "lfp": ("trial", "time", "site"),
}


def check_responses(responses: Any, where: str = "check_responses") -> xr.Dataset:
    """Return `responses` unchanged if they obey the schema of `pcsim.responses`, else refuse them.

    Raises
    ------
    TypeError
        If it is not a Dataset of floats.
    ValueError
        If variables, dimensions, labels or values are not as the schema says.

    Examples
    --------
    >>> check_responses(xr.Dataset({"spikes": ("unit", [1.0])}))
    Traceback (most recent call last):
    ValueError: check_responses: found variables spikes, expected 'rate'. Build responses with
    make_responses.
    """
    advice = "Build responses with make_responses."
    if not isinstance(responses, xr.Dataset):
        found = f"a {type(responses).__name__}"
        raise TypeError(refusal(where, found, "an xarray.Dataset", advice))
    if "rate" not in responses.data_vars:
        present = ", ".join(sorted(map(str, responses.data_vars))) or "none"
        raise ValueError(refusal(where, f"variables {present}", "'rate'", advice))
    for name, dims in VARIABLES.items():
        if name not in responses.data_vars:
            continue
        if responses[name].dims != dims:
            found = f"{name} with dims {responses[name].dims}"
            raise ValueError(refusal(where, found, f"{dims}", f"Use transpose{dims}."))
        if name != "spike_count":
            check_values(where, name, responses[name])
    check_labels(where, responses)
    check_trials(where, responses)
    check_time(where, responses)
    _check_units(where, responses)
    return responses


def _check_units(where: str, responses: xr.Dataset) -> None:
    unit = need_coord(where, responses, "unit", ("unit",))
    if np.unique(unit).size != unit.size:
        found = "unit labels with repeats"
        raise ValueError(refusal(where, found, "each once", "Number the units 0 to n - 1."))
    for name in ("population", "area"):
        values = need_coord(where, responses, name, ("unit",))
        if text_array(values).dtype.kind != "U":
            found = f"{name} of dtype {values.dtype}"
            raise ValueError(refusal(where, found, "text", f"Name the {name} of every unit."))
    known = [role + end for role in POPULATIONS for end in ("", "_pos", "_neg")]
    for role in np.unique(responses.coords["population"].values.astype(str)):
        if role not in known:
            raise unknown_name(where, "population", str(role), known)
    level = need_coord(where, responses, "level", ("unit",))
    if level.dtype.kind not in "iu" or (level < 0).any():
        low = f", from {level.min()}" if level.dtype.kind in "iuf" else ""
        found = f"level of dtype {level.dtype}{low}"
        raise ValueError(refusal(where, found, "integers from 0 on", "Count from the senses."))


def check_values(where: str, name: str, array: xr.DataArray) -> None:
    """Refuse values that are no finite floats, and empty axes."""
    if array.dtype.kind != "f":
        found = f"{name} of dtype {array.dtype}"
        raise TypeError(refusal(where, found, "floats", f"Use {name}.astype(float)."))
    empty = [str(dim) for dim, size in array.sizes.items() if size == 0]
    if empty:
        found = f"{name} with no {' and no '.join(empty)}"
        raise ValueError(refusal(where, found, "at least one along every dimension"))
    finite = np.isfinite(array.data)
    if not bool(finite.all()):
        n_bad = int(finite.size - finite.sum())
        found = f"{n_bad} of {array.size} entries of {name} NaN or infinite"
        raise ValueError(refusal(where, found, "finite numbers", "Drop those trials first."))


def check_trials(where: str, labelled: xr.DataArray | xr.Dataset) -> None:
    """Refuse trials that are not numbered, are numbered twice or have no condition."""
    trial = need_coord(where, labelled, "trial", ("trial",))
    if trial.dtype.kind not in "iu":
        found = f"trial numbers of dtype {trial.dtype}"
        raise ValueError(refusal(where, found, "integers", "Number the trials 0 to n - 1."))
    if np.unique(trial).size != trial.size:
        found = f"trial numbers {_few(trial)} with repeats"
        raise ValueError(refusal(where, found, "each once", "Number the trials 0 to n - 1."))
    condition = need_coord(where, labelled, "condition", ("trial",))
    if text_array(condition).dtype.kind != "U":
        found = f"condition of dtype {condition.dtype}"
        raise ValueError(refusal(where, found, "text", "Name the condition of every trial."))


def check_time(where: str, labelled: xr.DataArray | xr.Dataset) -> None:
    """Refuse times that are not finite or do not increase."""
    time = need_coord(where, labelled, "time", ("time",))
    advice = "Give seconds from stimulus onset, each once, in order."
    if time.dtype.kind not in "fiu":
        found = f"time of dtype {time.dtype}"
        raise ValueError(refusal(where, found, "seconds as floats", advice))
    if not np.isfinite(time).all() or not (time[1:] > time[:-1]).all():
        found = f"time {_few(time)}"
        raise ValueError(refusal(where, found, "finite, strictly increasing seconds", advice))


def need_coord(
    where: str, labelled: xr.DataArray | xr.Dataset, name: str, dims: tuple[str, ...]
) -> np.ndarray[Any, Any]:
    """Return the values of a coordinate that must be there with these dimensions."""
    along = f"along {dims[0]}" if dims else "with one value"
    if name not in labelled.coords:
        present = ", ".join(sorted(map(str, labelled.coords))) or "none"
        found, expected = f"coordinates {present}", f"a coordinate {name!r} {along}"
        raise ValueError(refusal(where, found, expected, "Add it with assign_coords."))
    coord = labelled.coords[name]
    if coord.dims != dims:
        found, expected = f"coordinate {name!r} along {coord.dims}", f"it {along}"
        raise ValueError(refusal(where, found, expected, "Replace it with assign_coords."))
    values: np.ndarray[Any, Any] = coord.values
    return values


def check_labels(where: str, labelled: xr.DataArray | xr.Dataset) -> None:
    """Refuse labels that are not flat: a MultiIndex, or a coordinate with two dimensions."""
    for name, coord in labelled.coords.items():
        if coord.ndim > 1 or (coord.ndim == 1 and coord.to_index().nlevels > 1):
            found = f"coordinate {name!r} along {coord.dims}"
            advice = "Give every label a one-dimensional coordinate of its own (reset_index)."
            raise ValueError(refusal(where, found, "flat labels without levels", advice))


def check_names(
    where: str, trial: Iterable[str], unit: Iterable[str], taken: Iterable[str]
) -> None:
    """Refuse labels that bear the name of another: one would replace the other without a word."""
    own = {"trial": set(trial), "unit": set(unit)}
    both = sorted(own["trial"] & own["unit"])
    if both:
        found = f"label {both[0]!r} on trial and on unit"
        advice = f"Call one of them trial_{both[0]} or unit_{both[0]}."
        raise ValueError(refusal(where, found, "each name once", advice))
    for dim, names in own.items():
        other = {"trial": "unit", "unit": "trial"}[dim]
        bad = sorted(names & {*taken, other, "time"})
        if bad:
            found = f"a label {bad[0]!r} on {dim}"
            advice = f"That name is taken: call it {dim}_{bad[0]}."
            raise ValueError(refusal(where, found, "another name", advice))


def label_array(where: str, name: str, value: Any) -> np.ndarray[Any, Any]:
    """Return labels as an array of numbers or text, refusing what is neither."""
    try:
        array = text_array(np.asarray(value))
    except ValueError:
        advice = "Give one value each."
        raise ValueError(refusal(where, f"{name} that is ragged", "an array", advice)) from None
    if array.dtype.kind not in "fiubU":
        found = f"{name} of type {type(value).__name__} with entries {array.dtype}"
        raise ValueError(refusal(where, found, "numbers or text", f"Convert {name} first."))
    return array


def text_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return text in numpy's own fixed-width type, whatever way a reader brought it; else as is."""
    if array.dtype.kind in "OT" and all(isinstance(entry, str) for entry in array.flat):
        return array.astype(np.str_)
    return array


def _few(values: np.ndarray[Any, Any]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:6])
    return f"[{shown}{', ...' if values.size > 6 else ''}]"
