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

__all__ = ["describe", "same_file", "save_stimuli"]

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


def save_stimuli(shown: Sequence[tuple[str, Path]], target: Path) -> None:
    """Save the thumbnails of the first column that saw something, and which column it was.

    `shown` holds columns' labels and the files where they may have left thumbnails.
    """
    for label, path in shown:
        if not path.is_file():
            continue
        found = xr.load_dataset(path, engine="h5netcdf")
        if found.sizes.get("thumbnail", 0):
            with atomic_path(target) as part:
                found.assign(model=label).to_netcdf(part, engine="h5netcdf")
            return


def same_file(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    if target.is_file() and target.samefile(source):
        return
    with atomic_path(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
