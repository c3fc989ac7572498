"""Moving a circuit's parts to an array library, and stacking equal circuits into one batch."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from pcsim.declaration import Population, Projection
from pcsim.messages import refusal
from pcsim.weights import Local, PerReplica, is_operator

__all__ = [
    "Parts",
    "fields_of",
    "holds_numbers",
    "move_parts",
    "n_replicas_of",
    "rebuilt",
    "stack_parts",
]

Parts = tuple[tuple[Population, ...], tuple[Projection, ...]]


def move_parts(parts: Parts, to_array: Any) -> Parts:
    """Return the parts with every array in double precision where `to_array` puts it.

    Local and sparse weights stay as they are: the machine moves what it makes of them.
    """
    populations, projections = parts
    moved = []
    for projection in projections:
        weights, sign = projection.weights, _moved(projection.sign, to_array)
        if weights is not None and not is_operator(weights):
            weights = to_array(np.asarray(weights, dtype=np.float64))
        moved.append(dataclasses.replace(projection, weights=weights, sign=sign))
    return tuple(dataclasses.replace(p, kind=_moved(p.kind, to_array)) for p in populations), tuple(
        moved
    )


def _moved(value: Any, to_array: Any) -> Any:
    if isinstance(value, np.ndarray | list | tuple) and np.ndim(value) > 0:
        return to_array(np.asarray(value, dtype=np.float64))
    if isinstance(value, np.number | np.ndarray):
        return float(value)
    if holds_numbers(value):
        return rebuilt(value, {n: _moved(v, to_array) for n, v in fields_of(value).items()})
    return value


def stack_parts(where: str, many: Sequence[Parts]) -> Parts:
    """Return one set of parts whose arrays have a leading replica axis where the circuits differ.

    Numbers become (replica, 1, 1), vectors (replica, 1, n), matrices (replica, n, n), so that they
    broadcast against states (replica, trial, n). What is equal in all is kept as it is.

    Raises
    ------
    ValueError
        If the circuits do not declare the same populations and projections.
    """
    first = many[0]
    for number, other in enumerate(many):
        if (len(first[0]), len(first[1])) != (len(other[0]), len(other[1])):
            found = f"replica {number} with {len(other[0])} populations and {len(other[1])}"
            expected = f"{len(first[0])} and {len(first[1])} as in replica 0"
            raise ValueError(refusal(where, f"{found} projections", expected, _EQUAL))
    populations = [_stacked_part(where, group) for group in zip(*(p[0] for p in many), strict=True)]
    projections = [_stacked_part(where, group) for group in zip(*(p[1] for p in many), strict=True)]
    return tuple(populations), tuple(projections)


_EQUAL = "Replicas may differ in the numbers of their kinds and weights only."


def _stacked_part(where: str, group: tuple[Any, ...]) -> Any:
    """Stack one population or one projection over replicas."""
    own = ("kind",) if isinstance(group[0], Population) else ("weights", "sign")
    for name in (f.name for f in dataclasses.fields(group[0]) if f.name not in own):
        values = [getattr(member, name) for member in group]
        if any(not _same(values[0], value) for value in values[1:]):
            found = f"replicas that differ in {name} of {_title(group[0])}"
            raise ValueError(refusal(where, found, "equal declarations", _EQUAL))
    title = f"{where}, {_title(group[0])}"
    stacked = {name: _stacked(title, name, [getattr(m, name) for m in group]) for name in own}
    return dataclasses.replace(group[0], **stacked)


def _title(part: Any) -> str:
    if isinstance(part, Population):
        return f"population {part.name!r}"
    return f"projection {part.source!r} to {part.target!r}"


def _stacked(where: str, name: str, values: Sequence[Any]) -> Any:
    first = values[0]
    if all(_same(first, value) for value in values[1:]):
        return first
    if all(is_operator(value) and value.shape == first.shape for value in values):
        return PerReplica(tuple(values))
    types = {type(value) for value in values}
    if holds_numbers(first) and len(types) == 1:
        columns = {n: [fields_of(value)[n] for value in values] for n in fields_of(first)}
        return rebuilt(first, {n: _stacked(where, n, column) for n, column in columns.items()})
    if not all(isinstance(value, np.ndarray | list | tuple | float | int) for value in values):
        found = f"replicas that differ in {name}"
        raise ValueError(refusal(where, found, "equal declarations", _EQUAL))
    arrays = [np.asarray(value, dtype=np.float64) for value in values]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1 or any(array.ndim > 2 for array in arrays):
        found = f"{name} of shapes {sorted(shapes)}"
        raise ValueError(refusal(where, found, "one shape in all replicas", _EQUAL))
    stacked = np.stack(arrays)
    return stacked.reshape(len(arrays), *(1,) * (3 - stacked.ndim), *stacked.shape[1:])


def n_replicas_of(
    where: str, projections: Sequence[Projection], stacked: int | None = None
) -> int | None:
    """Return the length of the replica axis, None if there is none.

    Raises
    ------
    ValueError
        If weights of different numbers of replicas meet.
    """
    counts = {p.weights.shape[0] for p in projections if np.ndim(p.weights) == 3}
    counts |= set() if stacked is None else {stacked}
    if len(counts) > 1:
        found = f"weights for {sorted(counts)} replicas"
        raise ValueError(refusal(where, found, "one number of replicas", "Stack equal circuits."))
    return counts.pop() if counts else None


def holds_numbers(value: Any) -> bool:
    """Tell whether `value` is a dataclass of numbers: a kind or a prior, but no function."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return False
    return not any(callable(member) for member in fields_of(value).values())


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def rebuilt(value: Any, fields: dict[str, Any]) -> Any:
    """Return a copy with these fields, past the checks of the constructor: they were made."""
    fresh = copy.copy(value)
    for name, member in fields.items():
        object.__setattr__(fresh, name, member)
    return fresh


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if scipy.sparse.issparse(one) or scipy.sparse.issparse(other):
        both = scipy.sparse.issparse(one) and scipy.sparse.issparse(other)
        return both and one.shape == other.shape and bool((one != other).nnz == 0)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Local) and isinstance(other, Local):
        return all(_same(value, fields_of(other)[name]) for name, value in fields_of(one).items())
    if holds_numbers(one) and type(one) is type(other):
        return all(_same(v, fields_of(other)[n]) for n, v in fields_of(one).items())
    return bool(one == other)
