"""Whether a verdict is what was expected before the first run, and whether the effect is there."""

from __future__ import annotations

from collections.abc import Iterable

from pcsim.verdict import Outcome, Verdict

__all__ = [
    "CONTROL_COUNTS",
    "FAILS",
    "PASSES",
    "PRESENT",
    "agreement",
    "agreement_counts",
    "counted_as",
    "forest_label",
    "own_controls",
    "presence",
]

PASSES = (Outcome.SUPPORTED, Outcome.QUALITATIVE)
"""The effect is there and the controls fail."""
FAILS = (Outcome.NON_SPECIFIC, Outcome.REFUTED)
"""The effect is not there, or shows in a control as well."""
PRESENT = (*PASSES, Outcome.NON_SPECIFIC)
"""The effect and all that must hold as well are there, whatever the controls show."""
CONTROL_COUNTS = {
    "present": "control: effect there",
    "open": "control: open",
    "absent": "control: no effect",
}
"""How cells of columns that are controls of the claim are counted, by `presence`."""


def presence(verdict: str) -> str:
    """Return whether the effect is "present", "absent" or "open", whatever the controls show.

    It is read off the verdict, which asks for the effect and all requirements before it looks at
    any control. "" for N/A.

    Examples
    --------
    >>> [presence(one) for one in ("QUALITATIVE", "NON-SPECIFIC", "REFUTED", "INCONCLUSIVE")]
    ['present', 'present', 'absent', 'open']
    """
    outcome = Outcome(verdict)
    if outcome == Outcome.NA:
        return ""
    if outcome == Outcome.INCONCLUSIVE:
        return "open"
    return "present" if outcome in PRESENT else "absent"


def agreement(expectation: str, verdict: str, *, itself: bool = False) -> str:
    """Return "kept" or "against", "undecided" if inconclusive, "" where nothing was foretold.

    Nothing was foretold if the mark is neither "+" nor "-", or the verdict is N/A. A column that is
    a control of the claim (`itself`) cannot pass; what was foretold of it is its effect.

    Examples
    --------
    >>> agreement("+", "QUALITATIVE"), agreement("+", "NON-SPECIFIC"), agreement("-", "REFUTED")
    ('kept', 'against', 'kept')
    >>> agreement("-", "INCONCLUSIVE"), agreement("?", "SUPPORTED"), agreement("+", "N/A")
    ('undecided', '', '')
    >>> [agreement(mark, "NON-SPECIFIC", itself=True) for mark in "+-"]
    ['kept', 'against']
    """
    outcome = Outcome(verdict)
    if expectation not in ("+", "-") or outcome == Outcome.NA:
        return ""
    if outcome == Outcome.INCONCLUSIVE:
        return "undecided"
    return (
        "kept"
        if (outcome in (PRESENT if itself else PASSES)) == (expectation == "+")
        else "against"
    )


def own_controls(verdicts: Iterable[Verdict]) -> set[tuple[str, str]]:
    """Return (hypothesis, model) of the measured cells whose column is a control of the claim."""
    return {
        (one.hypothesis, one.model) for one in verdicts if one.itself and one.verdict != Outcome.NA
    }


def forest_label(one: Verdict) -> str:
    """Return the name of a row in a drawing of effects; a control of the claim says so."""
    return f"{one.model} (control)" if one.itself else one.model


def counted_as(one: Verdict) -> str:
    """Return the verdict, or where the column is a control of the claim its entry there."""
    found = presence(one.verdict) if one.itself else ""
    return CONTROL_COUNTS.get(found, str(one.verdict))


def agreement_counts(verdicts: Iterable[Verdict]) -> dict[str, dict[str, int]]:
    """Return expectation -> verdict -> number of cells, for the marks "+", "-" and "?".

    Cells of columns that are controls of the claim are counted apart, under `CONTROL_COUNTS`.

    Examples
    --------
    >>> one = Verdict(hypothesis="H1", version=1, family="V1", model="A", verdict=Outcome.REFUTED,
    ...               expectation="+")
    >>> {k: n for k, n in agreement_counts([one])["+"].items() if n}
    {'REFUTED': 1}
    """
    names = [*(str(one) for one in Outcome), *CONTROL_COUNTS.values()]
    counts = {mark: dict.fromkeys(names, 0) for mark in ("+", "-", "?")}
    for one in verdicts:
        if one.expectation in counts:
            counts[one.expectation][counted_as(one)] += 1
    return counts
