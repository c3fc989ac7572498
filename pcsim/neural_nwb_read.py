"""Read NWB files: spikes, rates and stimulus, of this package or of a laboratory; check them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import check_choice, refusal
from pcsim.neural_nwb import MODULE, REGULAR, SIMULATED, import_pynwb
from pcsim.neural_nwb_labels import WINDOW, apart, label_of, settings_of
from pcsim.neural_quality import MISSING, counted
from pcsim.neural_spikes import TIME_UNITS, VARIABLES, make_spikes, renamed
from pcsim.responses import make_responses, stimulus_array
from pcsim.schema import VARIABLES as MEASURED
from pcsim.schema import text_array
from pcsim.stimulus import IMAGE_DIMS, check_stimulus

__all__ = ["NwbContents", "read_nwb", "validate_nwb"]

LISTS = ("tags", "tags_index", "timeseries", "timeseries_index")
TRIAL_COLUMNS = ("start_time", "stop_time", "onset_time", *WINDOW, *LISTS)
TAKEN = ("trial", "unit", "time")
"""Names that no label may have; those of variables and of other coordinates come on top."""

NEAR = 1e-6
"""Seconds within which two ends are one: files hold sums of steps, some in single precision."""
REFUSED = re.compile(r"[\w .-]+: found .*, expected ", re.DOTALL)
"""How the package's own errors begin."""
MANY_TRIALS = 10
"""From which on the times of trials tell something about their unit."""


class NwbContents(NamedTuple):
    """What an NWB file holds; None for what it does not."""

    spikes: xr.Dataset | None
    responses: xr.Dataset | None
    stimulus: xr.DataArray | None


def read_nwb(
    path: str | os.PathLike[str],
    *,
    population: str = "output",
    level: int = 0,
    area: str = "",
    time_unit: str = "s",
    missing: str = "refuse",
) -> NwbContents:
    """Read the spikes of an NWB file, and the rates and stimulus if `write_nwb` wrote it.

    Spikes are cut into the trials of the file's `trials` table, each from `start_time` to
    `stop_time` with 0 at `onset_time` if there is that column, else at `start_time`; a spike at the
    very stop belongs to the trial that begins there, if one does. Spikes between trials are left
    out and counted in ``attrs["spikes_outside"]`` and in the `exclusions` of the spikes. A file
    without trials is one trial, from 0 to the last spike.

    A column whose name is that of a dimension or a variable gets it with the table in front:
    `trial_start`, `unit_time`. One that both tables have stays on units, and is `trial_location` on
    trials.

    Parameters
    ----------
    path
        An NWB file (HDF5).
    population, level, area
        Labels of units, where the file does not have them as columns.
    time_unit
        "s", as NWB demands; some files are in "ms" nevertheless.
    missing
        What to do where the file says (`obs_intervals`) that a unit was not observed during the
        whole of a trial: "refuse", or leave out each trial ("drop_trials") or each unit
        ("drop_units") of which this is so; `exclusions` of the spikes counts them.

    Raises
    ------
    ValueError
        If there is no such file, it is damaged or no NWB file, holds none of the three, its
        times cannot be seconds, or units were not observed during trials and that is refused.
    """
    where = f"read_nwb {Path(path).name}"
    check_choice(where, "time_unit", time_unit, TIME_UNITS)
    check_choice(where, "missing", missing, MISSING)
    with _opened(path, where) as file:
        given = {"population": population, "level": level, "area": area}
        source = {"source": Path(path).name, "nwb_identifier": str(file.identifier)}
        source |= _subject(file)
        spikes = None if file.units is None else _spikes(where, file, given, time_unit, missing)
        fine = {} if spikes is None else _resolution(file.units)
        spikes = None if spikes is None else spikes.assign_attrs(source | fine)
        module = file.processing.get(MODULE)
        responses = None
        if module is not None and "rate" in module.data_interfaces:
            responses = _responses(where, file, module, source)
        own = file.stimulus.get("stimulus")
        ours = own is not None and "frame_duration=" in str(own.comments)
        stimulus = _stimulus(where, file, own) if ours else None
    if spikes is None and responses is None and stimulus is None:
        found = "neither units nor rates nor a stimulus of pcsim"
        raise ValueError(refusal(where, found, "at least one", "Choose another file."))
    return NwbContents(spikes, responses, stimulus)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], where: str) -> Iterator[Any]:
    source = Path(path)
    if not source.is_file():
        raise ValueError(refusal(where, "no such file", "an NWB file", "Check the path."))
    pynwb = import_pynwb(where)
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        # The readers raise almost anything on damaged bytes; what to do is the same.
        try:
            file = stack.enter_context(pynwb.NWBHDF5IO(str(source), "r")).read()
        except Exception as error:
            raise _damaged(where, error) from None
        try:
            yield file
        except Exception as error:
            if REFUSED.match(str(error)):
                raise
            # What h5py reads only now may be damaged as well.
            if isinstance(error, OSError):
                raise _damaged(where, error) from None
            found = f"contents that cannot be read ({type(error).__name__}: {str(error)[:120]})"
            advice = "pynwb opens the file: look there for tables that are unusual or incomplete."
            expected = "trials, units and series as NWB has them"
            raise ValueError(refusal(where, found, expected, advice)) from None


