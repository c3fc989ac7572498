"""Responses: labelled rates of units over trials and time, the one thing every model gives back.

An `xarray.Dataset` with `rate` (trial, time, unit). On `unit` lie `population` (a role, below),
`level` (0 is the sense organ) and `area`, and where they exist `x`, `y`, `channel`, `layer` and the
`name` of the population in its circuit. On `time`: seconds from stimulus onset, and `frame`,
`iteration` where inference runs inside a frame. On `trial`: `condition` and every parameter of the
stimulus. Optional with fixed meaning: `free_energy` (trial, time), `spike_count` (trial, time,
unit), `lfp` (trial, time, site); `site` because xarray reserves the name `area` for the label on
`unit`. Labels are flat; `attrs` hold provenance only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pcsim.messages import check_array, refusal, unknown_name
from pcsim.schema import (
    POPULATIONS,
    VARIABLES,
    check_names,
    check_responses,
    label_array,
    need_coord,
    text_array,
)
from pcsim.stimulus import check_stimulus, stimulus_array, trial_coords
from pcsim.storage import atomic_path, to_plain

__all__ = [
    "POPULATIONS",
    "check_responses",
    "check_stimulus",
    "concat",
    "make_responses",
    "open_responses",
    "save",
    "select",
    "stimulus_array",
]


def make_responses(
    rate: Any,
    *,
    time: Any,
    units: Mapping[str, Any],
    trial: xr.DataArray | xr.Dataset | Mapping[str, Any],
    free_energy: Any = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Label rates as responses.

    Parameters
    ----------
    rate : (trial, time, unit)
        Rates, "a.u." unless ``attrs`` says otherwise.
    time : (time,) or mapping of them
        Seconds from stimulus onset; or {"time": ..., "frame": ..., "iteration": ...}.
    units
        Label -> (unit,) values or one value for all; `population` and `level` are required, `area`
        is "" unless given.
    trial
        The stimulus, whose trial labels are copied, or a mapping label -> (trial,) values.
    free_energy : (trial, time), optional
        Free energy of the inference, nats.
    attrs
        Provenance.

    Raises
    ------
    TypeError, ValueError
        If the result would not pass `check_responses`, or a label is on trial and on unit.

    Examples
    --------
    >>> r = make_responses(np.zeros((2, 3, 1)), time=[0.1, 0.2, 0.3],
    ...                    units={"population": "error", "level": 0},
    ...                    trial={"condition": ["a", "b"]})
    >>> dict(r.sizes), r.population.item()
    ({'trial': 2, 'time': 3, 'unit': 1}, 'error')
    """
    where = "make_responses"
    rate = check_array(where, "rate", rate, shape=("trial", "time", "unit"))
    size = dict(zip(VARIABLES["rate"], rate.shape, strict=True))
    coords: dict[str, Any] = {"trial": np.arange(size["trial"]), "unit": np.arange(size["unit"])}
    on_trial, on_unit = trial_coords(where, trial), {"area": "", **units}
    times = time if isinstance(time, Mapping) else {"time": time}
    check_names(where, on_trial, on_unit, {*VARIABLES, *times})
    for name, (dims, values) in on_trial.items():
        coords[name] = (dims, _fitting(where, name, values, size[dims[0]]) if dims else values)
    for name, value in times.items():
        coords[name] = ("time", _fitting(where, name, value, size["time"]))
    for name, value in on_unit.items():
        values = label_array(where, name, value)
        values = np.repeat(values, size["unit"]) if values.ndim == 0 else values
        coords[name] = ("unit", _fitting(where, name, values, size["unit"]))
    data: dict[str, Any] = {"rate": (VARIABLES["rate"], rate)}
    if free_energy is not None:
        shape = rate.shape[:2]
        data["free_energy"] = (
            VARIABLES["free_energy"],
            check_array(where, "free_energy", free_energy, shape=shape),
        )
    responses = xr.Dataset(data, coords=coords, attrs=dict(attrs or {}))
    responses["rate"].attrs["units"] = "a.u."
    return check_responses(responses, where)


