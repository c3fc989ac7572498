"""The verdict rule: an effect, its controls, its further falsifiers and its reference, to one word.

The rule is the battery's and is the same code for every hypothesis. It sees numbers only: the
effect and its interval, the same for every control and for the paired difference, the further
requirements, the reference. Nothing here knows what a circuit is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "IS_CONTROL",
    "ControlResult",
    "Effect",
    "Outcome",
    "RequirementResult",
    "decide",
    "short",
]

IS_CONTROL = "this model is the control"
"""Words of the reason of a column that shows the effect and is a control of the claim."""

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
        return f"The effect {_text(effect)} lies on the wrong side of {short(null)}."
    if rope is not None and rope[0] <= effect.low and effect.high <= rope[1]:
        span = f"[{short(rope[0])}, {short(rope[1])}]"
        return f"The effect {_text(effect)} lies wholly in {span}, practically none."
    for one in requirements:
        if one.effect.towards(one.null, one.direction).high < 0:
            found = _text(one.effect)
            return f"'{one.name}' fails: {found} lies on the wrong side of {short(one.null)}."
    return ""


def _absent(
    effect: Effect, requirements: Sequence[RequirementResult], null: float, direction: int
) -> str:
    if not effect.towards(null, direction).low > 0:
        return f"The interval of the effect {_text(effect)} includes {short(null)}."
    for one in requirements:
        if not one.effect.towards(one.null, one.direction).low > 0:
            found = _text(one.effect)
            return f"'{one.name}' is open: {found} includes {short(one.null)}."
    return ""


def _shown_by_control(
    effect: Effect, controls: Sequence[ControlResult], null: float, direction: int
) -> str:
    """Say which control shows at least half of the effect; the strongest is named."""
    size = effect.towards(null, direction).value
    for one in controls:
        if one.itself:
            return (
                f"The effect {_text(effect)} is there, but {IS_CONTROL} '{one.name}': evidence "
                "about the control, never for the claim."
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
    span = f"[{short(low)}, {short(high)}]"
    if low <= effect.value <= high:
        return Outcome.SUPPORTED, f"{beyond}; it lies in the reference interval {span}."
    miss = low - effect.value if effect.value < low else effect.value - high
    return Outcome.QUALITATIVE, f"{beyond}; it misses the reference {span} by {short(miss)}."


def short(value: float) -> str:
    """Return a number to three digits."""
    # What rounding leaves of 0 is said to be 0.
    return f"{value if abs(value) > 1e-12 else 0.0:.3g}"


def _text(effect: Effect) -> str:
    return f"{short(effect.value)} [{short(effect.low)}, {short(effect.high)}]"
