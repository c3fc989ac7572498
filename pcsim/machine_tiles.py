"""Large populations in tiles that stay in the cache while their equation is evaluated.

An equation is a dozen passes over its arrays. Over a million units each pass would fetch them from
memory again; over a tile it finds them in the cache. Only populations whose units are not coupled
inside their kind can be cut, and only along trials, replicas and units.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kinds.kind import Array, Arrays
from pcsim.machine_stack import fields_of, holds_numbers, rebuilt

__all__ = ["TILE", "Tile", "tiles_of"]

TILE = 16_384
"""Numbers in a tile: some ten arrays of them fit into 1 MiB."""


@dataclass(frozen=True)
class Tile:
    """Where a tile lies in arrays (..., trial, unit), and the kind with its part of parameters."""

    where: tuple[slice, ...]
    kind: Any

    def part(self, arrays: Arrays) -> dict[str, Array]:
        """Return the part of every array that lies in the tile."""
        return {name: array[self.where] for name, array in arrays.items()}

    def part_of_factors(self, factors: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of factors, numbers or arrays that may be the same in all trials."""
        return {name: self._factor(value) for name, value in factors.items()}

    def _factor(self, value: Any) -> Any:
        if isinstance(value, float | int):
            return value
        trials = self.where[-2] if value.shape[-2] > 1 else slice(None)
        return value[(*self.where[:-2], trials, self.where[-1])]


def tiles_of(kind: Any, batch: Sequence[int], n: int) -> list[Tile]:
    """Return the tiles of a population; none if it is small or its units are coupled.

    Parameters
    ----------
    kind
        Its equation.
    batch
        (trial,) or (replica, trial).
    n
        Number of units.
    """
    if int(np.prod(batch)) * n <= 2 * TILE or not _apart(kind):
        return []
    sizes, blocks = (*batch, n), []
    room = TILE
    for size in reversed(sizes):
        # The last axis first: whole rows if they fit, then as many rows as fit.
        n_parts = -(-size // max(1, room))
        room //= size
        blocks.append(_slices(size, n_parts))
    wheres: list[tuple[slice, ...]] = [()]
    for slices in reversed(blocks):
        wheres = [(*before, one) for before in wheres for one in slices]
    return [Tile(where, _part_of(kind, sizes, where)) for where in wheres]


def _slices(size: int, n_parts: int) -> list[slice]:
    edges = np.linspace(0, size, n_parts + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def _apart(kind: Any) -> bool:
    """Tell whether every unit follows its own inputs only: what Brian 2 can say of one neuron."""
    try:
        return not kind.brian_equations().matrices
    except (NotImplementedError, TypeError, ValueError):
        return False


def _part_of(value: Any, sizes: tuple[int, ...], where: tuple[slice, ...]) -> Any:
    """Return a kind, or a prior in it, with the parameters of these units and replicas."""
    if holds_numbers(value):
        fields = {name: _part_of(v, sizes, where) for name, v in fields_of(value).items()}
        return rebuilt(value, fields)
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value
    axes = zip(value.shape, sizes[-value.ndim :], where[-value.ndim :], strict=True)
    return value[tuple(part if own == size else slice(None) for own, size, part in axes)]