def _fitting(where: str, name: str, value: Any, size: int) -> np.ndarray[Any, Any]:
    array = label_array(where, name, value)
    if array.shape != (size,):
        found, expected = f"{name} of shape {array.shape}", f"shape ({size},) as the rates have"
        raise ValueError(refusal(where, found, expected, f"Give one {name} for each of them."))
    return array


def select(
    responses: xr.Dataset,
    *,
    population: str | Sequence[str] | None = None,
    level: int | Sequence[int] | None = None,
    area: str | Sequence[str] | None = None,
    layer: str | Sequence[str] | None = None,
    condition: str | Sequence[str] | None = None,
    time: slice | None = None,
) -> xr.Dataset:
    """Return the units, trials and times with these labels, in the order they have; never none.

    Parameters
    ----------
    responses
        What to choose from.
    population, level, area, layer, condition
        The label, or several of which any will do.
    time
        A slice in seconds, both ends included.

    Raises
    ------
    ValueError
        If nothing is left; the message lists what there is.

    Examples
    --------
    >>> r = make_responses(np.zeros((1, 3, 2)), time=[0.1, 0.2, 0.3], trial={"condition": ["a"]},
    ...                    units={"population": ["error", "latent"], "level": [0, 1]})
    >>> select(r, level=1, time=slice(0.2, None)).population.values.tolist()
    ['latent']
    >>> select(r, population="prediction")
    Traceback (most recent call last):
    ValueError: select: found population 'prediction', expected one of 'error', 'latent'. ...
    """
    wanted = {"population": population, "level": level, "area": area, "layer": layer}
    chosen = responses
    for name, labels in {**wanted, "condition": condition}.items():
        if labels is not None:
            chosen = _with_labels(chosen, name, labels)
    return chosen if time is None else _with_times(chosen, time)


def _with_labels(responses: xr.Dataset, name: str, labels: Any) -> xr.Dataset:
    dim = "trial" if name == "condition" else "unit"
    present = need_coord("select", responses, name, (dim,))
    wanted = np.atleast_1d(np.asarray(labels)).tolist()
    for label in wanted:
        if not (present == label).any():
            raise unknown_name("select", name, label, map(str, np.unique(present)))
    if not wanted:
        raise ValueError(refusal("select", f"no {name} asked for", f"at least one {name}"))
    return responses.isel({dim: np.flatnonzero(np.isin(present, wanted))})


def _with_times(responses: xr.Dataset, time: slice) -> xr.Dataset:
    seconds = need_coord("select", responses, "time", ("time",))
    if not isinstance(time, slice) or time.step is not None:
        expected = "a slice of seconds without a step"
        raise TypeError(refusal("select", f"time {time!r}", expected, "Use slice(0.0, 0.2)."))
    start = -np.inf if time.start is None else time.start
    stop = np.inf if time.stop is None else time.stop
    inside = np.flatnonzero((seconds >= start) & (seconds <= stop))
    if inside.size == 0:
        found = f"time from {start} to {stop} s"
        expected = f"a part of {seconds[0]:.6g} to {seconds[-1]:.6g} s"
        raise ValueError(refusal("select", found, expected, "Widen the slice."))
    return responses.isel(time=inside)


def concat(parts: Sequence[xr.Dataset], dim: str = "trial") -> xr.Dataset:
    """Join responses along trial, unit or time; trials and units are numbered anew.

    The labels along the other two dimensions must agree exactly: nothing is dropped or filled.

    Raises
    ------
    ValueError
        If there is nothing to join, or labels or variables differ.

    Examples
    --------
    >>> a, b = (make_responses(np.zeros((1, 1, 2)), time=[0.1], trial={"condition": [name]},
    ...                        units={"population": "error", "level": 0}) for name in "ab")
    >>> concat([a, b]).condition.values.tolist()
    ['a', 'b']
    """
    if dim not in ("trial", "unit", "time"):
        raise unknown_name("concat", "dim", dim, ("trial", "unit", "time"))
    parts = [check_responses(part, "concat") for part in parts]
    if not parts:
        raise ValueError(refusal("concat", "no responses", "at least one"))
    for part in parts[1:]:
        _check_joinable(parts[0], part, dim)
    joined = xr.concat(
        parts, dim=dim, data_vars="minimal", coords="minimal", compat="override", join="override"
    )
    if dim in ("trial", "unit"):
        joined = joined.assign_coords({dim: np.arange(joined.sizes[dim])})
    return check_responses(joined.transpose(*parts[0].dims), "concat")


