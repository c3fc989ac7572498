"""What ``--set name=value`` means."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from pcsim.messages import refusal

__all__ = ["fitted", "pairs"]


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value``: a Python value if it is one, names after commas, or text.

    Examples
    --------
    >>> pairs(["contrast=0.5", "sparse=False", "models=RB,LN", "kind=zca"])
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
        parts = [part.strip() for part in text.split(",")]
        return tuple(parts) if len(parts) > 1 else text


def fitted(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Make one value a sequence of one where the default is a sequence."""
    return {
        name: (value,)
        if isinstance(defaults.get(name), tuple | list) and not isinstance(value, tuple | list)
        else value
        for name, value in settings.items()
    }
