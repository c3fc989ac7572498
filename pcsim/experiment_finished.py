"""Experiments over finished batteries: their verdicts, gathered into a piece of the new run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcsim.experiment import Piece, Run
from pcsim.messages import refusal
from pcsim.storage import read_json, write_json
from pcsim.verdict import Verdict, read_csv, to_csv

__all__ = ["finished_piece", "gathered"]

KEY = "verdicts"


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
        If a folder is no finished battery, or two of them disagree about a cell.
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
            if before.verdict != one.verdict:
                found = f"{before.verdict} and {one.verdict} for {one.model} under {one.hypothesis}"
                advice = "Give batteries of the same scale, or one that holds the cell."
                raise ValueError(refusal("gather", found, "one verdict a cell", advice))
        texts |= {one["id"]: one for one in read_json(place / "hypotheses.json")}
    ordered = sorted(cells.values(), key=lambda one: one.hypothesis)
    to_csv(ordered, folder / "verdicts.csv")
    write_json(folder / "hypotheses.json", [texts[key] for key in sorted(texts)])


def gathered(run: Run) -> tuple[list[Verdict], list[dict[str, Any]]]:
    """Return the verdicts and the texts that the piece holds."""
    place = run.piece(KEY)
    return read_csv(place / "verdicts.csv"), read_json(place / "hypotheses.json")