def _damaged(where: str, error: Exception) -> ValueError:
    found = f"a file that cannot be read ({type(error).__name__}: {str(error)[:120]})"
    advice = "It is damaged, cut short or not NWB: get it again."
    return ValueError(refusal(where, found, "an NWB file", advice))


class _Trials(NamedTuple):
    number: NDArray[Any]
    onset: NDArray[np.float64]
    start: NDArray[np.float64]
    stop: NDArray[np.float64]
    labels: dict[str, NDArray[Any]]


def _trials(file: Any) -> _Trials | None:
    table = file.trials
    if table is None or len(table) == 0:
        return None
    start, stop = (np.asarray(table[name][:], float) for name in ("start_time", "stop_time"))
    own = "onset_time" in table.colnames
    onset = np.asarray(table["onset_time"][:], float) if own else start
    labels = _columns(table, TRIAL_COLUMNS)
    labels.setdefault("condition", np.full(start.size, "recording"))
    if labels["condition"].dtype.kind != "U":
        labels["condition"] = labels["condition"].astype(np.str_)
    return _Trials(np.asarray(table.id[:]), onset, start - onset, stop - onset, labels)


def _watched(file: Any, trials: _Trials) -> _Trials:
    """Return the trials with the window of the spikes, where the file has one of their own."""
    if not all(name in file.trials.colnames for name in WINDOW):
        return trials
    start, stop = (np.asarray(file.trials[name][:], float) - trials.onset for name in WINDOW)
    return trials._replace(start=start, stop=stop)


