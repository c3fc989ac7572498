"""Whether a verdict is what was expected before the first run."""

from __future__ import annotations

from collections.abc import Iterable

from pcsim.verdict import Outcome, Verdict

__all__ = ["FAILS", "PASSES", "agreement", "agreement_counts"]

PASSES = (Outcome.SUPPORTED, Outcome.QUALITATIVE)
"""The effect is there and the controls fail."""
FAILS = (Outcome.NON_SPECIFIC, Outcome.REFUTED)
"""The effect is not there, or shows in a control as well."""


def agreement(expectation: str, verdict: str) -> str:
    """Return "kept" or "against", "undecided" if inconclusive, "" where nothing was foretold.

    Nothing was foretold if the mark is neither "+" nor "-", or the verdict is N/A.

    Examples
    --------
    >>> agreement("+", "QUALITATIVE"), agreement("+", "NON-SPECIFIC"), agreement("-", "REFUTED")
    ('kept', 'against', 'kept')
    >>> agreement("-", "INCONCLUSIVE"), agreement("?", "SUPPORTED"), agreement("+", "N/A")
    ('undecided', '', '')
    """
    outcome = Outcome(verdict)
    if expectation not in ("+", "-") or outcome == Outcome.NA:
        return ""
    if outcome == Outcome.INCONCLUSIVE:
        return "undecided"
    return "kept" if (outcome in PASSES) == (expectation == "+") else "against"


def agreement_counts(verdicts: Iterable[Verdict]) -> dict[str, dict[str, int]]:
    """Return expectation -> verdict -> number of cells, for the marks "+", "-" and "?".

    Examples
    --------
    >>> one = Verdict(hypothesis="H1", version=1, family="V1", model="A", verdict=Outcome.REFUTED,
    ...               expectation="+")
    >>> {k: n for k, n in agreement_counts([one])["+"].items() if n}
    {'REFUTED': 1}
    """
    counts = {mark: {str(one): 0 for one in Outcome} for mark in ("+", "-", "?")}
    for one in verdicts:
        if one.expectation in counts:
            counts[one.expectation][str(one.verdict)] += 1
    return counts
