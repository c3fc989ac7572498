"""Numbers of a protocol at both scales, as its text gives them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["by_scale"]


def by_scale(numbers: Mapping[str, object], what: str = "") -> str:
    """Return how many at scale quick and how many at full, so that no text says otherwise.

    Examples
    --------
    >>> by_scale({"quick": 24, "full": 64}, "units")
    '24 units (full: 64)'
    """
    few = f"{numbers['quick']} {what}".rstrip()
    return f"{few} (full: {numbers['full']})"
