"""Names of labels in NWB files: which a column can bear, and which labels of ours can bear.

A label is written as a column of its own name, or as `label_...` where NWB keeps that name to
itself; the column's description tells the name of the label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from pcsim.messages import refusal
from pcsim.schema import label_array

__all__ = ["apart", "column_names", "comments_of", "described", "label_of", "settings_of"]

MARK = "Label of pcsim: "
OWN = "labels="
WINDOW = ("spikes_start_time", "spikes_stop_time")
"""Columns of the trials with the window of the spikes, where other parts last longer."""

# Columns and attributes of NWB's tables, and the arguments with which rows are added to them.
RESERVED = frozenset(
    {
        *("id", "description", "colnames", "columns", "index", "table", "parent", "self"),
        *("namespace", "neurodata_type", "data_type", "object_id", "meanings_tables"),
        *("data", "check_ragged", "check_extra_args", "enforce_unique_id"),
        *("start_time", "stop_time", "onset_time", "tags", "timeseries", *WINDOW),
        *("spike_times", "obs_intervals", "electrodes", "electrode_group"),
        *("waveform_mean", "waveform_sd", "waveforms"),
    }
)


def column_names(labels: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return label -> name of its column, for labels of one table.

    Examples
    --------
    >>> column_names(["contrast", "id", "a/b"])
    {'contrast': 'contrast', 'id': 'label_id', 'a/b': 'label_a_b'}
    """
    labels, kept = list(labels), RESERVED.union(taken)
    plain = [n for n in labels if n not in kept and _can_be_a_column(n)]
    found = {name: name for name in plain}
    for name in labels:
        if name not in found:
            column = "label_" + re.sub(r"[^\w -]", "_", name).removesuffix("_index")
            while column in {*plain, *found.values()}:
                column += "_"
            found[name] = column
    return {name: found[name] for name in labels}


def _can_be_a_column(name: str) -> bool:
    # A column `a_index` would make the column `a` a ragged one.
    return re.fullmatch(r"\w[\w -]*", name) is not None and not name.endswith("_index")


def described(name: str) -> str:
    """Return the description of the column of a label."""
    return f"{MARK}{name}"


def label_of(column: str, description: Any) -> str:
    """Return the name of the label that a column holds: that in its description, or its own."""
    text = str(description)
    return text.removeprefix(MARK) if text.startswith(MARK) else column


def apart(
    trial: Mapping[str, Any], unit: Mapping[str, Any], taken: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rename labels of trials and of units so that no name is there twice, or is taken.

    Examples
    --------
    >>> apart({"location": 1, "unit": 2}, {"location": 3}, {"unit"})
    ({'trial_location': 1, 'trial_unit': 2}, {'location': 3})
    """
    kept = set(taken)
    of_units = _free(unit, "unit", {*kept, "condition"})
    return _free(trial, "trial", {*kept, *of_units}), of_units


def _free(labels: Mapping[str, Any], dim: str, taken: set[str]) -> dict[str, Any]:
    found = {}
    for name, values in labels.items():
        new = name
        while new in taken or (new != name and new in labels):
            new = f"{dim}_{new}"
        found[new] = values
    return found


def comments_of(where: str, stimulus: xr.DataArray) -> str:
    """Return the scalars of a stimulus as text that `settings_of` reads."""
    scalars = {
        str(n): label_array(where, str(n), c) for n, c in stimulus.coords.items() if not c.ndim
    }
    ours = [n for n in ("frame_duration", "px_per_deg") if n in scalars]
    text = " ".join(f"{name}={float(scalars.pop(name))!r}" for name in ours)
    others = {name: value.item() for name, value in scalars.items()}
    return f"{text} {OWN}{json.dumps(others, sort_keys=True)}" if others else text


def settings_of(where: str, comments: str) -> dict[str, Any]:
    """Return what `comments_of` wrote, and the settings of older files."""
    text, _, others = comments.partition(OWN)
    try:
        pairs = [part.split("=") for part in text.split() if "=" in part]
        found: dict[str, Any] = {name: float(value) for name, value in pairs}
        return found | (json.loads(others) if others else {})
    except ValueError:
        found_text = f"comments {comments[:60]!r}"
        raise ValueError(refusal(where, found_text, "the settings that write_nwb wrote")) from None
