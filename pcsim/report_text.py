"""How numbers and names read on the page and in its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcsim.verdict import Verdict

__all__ = ["ROUNDING", "expected", "miss", "number", "p_value", "plain", "slug", "span"]

ROUNDING = 1e-12
"""Numbers below are shown as 0: they are what rounding leaves of it."""


def slug(name: str) -> str:
    """Return a name as an HTML id or class.

    Examples
    --------
    >>> slug("N/A"), slug("H10-RB-cut")
    ('n-a', 'h10-rb-cut')
    """
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def number(value: float | None) -> str:
    """Return a number to three digits with a true minus sign; a dash for none.

    Examples
    --------
    >>> number(-0.03214), number(None), number(-5.5e-17)
    ('\N{MINUS SIGN}0.0321', '\N{EN DASH}', '0')
    """
    if value is None:
        return "\N{EN DASH}"
    if abs(value) < ROUNDING:
        return "0"
    return f"{value + 0.0:.3g}".replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")


def span(low: float | None, high: float | None) -> str:
    """Return an interval; nothing for none."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def miss(row: Verdict) -> str:
    """Return how far an effect lies from the published interval; nothing where there is none.

    Examples
    --------
    >>> row = {"hypothesis": "H1", "version": 1, "family": "V1", "model": "A", "effect": 0.5}
    >>> miss(Verdict(**row, verdict="QUALITATIVE", reference_low=0.7, reference_high=0.9))
    '0.2 below the published [0.7, 0.9].'
    """
    low, high = row.reference_low, row.reference_high
    if row.effect is None or low is None or high is None:
        return ""
    published = f"the published {span(low, high)}."
    if row.effect < low:
        return f"{number(low - row.effect)} below {published}"
    if row.effect > high:
        return f"{number(row.effect - high)} above {published}"
    return f"Within {published}"


def p_value(value: float | None) -> str:
    """Return a p value to three decimals.

    Examples
    --------
    >>> p_value(0.0002), p_value(0.0417)
    ('< 0.001', '0.042')
    """
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def expected(mark: str) -> str:
    """Return an a-priori mark with its meaning.

    Examples
    --------
    >>> expected("+"), expected("")
    ('+ pass', 'not stated')
    """
    words = {"+": "+ pass", "-": "\N{MINUS SIGN} fail", "?": "? open", ".": "not applicable"}
    return words.get(mark, mark) or "not stated"


def plain(value: Any) -> str:
    """Return a value of a record as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
