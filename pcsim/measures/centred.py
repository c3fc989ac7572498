"""What varies and what does not, in spite of rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["centred", "is_still"]

Floats = NDArray[np.float64]

ROUNDING = 1e-14
"""Span of values, relative to the largest, up to which they are one number and its rounding."""


def is_still(x: Floats, axis: int = -1) -> NDArray[np.bool_]:
    """Return where values along an axis (kept, with length 1) are all the same.

    Examples
    --------
    >>> is_still(np.array([[0.1, 0.1, 0.1], [0.1, 0.2, 0.1]]))
    array([[ True],
           [False]])
    """
    span: Any = np.ptp(x, axis=axis, keepdims=True)
    return np.asarray(span <= ROUNDING * np.abs(x).max(axis=axis, keepdims=True))


def centred(x: Floats, axis: int = -1) -> Floats:
    """Return values less their mean along an axis: exactly 0 where they are all the same.

    What rounding leaves of a constant would pass for a pattern.

    Examples
    --------
    >>> centred(np.full((1, 3), 0.1))
    array([[0., 0., 0.]])
    """
    return np.where(is_still(x, axis), 0.0, x - x.mean(axis=axis, keepdims=True))
