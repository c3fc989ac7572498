"""What was left out of the evidence, counted: units, and what else a protocol says it dropped."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from pcsim.storage import read_json, write_text

__all__ = ["HEAD", "exclusions", "read_exclusions", "write_exclusions"]

HEAD = ("hypothesis", "model", "control", "what", "excluded", "total")


def exclusions(
    hypothesis: str, model: str, control: str, evidence: Sequence[xr.Dataset]
) -> dict[str, Any]:
    """Count what was left out of the replicas of a model, or of a control of it.

    Units are those of `included`. Evidence may carry pairs of scalars, ``dropped_<what>`` and
    ``total_<what>``, for anything else that was left out: trials, bins, images.

    Examples
    --------
    >>> one = xr.Dataset({"included": ("unit", [True, False, True]), "dropped_trials": 2,
    ...                   "total_trials": 40})
    >>> exclusions("H10", "RB", "", [one, one])["counts"]
    {'units': [2, 6], 'trials': [4, 80]}
    """
    counts = {"units": [0, 0]}
    for one in evidence:
        included = one["included"].values
        counts["units"][0] += int((~included).sum())
        counts["units"][1] += int(included.size)
        for name in sorted(str(name) for name in one.data_vars):
            what = name.removeprefix("dropped_")
            if what != name and f"total_{what}" in one:
                count = counts.setdefault(what, [0, 0])
                count[0] += int(one[name])
                count[1] += int(one[f"total_{what}"])
    return {"hypothesis": hypothesis, "model": model, "control": control, "counts": counts}


def write_exclusions(folders: Iterable[Path], path: Path) -> None:
    """Gather what judged pieces left into one table, `exclusions.csv`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEAD)
    for folder in folders:
        file = folder / "exclusions.json"
        for row in read_json(file) if file.is_file() else ():
            for what, (excluded, total) in row["counts"].items():
                writer.writerow([*(row[name] for name in HEAD[:3]), what, excluded, total])
    write_text(path, buffer.getvalue())


def read_exclusions(path: Path) -> list[Mapping[str, Any]]:
    """Read the table; nothing where a run of an older version left none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{**row, "excluded": int(row["excluded"]), "total": int(row["total"])} for row in rows]
