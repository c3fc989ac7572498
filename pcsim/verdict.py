"""The verdict on one model under one hypothesis: the family-wise correction, the table.

The rule itself is `pcsim.verdict_rule`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from pcsim.stats import holm
from pcsim.storage import write_text
from pcsim.verdict_rule import (
    IS_CONTROL,
    ControlResult,
    Effect,
    Outcome,
    RequirementResult,
    decide,
    short,
)

__all__ = [
    "ALPHA",
    "MIN_REPLICAS",
    "RULE",
    "ControlResult",
    "Effect",
    "Outcome",
    "RequirementResult",
    "Verdict",
    "adjust",
    "decide",
    "read_csv",
    "to_csv",
]

ALPHA = 0.05
"""Family-wise error rate: a verdict stands if its Holm-corrected p lies below."""

MIN_REPLICAS = 3
"""Trained networks below which nothing is concluded."""

RULE = 3
"""Version of the rule and of its intervals; the hypothesis has a version of its own.

1: percentile interval of the hierarchical bootstrap, BCa from ten replicas on. 2: the wider of the
percentile interval and Student's over replicas, because the first alone broke the level. 3: the
same; where replicas share units or stimuli (`Hypothesis.shared`), these are drawn once for all
replicas, and Student's over them and over both is taken as well (docs/statistics.md).
"""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One cell of the table models x hypotheses; a value that is not defined is None."""

    hypothesis: str
    version: int
    family: str
    model: str
    verdict: Outcome
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    control: str = ""
    """The strongest control."""
    control_effect: float | None = None
    control_low: float | None = None
    control_high: float | None = None
    difference_low: float | None = None
    """Interval of effect minus control, replica by replica."""
    difference_high: float | None = None
    d_z: float | None = None
    rank_biserial: float | None = None
    p: float | None = None
    """Two-sided bootstrap p that the effect and all requirements are present (the largest)."""
    p_holm: float | None = None
    n_replicas: int = 0
    n_included: int = 0
    n_total: int = 0
    units: str = ""
    reference_low: float | None = None
    reference_high: float | None = None
    reference_status: str = ""
    reference_source: str = ""
    expectation: str = ""
    reason: str = ""
    requirements: str = ""
    seeds: tuple[int, ...] = field(default=())
    rule: int = RULE
    """Version of the rule that gave the verdict."""
    itself: bool = False
    """The column is a control of the claim. Its verdict is then NON-SPECIFIC where the effect and
    all requirements are there, REFUTED where they are not, else INCONCLUSIVE."""
    replicas: tuple[float, ...] = field(default=())
    """The effect in each replica that has included units."""
    control_replicas: tuple[float, ...] = field(default=())
    """That of the strongest control, in the replicas of both."""


NEWER = ("itself", "replicas", "control_replicas")
"""Columns that tables of older versions do not have."""


def adjust(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Correct the p values by Holm within each family of each model; order is kept.

    A verdict that claims an effect (SUPPORTED, QUALITATIVE, NON-SPECIFIC) turns INCONCLUSIVE if its
    corrected p is not below 0.05. Uncorrected intervals stay as they are.
    """
    table = list(verdicts)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, one in enumerate(table):
        if one.p is not None:
            groups.setdefault((one.model, one.family), []).append(index)
    for indices in groups.values():
        raw = [p for p in (table[i].p for i in indices) if p is not None]
        for index, p in zip(indices, holm(raw), strict=True):
            table[index] = _with_holm(table[index], float(p))
    return table


def _with_holm(verdict: Verdict, p: float) -> Verdict:
    claims = verdict.verdict in (Outcome.SUPPORTED, Outcome.QUALITATIVE, Outcome.NON_SPECIFIC)
    if not claims or p < ALPHA:
        return replace(verdict, p_holm=p)
    reason = (
        f"Would be {verdict.verdict}, but its Holm-corrected p of {short(p)} within the family "
        f"'{verdict.family}' is not below {ALPHA}. {verdict.reason}"
    )
    return replace(verdict, p_holm=p, verdict=Outcome.INCONCLUSIVE, reason=reason)


def to_csv(verdicts: Iterable[Verdict], path: str | Path) -> None:
    """Write the table; floats with 9 significant digits, the same bytes for the same verdicts."""
    names = [item.name for item in fields(Verdict)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for one in verdicts:
        writer.writerow([_cell(getattr(one, name)) for name in names])
    write_text(Path(path), buffer.getvalue())


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(_cell(item) for item in value)
    if isinstance(value, float):
        return f"{value + 0.0:.9g}"
    return str(value)


def read_csv(path: str | Path) -> list[Verdict]:
    """Read a table that `to_csv` wrote, of this version or one without the columns `NEWER`.

    Raises
    ------
    ValueError
        If columns are missing or a value cannot be read.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        found = list(reader.fieldnames or [])
    names = [item.name for item in fields(Verdict)]
    if found != [name for name in names if name in found or name not in NEWER]:
        raise ValueError(
            f"read_csv: {path} has columns {found}, expected {names}. Was it written by another "
            "version of pcsim? Run the experiment again."
        )
    for number, row in enumerate(rows, start=1):
        # A row that is too short has None for what is missing, one that is too long the key None.
        if None in row or None in row.values():
            raise ValueError(
                f"read_csv: {path} has a row {number} that is cut short or too long, expected "
                f"{len(found)} cells. The file is damaged: run the experiment again."
            )
    try:
        return [_verdict(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"read_csv: {path} has a row that cannot be read ({error}), expected the table "
            "verdicts.csv of a run. Run the experiment again."
        ) from error


def _verdict(row: dict[str, str]) -> Verdict:
    values: dict[str, object] = {}
    for item in fields(Verdict):
        if item.name not in row:
            continue
        text = row[item.name]
        kind = str(item.type)
        if item.name == "verdict":
            values[item.name] = Outcome(text)
        elif kind.startswith("tuple"):
            number = int if item.name == "seeds" else float
            values[item.name] = tuple(number(part) for part in text.split())
        elif kind == "bool":
            values[item.name] = {"True": True, "False": False}[text]
        elif kind == "int":
            values[item.name] = int(text)
        elif kind.startswith("float"):
            values[item.name] = float(text) if text else None
        else:
            values[item.name] = text
    # Older tables say it in words, where it had decided.
    values.setdefault("itself", IS_CONTROL in row["reason"])
    return Verdict(**values)  # type: ignore[arg-type]