def _columns(table: Any, skipped: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Return label -> values of the columns with one number or text a row.

    Ragged and linked columns stay out.
    """
    found = {}
    about = {column.name: column.description for column in table.columns}
    for name in table.colnames:
        if f"{name}_index" in about or name in skipped:
            continue
        values = text_array(np.asarray(table[name][:]))
        if values.ndim == 1 and values.dtype.kind in "fiubU":
            found[label_of(name, about.get(name))] = values
    return found


def _spikes(
    where: str, file: Any, given: dict[str, Any], time_unit: str, missing: str
) -> xr.Dataset:
    table = file.units
    if "spike_times" not in table.colnames or len(table) == 0:
        found = f"a units table of {len(table)} units without spike_times"
        raise ValueError(refusal(where, found, "spike times", "Choose a sorted recording."))
    trains = [np.asarray(table["spike_times"][k], float) for k in range(len(table))]
    if not all(np.isfinite(train).all() for train in trains):
        raise ValueError(refusal(where, "spike times that are NaN", "seconds", "Mend the file."))
    named, trials = np.asarray(table.id[:]), _trials(file)
    units = {**given, **_columns(table)}
    units["level"] = np.asarray(units["level"]).astype(np.int64)
    taken = (*TAKEN, *VARIABLES, "start", "stop")
    labels, units = apart({} if trials is None else trials.labels, units, taken)
    scale = TIME_UNITS[time_unit]
    seconds = [scale * np.sort(train) for train in trains]
    # As one long trial first, which refuses times that cannot be in this unit.
    ends = np.concatenate([*seconds, [0.0, 1e-3]])
    whole = make_spikes(
        [trains],
        start=float(ends.min()),
        stop=float(ends.max()),
        units=units,
        time_unit=time_unit,
    )
    if trials is None:
        return renamed(whole, unit=named)
    trials = _watched(file, trials._replace(labels=labels))
    spikes = renamed(_cut(where, seconds, trials, units), unit=named, trial=trials.number)
    kept, gone = _observed(where, table, trials, scale, missing)
    return counted(_part(spikes, kept), gone)


def _observed(
    where: str, table: Any, trials: _Trials, scale: float, missing: str
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the trials or units to keep, and what goes, as nobody looked at it."""
    begin, end = trials.onset + trials.start, trials.onset + trials.stop
    lost = np.zeros((begin.size, len(table)), bool)
    for column in range(len(table)) if "obs_intervals" in table.colnames else ():
        own = scale * np.asarray(table["obs_intervals"][column], float).reshape(-1, 2)
        if own.size:
            lost[:, column] = ~_within(begin, end, own)
    if not lost.any():
        return {}, {}
    dim, axis = ("unit", 0) if missing == "drop_units" else ("trial", 1)
    bad = lost.any(axis=axis)
    pairs = f"{int(lost.sum())} of {lost.size} pairs of trial and unit not observed"
    found = f"{pairs}, in {int(bad.sum())} of {bad.size} {dim}s"
    if missing == "refuse":
        advice = "Pass missing='drop_trials' or 'drop_units' to leave those out."
        raise ValueError(refusal(where, found, "all observed (obs_intervals)", advice))
    if bad.all():
        other = "drop_trials" if dim == "unit" else "drop_units"
        advice = f"Try missing='{other}'; are obs_intervals in seconds?"
        raise ValueError(refusal(where, found, f"some whole {dim}s", advice))
    return {dim: np.flatnonzero(~bad)}, {f"unobserved_{dim}s": int(bad.sum())}


def _within(begin: Any, end: Any, intervals: Any) -> Any:
    """Say which windows lie in one of the intervals; those that touch are one."""
    ordered = intervals[np.argsort(intervals[:, 0])]
    stops = np.maximum.accumulate(ordered[:, 1])
    first = np.concatenate([[True], ordered[1:, 0] > stops[:-1] + NEAR])
    low = ordered[first, 0]
    high = stops[np.concatenate([np.flatnonzero(first)[1:] - 1, [stops.size - 1]])]
    at = np.searchsorted(low, begin + NEAR, side="right") - 1
    return (at >= 0) & (end <= high[at.clip(min=0)] + NEAR)


def _part(spikes: xr.Dataset, kept: dict[str, Any]) -> xr.Dataset:
    for dim, index in kept.items():
        spikes = spikes.isel({dim: index})
        mine = np.isin(spikes[f"spike_{dim}"].values, spikes[dim].values)
        spikes = spikes.isel(spike=np.flatnonzero(mine))
    return spikes


def _cut(
    where: str, trains: list[NDArray[np.float64]], trials: _Trials, units: dict[str, Any]
) -> xr.Dataset:
    begin, end = trials.onset + trials.start, trials.onset + trials.stop
    rows, outside = [], [np.ones(train.size, bool) for train in trains]
    # A spike at the very stop belongs to the trial that begins there, if one does.
    sides: Any = np.where(np.isin(end, begin), "left", "right")
    for onset, low, high, side in zip(trials.onset, begin, end, sides, strict=True):
        parts = [
            slice(np.searchsorted(one, low), np.searchsorted(one, high, side)) for one in trains
        ]
        rows.append([t[part] - onset for t, part in zip(trains, parts, strict=True)])
        for mask, part in zip(outside, parts, strict=True):
            mask[part] = False
    lost, total = sum(int(mask.sum()) for mask in outside), sum(t.size for t in trains)
    if total and lost == total:
        found = f"{total} spikes, none of them within the {len(rows)} trials"
        advice = "Are spikes or trials in milliseconds? Pass time_unit='ms'."
        raise ValueError(refusal(where, found, "spikes within trials", advice))
    _check_clock(where, trains, begin)
    spikes = make_spikes(
        rows,
        start=trials.start,
        stop=trials.stop,
        units=units,
        trial=trials.labels,
        attrs={"spikes_outside": lost},
    )
    return counted(spikes, {"spikes_outside": lost})


def _check_clock(where: str, trains: list[NDArray[np.float64]], begin: Any) -> None:
    """Refuse trials most of which begin after all spikes: their times are in another unit."""
    last = max(float(train[-1]) for train in trains if train.size) if any(map(len, trains)) else 0.0
    late = int((begin > last).sum())
    if last and begin.size >= MANY_TRIALS and late > begin.size / 2:
        found = f"{late} of {begin.size} trials that begin after the last spike, at {last:.6g} s"
        advice = "Are the times of trials in milliseconds? Mend them in the file."
        raise ValueError(refusal(where, found, "trials and spikes of one session", advice))


def _own_trials(where: str, file: Any, n_samples: int) -> tuple[_Trials, int]:
    trials = _trials(file)
    if trials is None or n_samples % trials.onset.size:
        found = f"{n_samples} samples for {0 if trials is None else trials.onset.size} trials"
        raise ValueError(refusal(where, found, "equally many a trial", "Write the file again."))
    return trials, n_samples // trials.onset.size


def _sampled(series: Any, n: int) -> NDArray[np.float64]:
    """Return the times of the first `n` samples."""
    if series.timestamps is not None:
        return np.asarray(series.timestamps[:n], float)
    return float(series.starting_time) + np.arange(n) / float(series.rate)


def _subject(file: Any) -> dict[str, str]:
    """Return what the file says of the subject, as one text."""
    fields = {} if file.subject is None else file.subject.fields
    said = {name: value for name, value in fields.items() if isinstance(value, str)}
    return {"subject": json.dumps(dict(SIMULATED) if said == SIMULATED else said)} if said else {}


def _resolution(units: Any) -> dict[str, float]:
    fine = units.resolution
    return {"resolution": float(fine)} if fine is not None and fine > 0 else {}


def _responses(where: str, file: Any, module: Any, attrs: dict[str, Any]) -> xr.Dataset:
    series, table = module["rate"], module["rate_units"]
    trials, n_times = _own_trials(where, file, series.data.shape[0])
    units = _columns(table)
    named, settings = units.pop("unit"), settings_of(where, series.comments)
    taken = (*TAKEN, *MEASURED, *settings)
    labels, units = apart(trials.labels, {"area": "", **units}, taken)
    rate = np.asarray(series.data[:], float).reshape(trials.onset.size, n_times, named.size)
    time = _sampled(series, n_times) - trials.onset[0]
    responses = make_responses(rate, time=time, units=units, trial=labels, attrs=attrs)
    responses["rate"].attrs["units"] = str(series.unit)
    return responses.assign_coords({"unit": named, "trial": trials.number, **settings})


def _stimulus(where: str, file: Any, series: Any) -> xr.DataArray:
    trials, n_frames = _own_trials(where, file, series.data.shape[0])
    values, settings = np.asarray(series.data[:]), settings_of(where, series.comments)
    labels, _ = apart(trials.labels, {}, (*TAKEN, *IMAGE_DIMS, "feature", *settings))
    stimulus = stimulus_array(
        values.reshape(trials.onset.size, n_frames, *values.shape[1:]),
        frame_duration=settings["frame_duration"],
        px_per_deg=settings.get("px_per_deg"),
    )
    first = float(_sampled(series, 1)[0] - trials.onset[0])
    if abs(first) > REGULAR:
        stimulus = stimulus.assign_coords(time=first + stimulus["time"].values)
    coords = {name: ("trial", value) for name, value in labels.items()}
    known = {"trial": trials.number, **settings, **coords}
    return check_stimulus(stimulus.assign_coords(known), where)


def validate_nwb(path: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with an NWB file: of the NWB inspector if installed, and of pynwb.

    A finding of the inspector begins with its weight, CRITICAL, ERROR, BEST_PRACTICE_VIOLATION or
    BEST_PRACTICE_SUGGESTION, and ends with the name of the check.

    Raises
    ------
    ValueError
        If the file cannot be read at all.
    """
    where = f"validate_nwb {Path(path).name}"
    with _opened(path, where):
        pass
    pynwb = import_pynwb(where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [str(error) for error in pynwb.validate(path=str(path))]
        # The inspector is no dependency: it is heard where a user has installed it.
        if importlib.util.find_spec("nwbinspector") is not None:
            inspector = importlib.import_module("nwbinspector")
            messages = inspector.inspect_nwbfile(nwbfile_path=str(path))
            found += [
                f"{m.importance.name}: {m.message} [{m.check_function_name}]" for m in messages
            ]
    return found
