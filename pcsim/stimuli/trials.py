"""From parameters, each one value or one a trial, to a list of trials."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_array, refusal

__all__ = ["align", "grid", "names_of", "numbers"]

Floats = NDArray[np.floating[Any]]


def grid(**lists: Any) -> dict[str, list[Any]]:
    """Return all combinations of the values as sequences of equal length, the last varying fastest.

    Raises
    ------
    ValueError
        If a list is empty.

    Examples
    --------
    >>> grid(length=[0.2, 0.4], contrast=[-1.0, 1.0], width=0.1)
    {'length': [0.2, 0.2, 0.4, 0.4], 'contrast': [-1.0, 1.0, -1.0, 1.0],
     'width': [0.1, 0.1, 0.1, 0.1]}
    """
    columns = []
    for name, values in lists.items():
        scalar = isinstance(values, str) or np.ndim(values) == 0
        columns.append([values] if scalar else list(values))
        if not columns[-1]:
            raise ValueError(refusal("grid", f"no {name}", "at least one value", "Add one."))
    rows = list(itertools.product(*columns))
    return {name: [row[i] for row in rows] for i, name in enumerate(lists)}


def numbers(
    where: str,
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
) -> Floats:
    """Return one parameter as a (n,) or (1,) array of finite numbers in range, or refuse it.

    Examples
    --------
    >>> numbers("bars", "contrast", [0.5, -2.0], low=-1.0, high=1.0)
    Traceback (most recent call last):
    ValueError: bars: found contrast -2, expected numbers from -1 to 1.
    """
    array = np.asarray(check_array(where, name, value), dtype=np.float64)
    if array.ndim > 1 or array.size == 0:
        found = f"{name} of shape {array.shape}"
        expected = "one number, or one a trial"
        raise ValueError(refusal(where, found, expected, "Give a scalar or a flat list."))
    array = np.atleast_1d(array)
    bad = (array < low) | (array > high) | (array <= above)
    if bad.any():
        limits = [f"from {low:g}"] if low > -math.inf else []
        limits += [f"above {above:g}"] if above > -math.inf else []
        limits += [f"to {high:g}" if low > -math.inf else f"up to {high:g}"] * (high < math.inf)
        raise ValueError(refusal(where, f"{name} {array[bad][0]:g}", f"numbers {' '.join(limits)}"))
    return array


def names_of(where: str, name: str, value: Any) -> NDArray[np.str_]:
    """Return text, one or one a trial, as a (n,) or (1,) array, or refuse it."""
    array = np.atleast_1d(np.asarray(value))
    if array.ndim != 1 or array.size == 0 or array.dtype.kind != "U":
        found = f"{name} {value!r}"[:100]
        raise ValueError(refusal(where, found, "text, one or one a trial", f"Name the {name}."))
    return array


def align(where: str, columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Stretch columns of one value to the length of the others: value i belongs to trial i.

    Raises
    ------
    ValueError
        If two columns are longer than one and differ.

    Examples
    --------
    >>> align("bars", {"length": np.array([1.0, 2.0]), "width": np.array([0.3])})["width"]
    array([0.3, 0.3])
    """
    lengths = {name: column.size for name, column in columns.items() if column.size > 1}
    n = max(lengths.values(), default=1)
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{size} of {name}" for name, size in lengths.items())
        expected = "one value each, or as many as there are trials"
        advice = "Use pcsim.stimuli.grid for all combinations."
        raise ValueError(refusal(where, found, expected, advice))
    return {name: np.broadcast_to(column, (n,)).copy() for name, column in columns.items()}