def _check_joinable(first: xr.Dataset, other: xr.Dataset, dim: str) -> None:
    for what in ("data_vars", "coords"):
        names, others = set(getattr(first, what)), set(getattr(other, what))
        if names != others:
            found = f"{', '.join(sorted(map(str, names ^ others)))} in some parts only"
            expected = "the same variables and labels in all"
            raise ValueError(refusal("concat", found, expected, "Drop or add what is missing."))
    for name in {**first.variables}:
        own: Any = first[name].variable
        if dim not in own.dims and not own.equals(other[name].variable):
            found = f"{name} that differs between parts"
            expected = f"equal {name}, as it does not lie along {dim}"
            raise ValueError(refusal("concat", found, expected, "Select what they share first."))


def save(responses: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write responses to a file, atomically; ``.nc`` is NetCDF (HDF5), ``.zarr`` a Zarr folder.

    NetCDF is for what fits into memory, Zarr for chunked responses that do not.

    Raises
    ------
    ValueError
        If the suffix is neither, or `responses` break the schema.

    Examples
    --------
    >>> import tempfile
    >>> r = make_responses(np.ones((1, 1, 1)), time=[0.1], trial={"condition": ["a"]},
    ...                    units={"population": "error", "level": 0})
    >>> path = save(r, Path(tempfile.mkdtemp()) / "r.nc")
    >>> open_responses(path).identical(r)
    True
    """
    target = Path(path)
    kind = _kind("save", target)
    writable = check_responses(responses, "save").copy()
    writable.attrs = _attributes(writable.attrs)
    for variable in writable.variables.values():
        variable.attrs = _attributes(variable.attrs)
        variable.encoding = {}
    with atomic_path(target) as part:
        if kind == ".nc":
            writable.to_netcdf(part, engine="h5netcdf")
        else:
            # Zarr's format 3 has no settled way to hold the text of the labels yet.
            writable.to_zarr(part, mode="w", consolidated=False, zarr_format=2)
    return target


def _kind(where: str, path: Path) -> str:
    if path.suffix not in (".nc", ".zarr"):
        found = f"a path ending in {path.suffix!r}"
        advice = "Name it responses.nc, or responses.zarr for what is larger than memory."
        raise ValueError(refusal(where, found, "'.nc' or '.zarr'", advice))
    return path.suffix


def _attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """HDF5 holds text and numbers; anything deeper is written as JSON text."""
    plain = {str(name): to_plain(value) for name, value in attrs.items()}
    simple = (str, int, float)
    return {
        name: value
        if isinstance(value, simple) and not isinstance(value, bool)
        else json.dumps(value, sort_keys=True)
        for name, value in plain.items()
    }


def open_responses(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read responses: NetCDF into memory, Zarr chunk by chunk when used.

    Raises
    ------
    ValueError
        If there is no such file, it is damaged, or what it holds is not responses.
    """
    source = Path(path)
    kind = _kind("open_responses", source)
    where = f"open_responses {source.name}"
    if not source.exists():
        raise ValueError(refusal(where, "no such file", "a file", "Check the path."))
    # The readers raise almost anything on damaged bytes; what to do is the same for all of it.
    try:
        if kind == ".nc":
            with xr.open_dataset(source, engine="h5netcdf") as stored:
                responses = stored.load()
        else:
            responses = xr.open_zarr(source, consolidated=False)
    except ImportError:
        raise
    except Exception as error:
        found = f"a file that cannot be read ({type(error).__name__}: {error})"
        advice = "It is damaged or cut short: write it again."
        raise ValueError(refusal(where, found, f"responses as {kind}", advice)) from None
    names = [name for name, coord in responses.coords.items() if coord.dtype.kind in "OT"]
    texts = {n: (responses[n].dims, text_array(responses[n].values)) for n in names}
    return check_responses(responses.assign_coords(texts), where)
