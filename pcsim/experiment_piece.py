"""A piece of an experiment: one task, run once, that fills one folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pcsim.messages import refusal

__all__ = ["Piece", "in_parts"]

KEY = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)*")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One task and what it is given: ``task(folder, needs, **kwargs)`` fills its folder."""

    key: str
    """Slash-separated, unique in the run: "observe/H10/RB/0"."""
    task: Callable[..., None]
    """At the top level of a file, so that another process finds it."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Plain values: they travel to another process and into the fingerprint."""
    needs: tuple[str, ...] = ()
    """Keys of pieces whose folders the task reads."""
    sources: tuple[str, ...] = ()
    """Files outside pcsim whose text the result depends on."""
    weight: float = 1.0
    """Expected cost; heavy pieces start first."""

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            expected = "letters, digits, _ . + - and single slashes"
            raise ValueError(refusal("Piece", f"key {self.key!r}", expected, "Rename it."))


def in_parts(piece: Piece, n_parts: int) -> list[Piece]:
    """Return a piece cut into parts that follow one another, "<key>/1" first.

    Each is given ``part=(which, of how many)`` and needs the one before, and the first whatever the
    piece needs; the weight is that of one part.

    Examples
    --------
    >>> [(one.key, one.needs) for one in in_parts(Piece(key="train", task=print), 2)]
    [('train/1', ()), ('train/2', ('train/1',))]
    """
    return [
        replace(
            piece,
            key=f"{piece.key}/{part}",
            kwargs={**piece.kwargs, "part": (part, n_parts)},
            needs=(f"{piece.key}/{part - 1}",) if part > 1 else piece.needs,
        )
        for part in range(1, n_parts + 1)
    ]
