"""What ``--set name=value`` means."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

from pcsim.messages import refusal

__all__ = ["check_kind", "fitted", "pairs"]

WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None}
"""Words that are read in any case, because the text 'false' would count as true."""


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value``: a Python value if it is one, names after commas, or text.

    Examples
    --------
    >>> pairs(["contrast=0.5", "sparse=false", "models=RB,LN", "kind=zca"])
    {'contrast': 0.5, 'sparse': False, 'models': ('RB', 'LN'), 'kind': 'zca'}
    """
    found: dict[str, Any] = {}
    for one in given:
        name, sign, text = one.partition("=")
        if not sign or not name.strip() or not text.strip():
            raise ValueError(refusal("--set", repr(one), "name=value", "Try --set contrast=0.5."))
        found[name.strip()] = _value(text.strip())
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        parts = [_word(part.strip()) for part in text.split(",")]
        return tuple(parts) if len(parts) > 1 else parts[0]


def _word(text: str) -> Any:
    return WORDS.get(text.lower(), text)


def check_kind(name: str, value: Any, default: Any) -> None:
    """Refuse text for a setting that is a number or true or false.

    Raises
    ------
    ValueError
        If it is text all the same.
    """
    if isinstance(value, str) and isinstance(default, Number):
        expected = "true or false" if isinstance(default, bool) else f"a number such as {default}"
        raise ValueError(refusal("--set", f"{name}={value}", expected))


def fitted(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Make one value a sequence of one where the default is a sequence.

    Raises
    ------
    ValueError
        If a value is text where the default is a number, or true or false.
    """
    for name, value in settings.items():
        check_kind(name, value, defaults.get(name))
    return {
        name: (value,)
        if isinstance(defaults.get(name), tuple | list) and not isinstance(value, tuple | list)
        else value
        for name, value in settings.items()
    }
