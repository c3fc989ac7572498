"""The verdict on one model under one hypothesis: the rule, the family-wise correction, the table.

The rule is the battery's and is the same code for every hypothesis. It sees numbers only: the
effect and its interval, the same for every control and for the paired difference, the further
requirements, the reference. Nothing here knows what a circuit is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path

from pcsim.stats import holm
from pcsim.storage import write_text

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

NON_SPECIFIC_SHARE = 0.5
"""Share of the effect from which on a control counts as showing it."""


class Outcome(StrEnum):
    """The six verdicts of the battery."""

    SUPPORTED = "SUPPORTED"
    QUALITATIVE = "QUALITATIVE"
    NON_SPECIFIC = "NON-SPECIFIC"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NA = "N/A"


@dataclass(frozen=True)
class Effect:
    """A point estimate with its 95 % interval and its bootstrap p against the null."""

    value: float
    low: float
    high: float
    p: float | None = None

    def towards(self, null: float, direction: int) -> Effect:
        """Distance from the null, positive in the predicted direction.

        Examples
        --------
        >>> Effect(0.2, 0.1, 0.4).towards(0.5, -1)
        Effect(value=0.3, low=0.09999999999999998, high=0.4, p=None)
        """
        ends = direction * (self.low - null), direction * (self.high - null)
        return Effect(direction * (self.value - null), min(ends), max(ends), self.p)


@dataclass(frozen=True)
class RequirementResult:
    """A further falsifier, measured: the effect it looks at and what it must exceed."""

    name: str
    effect: Effect
    null: float = 0.0
    direction: int = 1


@dataclass(frozen=True)
class ControlResult:
    """A control, measured: its own effect and the paired difference model minus control.

    Both are None if the control could not be measured; `note` says why.
    """

    name: str
    effect: Effect | None
    difference: Effect | None
    itself: bool = False
    """The model under test is this control."""
    note: str = ""


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


def decide(
    effect: Effect,
    controls: Sequence[ControlResult],
    requirements: Sequence[RequirementResult] = (),
    *,
    null: float = 0.0,
    direction: int = 1,
    rope: tuple[float, float] | None = None,
    reference: tuple[tuple[float, float] | None, str] = (None, "computed"),
) -> tuple[Outcome, str]:
    """Apply the verdict rule; the first line that holds decides.

    Parameters
    ----------
    effect
        The model's effect, raw.
    controls, requirements
        Measured controls and further falsifiers.
    null, direction
        The value of no effect and the predicted side of it, +1 above or -1 below.
    rope
        Region of practical equivalence: an interval wholly inside it refutes.
    reference
        Published interval (None: sign only) and its status read, computed or remembered.

    Returns
    -------
    outcome, reason
        The verdict and one sentence that gives the numbers which decided.

    Examples
    --------
    >>> control = ControlResult("LN", Effect(0.01, -0.02, 0.04), Effect(0.4, 0.3, 0.5))
    >>> decide(Effect(0.41, 0.3, 0.5), [control], reference=((0.3, 0.7), "read"))[0].value
    'SUPPORTED'
    >>> decide(Effect(0.41, 0.3, 0.5), [control], reference=((0.3, 0.7), "remembered"))[0].value
    'QUALITATIVE'
    """
    refuted = _refuted(effect, requirements, null, direction, rope)
    if refuted:
        return Outcome.REFUTED, refuted
    absent = _absent(effect, requirements, null, direction)
    if absent:
        return Outcome.INCONCLUSIVE, absent
    shown = _shown_by_control(effect, controls, null, direction)
    if shown:
        return Outcome.NON_SPECIFIC, shown
    unclear = _unclear_difference(controls, direction)
    if unclear:
        return Outcome.INCONCLUSIVE, unclear
    return _magnitude(effect, *reference)


def _refuted(
    effect: Effect,
    requirements: Sequence[RequirementResult],
    null: float,
    direction: int,
    rope: tuple[float, float] | None,
) -> str:
    if effect.towards(null, direction).high < 0:
        return f"The effect {_text(effect)} lies on the wrong side of {_number(null)}."
    if rope is not None and rope[0] <= effect.low and effect.high <= rope[1]:
        span = f"[{_number(rope[0])}, {_number(rope[1])}]"
        return f"The effect {_text(effect)} lies wholly in {span}, practically none."
    for one in requirements:
        if one.effect.towards(one.null, one.direction).high < 0:
            found = _text(one.effect)
            return f"'{one.name}' fails: {found} lies on the wrong side of {_number(one.null)}."
    return ""


def _absent(
    effect: Effect, requirements: Sequence[RequirementResult], null: float, direction: int
) -> str:
    if not effect.towards(null, direction).low > 0:
        return f"The interval of the effect {_text(effect)} includes {_number(null)}."
    for one in requirements:
        if not one.effect.towards(one.null, one.direction).low > 0:
            found = _text(one.effect)
            return f"'{one.name}' is open: {found} includes {_number(one.null)}."
    return ""


def _shown_by_control(
    effect: Effect, controls: Sequence[ControlResult], null: float, direction: int
) -> str:
    """Say which control shows at least half of the effect; the strongest is named."""
    size = effect.towards(null, direction).value
    for one in controls:
        if one.itself:
            return (
                f"The effect {_text(effect)} is there, but this model is the control '{one.name}'."
            )
    measured = [one for one in controls if one.effect is not None]
    shares = [
        (one.effect.towards(null, direction).value / size, one)
        for one in measured
        if one.effect is not None
    ]
    if not shares:
        return ""
    share, strongest = max(shares, key=lambda pair: pair[0])
    if share < NON_SPECIFIC_SHARE or strongest.effect is None:
        return ""
    return (
        f"The control '{strongest.name}' shows {_text(strongest.effect)}, "
        f"{100 * share:.0f} % of the effect {_text(effect)}."
    )


def _unclear_difference(controls: Sequence[ControlResult], direction: int) -> str:
    if not controls:
        return "There is no control to compare with."
    for one in controls:
        if one.effect is None or one.difference is None:
            return f"The control '{one.name}' was not measured: {one.note or 'no replicas'}."
        if not one.difference.towards(0.0, direction).low > 0:
            found = _text(one.difference)
            return f"The difference to the control '{one.name}', {found}, includes 0."
    return ""


def _magnitude(
    effect: Effect, interval: tuple[float, float] | None, status: str
) -> tuple[Outcome, str]:
    beyond = f"The effect {_text(effect)} is there and the controls fail"
    if status == "remembered":
        return Outcome.QUALITATIVE, f"{beyond}; the reference is remembered, not read in a source."
    if interval is None:
        return Outcome.SUPPORTED, f"{beyond}; only the sign is published."
    low, high = interval
    span = f"[{_number(low)}, {_number(high)}]"
    if low <= effect.value <= high:
        return Outcome.SUPPORTED, f"{beyond}; it lies in the reference interval {span}."
    miss = low - effect.value if effect.value < low else effect.value - high
    return Outcome.QUALITATIVE, f"{beyond}; it misses the reference {span} by {_number(miss)}."


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
        f"Would be {verdict.verdict}, but its Holm-corrected p of {_number(p)} within the family "
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
        return " ".join(str(item) for item in value)
    if isinstance(value, float):
        return f"{value + 0.0:.9g}"
    return str(value)


def read_csv(path: str | Path) -> list[Verdict]:
    """Read a table that `to_csv` wrote.

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
    if found != names:
        raise ValueError(
            f"read_csv: {path} has columns {found}, expected {names}. Was it written by another "
            "version of pcsim? Run the experiment again."
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
        text = row[item.name]
        kind = str(item.type)
        if item.name == "verdict":
            values[item.name] = Outcome(text)
        elif item.name == "seeds":
            values[item.name] = tuple(int(part) for part in text.split())
        elif kind == "int":
            values[item.name] = int(text)
        elif kind.startswith("float"):
            values[item.name] = float(text) if text else None
        else:
            values[item.name] = text
    return Verdict(**values)  # type: ignore[arg-type]


def _number(value: float) -> str:
    # What rounding leaves of 0 is said to be 0.
    return f"{value if abs(value) > 1e-12 else 0.0:.3g}"


def _text(effect: Effect) -> str:
    return f"{_number(effect.value)} [{_number(effect.low)}, {_number(effect.high)}]"
