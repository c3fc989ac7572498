"""Two inferences under one decoder, paired by seed: tables of a measure and of its difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcsim.stats import mean_interval

__all__ = ["Paired", "paired"]


@dataclass(frozen=True)
class Paired:
    """A measure of two arms over seeds, and the first minus the second."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    difference: float
    low: float
    high: float

    @property
    def row(self) -> str:
        """Means, difference, its interval and the number of seeds, comma-separated."""
        numbers = (
            float(np.mean(self.first)), float(np.mean(self.second)), self.difference, self.low,
            self.high,
        )  # fmt: skip
        text = ",".join("" if math.isnan(one) else f"{one:.4g}" for one in numbers)
        return f"{text},{len(self.first)}"

    @property
    def verdict(self) -> str:
        """What the interval says of "the first is larger"."""
        if math.isnan(self.low) or self.low <= 0 <= self.high:
            return "undecided"
        return "as published" if self.low > 0 else "the other way"


def paired(values: Mapping[str, Sequence[float]], first: str, second: str) -> Paired:
    """Pair two arms seed by seed; of a single seed there is no interval.

    Examples
    --------
    >>> paired({"direct": [3.0, 5.0, 4.0], "iterative": [2.0, 2.0, 2.0]}, "direct", "iterative").row
    '4,2,2,-0.4841,4.484,3'
    """
    a, b = tuple(values[first]), tuple(values[second])
    if len(a) == len(b) == 1:
        return Paired(a, b, a[0] - b[0], math.nan, math.nan)
    return Paired(a, b, *mean_interval([x - y for x, y in zip(a, b, strict=True)])[:3])
