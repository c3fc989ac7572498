"""Write spikes, rates and stimuli as an NWB file.

Layout: trials follow one another with a pause between; the `trials` table has `start_time`,
`stop_time`, `onset_time` (where the trial's own clock is 0) and every label, and the window of the
spikes where another part lasts longer; spikes are `units` in session time; rates are a TimeSeries
`rate` in the processing module `pcsim`, with the labels of its units in the table `rate_units`; the
stimulus is the TimeSeries or ImageSeries `stimulus`.
Both have `starting_time` and `rate` where samples are regular, which several trials seldom are.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.messages import refusal
from pcsim.neural_nwb_labels import WINDOW, column_names, comments_of, described
from pcsim.neural_poisson import bin_width_of
from pcsim.neural_spikes import check_spikes, spike_times
from pcsim.responses import check_responses
from pcsim.stimulus import check_stimulus
from pcsim.storage import atomic_path

__all__ = ["MODULE", "SIMULATED", "import_pynwb", "write_nwb"]

Floats = NDArray[np.float64]

MODULE = "pcsim"
PAUSE = 1.0
"""Between trials, seconds."""
REGULAR = 1e-9
"""Seconds by which a sample may be off a constant rate; the NWB inspector rounds there too."""
SIMULATED: Mapping[str, str] = {
    "subject_id": "simulated",
    "species": "http://purl.obolibrary.org/obo/NCBITaxon_32630",
    "sex": "U",
    "age": "P0D",
    "description": (
        "No animal: simulated with pcsim. The species is the taxonomy's 'synthetic construct'; "
        "sex and age are placeholders that NWB asks for."
    ),
}
"""The subject of a simulation."""


def import_pynwb(where: str) -> Any:
    """Return the module pynwb, or say how to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pynwb
            import pynwb.core
            import pynwb.image
    except ImportError:
        advice = "Install it with pip install 'pcsim[nwb]'."
        raise ImportError(refusal(where, "no pynwb", "it to be installed", advice)) from None
    return pynwb


