"""What a battery's folder holds beside the verdicts: texts, thumbnails, responses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from pcsim.hypothesis import Hypothesis
from pcsim.storage import atomic_path

__all__ = ["COLLECTED", "describe", "same_file", "save_stimuli", "saw_something"]

COLLECTED = "collected.json"
"""File of a run: the stimuli and responses that its tables go with."""

TEXTS = ("id", "name", "version", "claim", "family", "protocol", "statistic", "signal", "units")


def describe(hypothesis: Hypothesis) -> dict[str, Any]:
    """Return the texts and numbers of a hypothesis that a report prints."""
    falsified = hypothesis.falsified_if
    names = [*TEXTS, "null", "direction", "rope"]
    return {name: getattr(hypothesis, name) for name in names} | {
        "departures": list(hypothesis.departures),
        "remembered": list(hypothesis.remembered),
        "falsified_if": [falsified] if isinstance(falsified, str) else list(falsified),
        "reference": {
            name: getattr(hypothesis.reference, name)
            for name in ("value", "interval", "status", "source")
        },
        "controls": [
            {
                "name": one.name,
                "statement": one.statement,
                "variant": one.variant,
                "for_effect": one.for_effect,
            }
            for one in hypothesis.controls
        ],
        "requirements": [
            {"name": one.name, "statement": one.statement} for one in hypothesis.requirements
        ],
    }


def saw_something(shown: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return the first column that left thumbnails, with their file; nothing if none did.

    `shown` holds columns' labels and the files where they may have left thumbnails.
    """
    for label, path in shown:
        if path.is_file():
            with xr.open_dataset(path, engine="h5netcdf") as found:
                if found.sizes.get("thumbnail", 0):
                    return [(label, path)]
    return []


def save_stimuli(label: str, source: Path, target: Path) -> None:
    """Save a column's thumbnails, and which column it was."""
    found = xr.load_dataset(source, engine="h5netcdf")
    with atomic_path(target) as part:
        found.assign(model=label).to_netcdf(part, engine="h5netcdf")


def same_file(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    if target.is_file() and target.samefile(source):
        return
    with atomic_path(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
