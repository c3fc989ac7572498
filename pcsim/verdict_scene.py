"""Simulated evidence for any hypothesis, in which the truth is known.

Nothing of a hypothesis is known here but its variables, its statistics (functions of the variables'
means) and where their nulls lie. A *scene* is a point of the variables at which every statistic has
a chosen value, and a line through it along which one statistic alone moves. Replicas lie on
that line so that the statistic of replica r is exactly ``truth + noise_r``, and its units scatter
on the line around it. So the statistic of the population of replicas is `truth`, however
crooked the function is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcsim.hypothesis_claim import Hypothesis
from pcsim.hypothesis_parts import Combine
from pcsim.messages import check_choice, refusal

__all__ = [
    "NOISES",
    "Line",
    "Wanted",
    "constant",
    "effect_size",
    "find_point",
    "line_through",
    "noise",
    "scatter",
]

Floats = NDArray[np.float64]
Point = dict[str, float]

SKEW = 2.0
"""Shape of the gamma variable behind skewed noise: skewness sqrt(2) = 1.41."""
DEGREES = 3
"""Of freedom of heavy-tailed noise (Student's t)."""
NOISES = ("normal", "heavy", "skew towards", "skew away")
CANDIDATES, PARENTS, CHILDREN, ROUNDS = 20_000, 20, 400, 60


@dataclass(frozen=True)
class Wanted:
    """A statistic and what is wanted of it: a value, or to lie beyond one on a side."""

    combine: Combine
    value: float
    side: int = 0
    """0: equal to `value`; +1 above it; -1 below."""
    scale: float = 1.0
    """What counts as a large miss."""


def effect_size(hypothesis: Hypothesis) -> float:
    """Return the distance from the null to the published effect; 1 if neither is known.

    The published value, else the middle of the interval, else ten times the rope.
    """
    h = hypothesis
    value = h.reference.value
    if value is None and h.reference.interval is not None:
        value = 0.5 * sum(h.reference.interval)
    if value is not None and h.direction * (value - h.null) > 0:
        return abs(value - h.null)
    if h.rope is not None:
        return 5.0 * (h.rope[1] - h.rope[0])
    return 0.5


def find_point(names: Sequence[str], wanted: Sequence[Wanted], *, seed: int = 0) -> Point | None:
    """Return a point at which the statistics are as wanted; None if the search finds none.

    A random search over signs and orders of magnitude, then generations around the best points.
    Equal values are met to a hundredth of their scale.
    """
    rng = np.random.default_rng([seed, len(names)])
    points = 10.0 ** rng.uniform(-2.0, 1.0, (CANDIDATES, len(names)))
    points[::2] *= rng.choice([-1.0, 1.0], (CANDIDATES // 2, len(names)))
    points[::5] = rng.uniform(0.0, 1.0, points[::5].shape)
    for generation in range(ROUNDS):
        miss = _miss(names, wanted, points)
        best = points[np.argsort(miss, kind="stable")[:PARENTS]]
        if miss.min() == 0.0 and generation > 0:
            break
        width = 0.5 * 0.8**generation
        step = width * rng.normal(size=(PARENTS, CHILDREN // PARENTS, len(names)))
        step *= rng.random(step.shape) < 0.5
        moved = best[:, None] + step * (np.abs(best[:, None]) + 0.05)
        points = np.concatenate([best, moved.reshape(-1, len(names))])
    if _miss(names, wanted, best[:1])[0] > 1e-4 * len(wanted):
        return None
    return dict(zip(names, best[0].tolist(), strict=True))


def _miss(names: Sequence[str], wanted: Sequence[Wanted], points: Floats) -> Floats:
    means = dict(zip(names, points.T, strict=True))
    total = np.zeros(len(points))
    for one in wanted:
        with np.errstate(all="ignore"):
            found = np.asarray(one.combine(means), dtype=np.float64)
            off = (found - one.value) / one.scale
            off = np.minimum(one.side * off, 0.0) if one.side else off
            total += off**2
    return np.where(np.isfinite(total), total, np.inf)


@dataclass(frozen=True)
class Line:
    """Points of the variables along which a statistic moves, and the way back from its values."""

    start: Point
    direction: Point
    places: Floats
    """Increasing positions on the line."""
    values: Floats
    """The statistic there, strictly monotone."""

    def position(self, statistic: Floats) -> Floats:
        """Return where on the line the statistic has these values."""
        order = 1 if self.values[-1] > self.values[0] else -1
        found: Floats = np.interp(statistic, self.values[::order], self.places[::order])
        return found

    def room(self, value: float) -> float:
        """Return how far the nearer end of the line is from a value."""
        return float(min(self.values.max() - value, value - self.values.min()))

    def covers(self, value: float) -> bool:
        """Whether the statistic reaches a value on the line."""
        return bool(self.values.min() <= value <= self.values.max())


def line_through(
    start: Point, statistics: Sequence[Combine], moving: int, *, reach: float
) -> Line | None:
    """Return the line on which statistic `moving` goes up to `reach` from `start` both ways.

    The direction leaves the other statistics alone to first order. None if the statistic does not
    move, as a count does not.
    """
    slopes = np.array([_gradient(one, start) for one in statistics])
    if not np.isfinite(slopes).all() or not np.abs(slopes[moving]).any():
        return None
    way = np.linalg.pinv(slopes, rcond=1e-8)[:, moving]
    if not np.isclose(slopes[moving] @ way, 1.0, rtol=1e-2):
        way = slopes[moving] / (slopes[moving] @ slopes[moving])
    direction = dict(zip(start, way.tolist(), strict=True))
    places = np.linspace(-1.5 * reach, 1.5 * reach, 6001)
    with np.errstate(all="ignore"):
        values = np.asarray(
            statistics[moving]({k: start[k] + direction[k] * places for k in start}), dtype=float
        )
    stretch = _monotone(values)
    return Line(start, direction, places[stretch], values[stretch])


def _gradient(combine: Combine, point: Point) -> Floats:
    slopes = []
    for name in point:
        step = 1e-5 * (abs(point[name]) + 1e-2)
        ends = {k: np.array([v, v]) for k, v in point.items()}
        ends[name] = ends[name] + np.array([-step, step])
        with np.errstate(all="ignore"):
            low, high = np.asarray(combine(ends), dtype=np.float64)
        slopes.append((high - low) / (2.0 * step))
    return np.array(slopes)


def _monotone(values: Floats) -> slice:
    """Return the longest stretch around the middle on which values are finite and strictly rise."""
    middle = values.size // 2
    steps = np.diff(values)
    same = np.isfinite(steps) & (np.sign(steps) == np.sign(steps[middle])) & (steps != 0.0)
    broken = np.flatnonzero(~same)
    low = int(broken[broken < middle].max(initial=-1)) + 1
    high = int(broken[broken > middle].min(initial=steps.size))
    return slice(low, high + 1)


def noise(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return values with mean 0 and variance 1.

    "heavy" is Student's t with 3 degrees of freedom; "skew towards" and "skew away" are gamma
    variables of skewness 1.41, with the long tail above or below.
    """
    check_choice("noise", "kind", kind, NOISES)
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "heavy":
        drawn: Floats = rng.standard_t(DEGREES, shape) / (DEGREES / (DEGREES - 2.0)) ** 0.5
        return drawn
    skewed: Floats = (rng.gamma(SKEW, size=shape) - SKEW) / SKEW**0.5
    return skewed if kind == "skew towards" else -skewed


def scatter(
    line: Line,
    truth: float,
    *,
    shape: tuple[int, int, int],
    spread: tuple[float, float] | tuple[float, float, float],
    kind: str,
    rng: np.random.Generator,
    direction: int = 1,
) -> Mapping[str, Floats]:
    """Return evidence whose statistic has the population value `truth` over replicas.

    Parameters
    ----------
    line
        Where the evidence lies.
    truth
        Value of the moving statistic in the population of replicas.
    shape
        Data sets, replicas, units.
    spread
        Standard deviation of the statistic of a replica, the share of its variance that lies
        between replicas, and, if given, the share in units that are the same in all replicas; the
        rest comes from its units.
    kind
        Distribution of both, one of `NOISES`.
    rng
    direction
        The predicted side, that "towards" and "away" are about.

    Raises
    ------
    ValueError
        If the line does not reach the truth.
    """
    if not line.covers(truth):
        found = f"a line from {line.values.min():.3g} to {line.values.max():.3g}"
        raise ValueError(refusal("scatter", found, f"one that reaches {truth:.3g}"))
    sets, n, units = shape
    sigma, share, common = (*spread, 0.0)[:3]
    rest = max(1.0 - share - common, 0.0)
    own = direction * noise(kind, shape, rng) * sigma * (rest * units) ** 0.5
    if common > 0.0:
        alike = noise(kind, (sets, 1, units), rng)
        own = own + direction * alike * sigma * (common * units) ** 0.5
    mean = own.mean(axis=2, keepdims=True)
    statistic = truth + sigma * share**0.5 * direction * noise(kind, (sets, n, 1), rng) + mean
    here = line.position(statistic)
    # The units of the line near the truth: what a unit's scatter is worth as a position.
    near = line.position(np.array([truth - 0.1 * sigma, truth + 0.1 * sigma]))
    gain = (near[1] - near[0]) / (0.2 * sigma) if sigma > 0 else 0.0
    positions = here + gain * (own - mean)
    return {name: line.start[name] + line.direction[name] * positions for name in line.start}


def constant(point: Point, n: int) -> Mapping[str, Floats]:
    """Return evidence without any noise: one data set, `n` replicas, one unit."""
    return {name: np.full((1, n, 1), value) for name, value in point.items()}