def write_nwb(
    path: str | os.PathLike[str],
    *,
    spikes: xr.Dataset | None = None,
    responses: xr.Dataset | None = None,
    stimulus: xr.DataArray | None = None,
    description: str | None = None,
    session_start: datetime | None = None,
    subject: Mapping[str, str] | None = None,
) -> Path:
    """Write spikes, rates and a stimulus, any of them, as an NWB file, atomically.

    Parameters
    ----------
    path
        Ends in ``.nwb``.
    spikes, responses, stimulus
        Of the same trials. ``attrs["resolution"]`` of the spikes is the smallest difference that
        two spike times can have, seconds; without it they are taken to be as fine as stored.
    description
        Of the session; unless given "Simulated with pcsim", or the citation of a recording.
    session_start
        With a time zone; 1970-01-01 UTC unless given, as a simulation has no date.
    subject
        What NWB knows of an animal: `subject_id`, `species` (Latin), `sex`, `age` ("P90D") ...
        Unless given, that of the file which `read_nwb` read, `SIMULATED` for a model, and none for
        a recording of another origin: give it, the NWB inspector misses it.

    Raises
    ------
    ValueError
        If there is nothing to write or the trials differ.
    ImportError
        Without pynwb.
    """
    where, target = "write_nwb", Path(path)
    if target.suffix != ".nwb":
        found = f"a path ending in {target.suffix!r}"
        raise ValueError(refusal(where, found, "'.nwb'", "Name it session.nwb."))
    parts = _checked(where, spikes, responses, stimulus)
    pynwb = import_pynwb(where)
    start = session_start or datetime(1970, 1, 1, tzinfo=UTC)
    if start.tzinfo is None:
        found = f"session_start {start} without a time zone"
        raise ValueError(refusal(where, found, "one with", "Pass tzinfo=datetime.UTC."))
    onset, first, last = _clock(where, parts)
    animal = subject or _subject(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = pynwb.NWBFile(
            session_description=description or _description(parts),
            identifier=str(uuid.uuid4()),
            session_start_time=start,
            keywords=["recording" if _recorded(parts) else "simulation", "predictive coding"],
            subject=pynwb.file.Subject(**animal) if animal else None,
        )
        _add_trials(file, next(iter(parts.values())), onset, first, last)
        if spikes is not None:
            _add_spikes(file, spikes, onset)
        if responses is not None:
            _add_rates(pynwb, file, responses, onset)
        if stimulus is not None:
            _add_stimulus(pynwb, file, stimulus, onset)
        with atomic_path(target) as part, pynwb.NWBHDF5IO(str(part), "w") as io:
            io.write(file)
    return target


def _checked(
    where: str,
    spikes: xr.Dataset | None,
    responses: xr.Dataset | None,
    stimulus: xr.DataArray | None,
) -> dict[str, Any]:
    """Return what was given, checked, in the order in which trial labels are taken from it."""
    given = {
        "spikes": None if spikes is None else check_spikes(spikes, where),
        "responses": None if responses is None else check_responses(responses, where),
        "stimulus": None if stimulus is None else check_stimulus(stimulus, where),
    }
    parts = {name: part for name, part in given.items() if part is not None}
    if not parts:
        raise ValueError(refusal(where, "nothing to write", "spikes, responses or a stimulus"))
    first = next(iter(parts.values()))["trial"].values
    for name, part in parts.items():
        if not np.array_equal(part["trial"].values, first):
            found = f"{name} of other trials than {next(iter(parts))}"
            raise ValueError(refusal(where, found, "the same trials", "Select the same of all."))
    return parts


def _recorded(parts: Mapping[str, Any]) -> bool:
    """Say whether any part is of a recording: loaders write a citation, `read_nwb` the file."""
    marks = {"citation", "nwb_identifier"}
    return any(
        marks & set(part.attrs) and part.attrs.get("subject") != json.dumps(dict(SIMULATED))
        for part in parts.values()
    )


def _description(parts: Mapping[str, Any]) -> str:
    cited = [str(part.attrs["citation"]) for part in parts.values() if "citation" in part.attrs]
    return cited[0] if cited else "A recording" if _recorded(parts) else "Simulated with pcsim"


def _subject(parts: Mapping[str, Any]) -> Mapping[str, str]:
    for part in parts.values():
        if "subject" in part.attrs:
            read: Mapping[str, str] = json.loads(part.attrs["subject"])
            return read
    return {} if _recorded(parts) else SIMULATED


def _clock(where: str, parts: Mapping[str, Any]) -> tuple[Floats, Floats, Floats]:
    """Return session times of each trial's 0, and the first and last second of it on its clock."""
    firsts, lasts = [], []
    for name, part in parts.items():
        n, time = part.sizes["trial"], part.coords.get("time")
        if name == "spikes":
            first, last = part["start"].values, part["stop"].values
        elif name == "responses":
            first, last = time[0] - bin_width_of(part, where), time[-1]
        else:
            first, last = time[0], time[-1] + part["frame_duration"]
        firsts.append(np.broadcast_to(np.asarray(first, dtype=np.float64), n))
        lasts.append(np.broadcast_to(np.asarray(last, dtype=np.float64), n))
    first, last = np.min(firsts, axis=0), np.max(lasts, axis=0)
    begin = np.concatenate([[0.0], np.cumsum(last - first + PAUSE)[:-1]])
    return begin - first, first, last


def _window(part: Any, onset: Floats, first: Floats, last: Floats) -> dict[str, Floats]:
    """Return the session times of the spikes' window, where it is not that of the trial."""
    if not _of_spikes(part):
        return {}
    own = part["start"].values, part["stop"].values
    if all(np.abs(a - b).max() <= REGULAR for a, b in zip(own, (first, last), strict=True)):
        return {}
    return {name: onset + end for name, end in zip(WINDOW, own, strict=True)}


def _of_spikes(part: Any) -> bool:
    return isinstance(part, xr.Dataset) and "spike_time" in part


def _labels(part: Any, dim: str) -> dict[str, NDArray[Any]]:
    skipped = (dim, "start", "stop") if _of_spikes(part) else (dim,)
    return {
        str(n): c.values for n, c in part.coords.items() if c.dims == (dim,) and n not in skipped
    }


def _add_trials(file: Any, part: Any, onset: Floats, first: Floats, last: Floats) -> None:
    labels, window = _labels(part, "trial"), _window(part, onset, first, last)
    columns = column_names(labels)
    file.add_trial_column("onset_time", "Session time at which the stimulus begins, seconds")
    for name in window:
        file.add_trial_column(name, "Session time between which spikes were observed, seconds")
    for name, column in columns.items():
        file.add_trial_column(column, described(name))
    for row, zero in enumerate(onset):
        file.add_trial(
            start_time=float(zero + first[row]),
            stop_time=float(zero + last[row]),
            onset_time=float(zero),
            id=int(part["trial"].values[row]),
            **{name: float(times[row]) for name, times in window.items()},
            **{columns[name]: values[row].item() for name, values in labels.items()},
        )


def _add_spikes(file: Any, spikes: xr.Dataset, onset: Floats) -> None:
    labels = _labels(spikes, "unit")
    columns = column_names(labels)
    for name, own in columns.items():
        file.add_unit_column(own, described(name))
    rows = spike_times(spikes)
    observed = np.stack([onset + spikes["start"].values, onset + spikes["stop"].values], axis=1)
    for column, unit in enumerate(spikes["unit"].values):
        times = np.concatenate([zero + row[column] for zero, row in zip(onset, rows, strict=True)])
        file.add_unit(
            spike_times=times,
            obs_intervals=observed,
            id=int(unit),
            **{columns[name]: values[column].item() for name, values in labels.items()},
        )
    end = float((onset + spikes["stop"].values).max())
    file.units.resolution = float(spikes.attrs.get("resolution", np.spacing(end)))


def _timing(times: Floats) -> dict[str, Any]:
    """Return the start and rate of samples that are regular, else the time of each."""
    if times.size > 1 and times[-1] > times[0]:
        rate = (times.size - 1) / (times[-1] - times[0])
        if np.abs(times[0] + np.arange(times.size) / rate - times).max() <= REGULAR:
            return {"starting_time": float(times[0]), "rate": float(rate)}
    return {"timestamps": times}


def _add_rates(pynwb: Any, file: Any, responses: xr.Dataset, onset: Floats) -> None:
    module = file.create_processing_module(MODULE, "Responses of a model or of binned spikes")
    unit = responses["rate"].attrs.get("units", "a.u.")
    times = (onset[:, None] + responses["time"].values).ravel()
    values = responses["rate"].values.reshape(times.size, -1)
    width = bin_width_of(responses, "write_nwb")
    module.add(
        pynwb.TimeSeries(
            name="rate",
            data=values,
            unit=unit,
            **_timing(times),
            description="Rate (time, unit); times are ends of bins",
            comments=f"bin_width={width!r}",
        )
    )
    labels = {"unit": responses["unit"].values, **_labels(responses, "unit")}
    columns = column_names(labels)
    module.add(
        pynwb.core.DynamicTable(
            name="rate_units",
            description="Labels of the columns of rate",
            columns=[
                pynwb.core.VectorData(name=columns[n], description=described(n), data=v.tolist())
                for n, v in labels.items()
            ],
        )
    )


def _add_stimulus(pynwb: Any, file: Any, stimulus: xr.DataArray, onset: Floats) -> None:
    times = (onset[:, None] + stimulus["time"].values).ravel()
    values = stimulus.values.reshape(times.size, *stimulus.shape[2:])
    series: dict[str, Any] = {
        "name": "stimulus",
        "data": values,
        **_timing(times),
        "comments": comments_of("write_nwb", stimulus),
        "description": f"Stimulus, frames {stimulus.dims[1:]}",
    }
    if stimulus.ndim == 4:
        made = pynwb.image.ImageSeries(**series, unit="n.a.", format="raw")
    else:
        made = pynwb.TimeSeries(**series, unit="a.u.")
    file.add_stimulus(made)
