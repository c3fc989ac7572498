"""Experiments over finished batteries: their verdicts, gathered into a piece of the new run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcsim.experiment import Piece, Run
from pcsim.messages import refusal
from pcsim.storage import read_json, write_json
from pcsim.verdict import Verdict, read_csv, to_csv

__all__ = ["finished_piece", "gathered"]

KEY = "verdicts"

NUMBERS = ("effect", "low", "high", "control_effect", "control_low", "control_high")
"""What two batteries have to agree on, beside the word."""


def finished_piece(settings: Mapping[str, Any]) -> Piece:
    """Return the piece that gathers the batteries in the setting "run", one folder or several.

    Their tables are sources of the piece, so that another run of a battery makes it anew.
    """
    given = settings["run"]
    folders = [str(one) for one in ((given,) if isinstance(given, str) else given)]
    tables = tuple(str(Path(one).resolve() / "verdicts.csv") for one in folders)
    return Piece(key=KEY, task=gather, kwargs={"folders": folders}, sources=tables)


def gather(folder: Path, needs: Mapping[str, Path], *, folders: Sequence[str]) -> None:
    """Leave the verdicts and the texts of all batteries, each cell once.

    Raises
    ------
    ValueError
        If a folder is no finished battery, or two of them disagree about a cell, in the verdict or
        in its numbers.
    """
    cells: dict[tuple[str, str], Verdict] = {}
    texts: dict[str, Any] = {}
    for name in folders:
        place = Path(name)
        if not (place / "verdicts.csv").is_file() or not (place / "hypotheses.json").is_file():
            found = f"{name} without verdicts.csv and hypotheses.json"
            advice = "Run 'pcsim run correspondence' first, or give --set run=FOLDER."
            raise ValueError(refusal("gather", found, "the folder of a finished battery", advice))
        for one in read_csv(place / "verdicts.csv"):
            before = cells.setdefault((one.hypothesis, one.model), one)
            _check_same(before, one)
        texts |= {one["id"]: one for one in read_json(place / "hypotheses.json")}
    ordered = sorted(cells.values(), key=lambda one: one.hypothesis)
    to_csv(ordered, folder / "verdicts.csv")
    write_json(folder / "hypotheses.json", [texts[key] for key in sorted(texts)])


def _check_same(one: Verdict, other: Verdict) -> None:
    """Refuse two verdicts on a cell whose words or numbers differ.

    p values may: they are corrected for the other cells of their battery.
    """
    cell = f"for {one.model} under {one.hypothesis}"
    found = f"{one.verdict} and {other.verdict} {cell}"
    if one.verdict == other.verdict:
        apart = [name for name in NUMBERS if not _close(getattr(one, name), getattr(other, name))]
        if not apart:
            return
        values = f"{getattr(one, apart[0])} and {getattr(other, apart[0])}"
        found = f"{apart[0].replace('_', ' ')} {values} {cell}"
    advice = "Give batteries of the same scale and seeds, or one that holds the cell."
    raise ValueError(refusal("gather", found, "one verdict a cell", advice))


def _close(one: float | None, other: float | None) -> bool:
    """Whether numbers are the same but for rounding on another machine."""
    if one is None or other is None:
        return one is other
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)


def gathered(run: Run) -> tuple[list[Verdict], list[dict[str, Any]]]:
    """Return the verdicts and the texts that the piece holds."""
    place = run.piece(KEY)
    return read_csv(place / "verdicts.csv"), read_json(place / "hypotheses.json")
