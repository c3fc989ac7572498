r"""Hierarchical bootstrap: replicas, then their units, then the stimuli they saw.

The unit of replication is the trained network (the replica). One bootstrap draw takes as many
replicas as there are, with replacement; inside each drawn replica it takes units and stimuli with
replacement, crossed: one set of stimulus weights holds for all units of that replica in that draw.
Units or stimuli that are the same in every replica are drawn once for all of them: crossed with
replicas. What is averaged is fixed beforehand (the inclusion rule); nothing here drops a value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.messages import check_array, check_choice, check_integer, refusal

__all__ = [
    "SHAREABLE",
    "Bootstrap",
    "Sample",
    "hierarchical_bootstrap",
    "pseudo_values",
    "resampling_weights",
]

Floats = NDArray[np.float64]
Combine = Callable[[Mapping[str, Floats]], Any]

SHAREABLE = ("unit", "stimulus")
"""Dimensions whose members can be the same in every replica."""

# Entries of the largest temporary array: 2e6 floats are 16 MB.
BLOCK = 2_000_000


@dataclass(frozen=True)
class Sample:
    """What one replica contributes: every variable for every included unit.

    Raises
    ------
    ValueError
        If there is no variable, no unit, a number that is not finite, or sizes that disagree.

    Examples
    --------
    >>> Sample({"peak": [2.0, 3.5], "share": [[0.1, 0.4], [0.2, 0.7]]}, n_total=5).n_included
    2
    """

    values: Mapping[str, Floats]
    """Variable name -> (n_unit,) or (n_unit, n_stimulus)."""
    n_total: int | None = None
    """Units before the inclusion rule; None means as many as there are."""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(refusal("Sample", "no variables", "at least one"))
        arrays = {name: _variable(name, value) for name, value in self.values.items()}
        for axis, what in ((0, "units"), (1, "stimuli")):
            sizes = {name: a.shape[axis] for name, a in arrays.items() if a.ndim > axis}
            if len(set(sizes.values())) > 1:
                found, expected = f"{what} {sizes}", f"the same number of {what} in all variables"
                raise ValueError(refusal("Sample", found, expected, "Include the same in all."))
        object.__setattr__(self, "values", arrays)
        total = self.n_included if self.n_total is None else self.n_total
        total = check_integer("Sample", "n_total", total, low=self.n_included)
        object.__setattr__(self, "n_total", total)

    @property
    def n_included(self) -> int:
        """Units that passed the inclusion rule."""
        return int(next(iter(self.values.values())).shape[0])

    @property
    def n_stimuli(self) -> int:
        """Stimuli of the variables that have a stimulus axis; 0 if none has."""
        return max((a.shape[1] for a in self.values.values() if a.ndim == 2), default=0)


def _variable(name: str, value: Any) -> Floats:
    array = check_array("Sample", name, value).astype(np.float64)
    if array.ndim not in (1, 2) or array.size == 0:
        expected = "(n_unit,) or (n_unit, n_stimulus) with at least one unit"
        advice = "If no unit passed the inclusion rule, leave this replica out."
        raise ValueError(refusal("Sample", f"{name} of shape {array.shape}", expected, advice))
    return array


@dataclass(frozen=True)
class Bootstrap:
    """The draws of a statistic with its estimate.

    Differences of two of them (model minus control) are taken draw by draw and replica by replica.
    """

    estimate: float
    """Mean over replicas of the statistic."""
    draws: Floats
    """(draws,), the statistic of each resampled data set."""
    replicas: Floats
    """(n_replicas,), the statistic of each replica as it is."""
    shared: tuple[Floats, ...] = ()
    """(n_members,) for each dimension shared by the replicas: `pseudo_values` of the estimate."""

    @property
    def jackknife(self) -> Floats:
        """(n_replicas,), the estimate with each replica left out in turn."""
        n = self.replicas.size
        if n < 2:
            found, expected = f"{n} replica", "at least 2 replicas"
            raise ValueError(refusal("Bootstrap.jackknife", found, expected, "Add seeds."))
        left_out: Floats = (self.replicas.sum() - self.replicas) / (n - 1)
        return left_out

    def __sub__(self, other: Bootstrap) -> Bootstrap:
        """Return the paired difference."""
        if self.draws.shape != other.draws.shape or self.replicas.shape != other.replicas.shape:
            found = (
                f"{self.replicas.size} replicas and {self.draws.size} draws against "
                f"{other.replicas.size} and {other.draws.size}"
            )
            expected = "as many of both on either side"
            raise ValueError(refusal("Bootstrap", found, expected, "Pair them by replica."))
        members = [tuple(one.size for one in side.shared) for side in (self, other)]
        if members[0] != members[1]:
            found = f"shared members {members[0]} against {members[1]}"
            advice = "Share the same units and stimuli on both sides."
            raise ValueError(refusal("Bootstrap", found, "the same on either side", advice))
        return Bootstrap(
            self.estimate - other.estimate,
            self.draws - other.draws,
            self.replicas - other.replicas,
            tuple(a - b for a, b in zip(self.shared, other.shared, strict=True)),
        )


def hierarchical_bootstrap(
    samples: Sequence[Sample],
    combine: Combine | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
    shared: Collection[str] = (),
) -> Bootstrap:
    r"""Resample replicas, units inside replicas, and stimuli crossed with units.

    For a plain mean over R replicas of n units, independent at both levels, the variance of the
    draws is :math:`\frac{1}{R}(s^2_R + \overline{s^2_u / n})` with both variances taken as
    population variances. With shared units it is :math:`\frac{s^2_R}{R} + \frac{s^2_u}{n} +
    \frac{s^2_{Ru}}{Rn}`, the population variances of replica means, of unit means and of what is
    left of the table without both (docs/statistics.md).

    Parameters
    ----------
    samples
        One a replica, all with the same variables. Model and control handed over in the same order
        of replicas share their resampling of replicas.
    combine
        Takes the mean of every variable, a mapping name -> (n,) of one value a resampled replica,
        and returns the (n,) values of the statistic. None: the mean of the one variable there is.
    draws, seed
        How many, and from which seed. Which replicas a draw takes depends on `seed`, the number of
        replicas and `draws` alone; equal samples give equal draws.
    shared
        Which of "unit" and "stimulus" have the same members, in the same order, in every replica:
        one resampling of them serves all replicas of a draw. What no variable has is passed over.

    Returns
    -------
    bootstrap
        Estimate, draws, the value of each replica, and pseudo-values of shared members.

    Raises
    ------
    ValueError
        If there are no samples, their variables differ, replicas have different numbers of shared
        members, or `combine` does not return finite values.

    References
    ----------
    Saravanan, Berman & Sober (2020), Neurons Behav Data Anal Theory 3(5).
    Shared members: Owen (2007), https://doi.org/10.1214/07-AOAS122 (the pigeonhole bootstrap).

    Examples
    --------
    >>> samples = [Sample({"peak": [2.0, 3.0], "plateau": [1.0, 1.2]}),
    ...            Sample({"peak": [4.0, 5.0], "plateau": [1.5, 1.8]})]
    >>> result = hierarchical_bootstrap(samples, lambda m: 1.0 - m["plateau"] / m["peak"], seed=1)
    >>> round(result.estimate, 3), result.draws.shape, result.replicas.round(3)
    (0.597, (10000,), array([0.56 , 0.633]))
    """
    where = "hierarchical_bootstrap"
    draws = check_integer(where, "draws", draws, low=1)
    seed = check_integer(where, "seed", seed)
    samples = _checked(where, samples, combine)
    whole = [{name: np.atleast_1d(a.mean()) for name, a in s.values.items()} for s in samples]
    replicas = np.concatenate([_statistic(where, combine, means) for means in whole])
    n = len(samples)
    drawn = np.random.default_rng([seed, 0]).integers(0, n, (draws, n))
    common = _common(where, samples, shared)
    if common:
        values = _crossed(samples, combine, drawn, seed, common)
    else:
        values = _nested(samples, combine, drawn, seed)
    return Bootstrap(
        float(replicas.mean()),
        values.reshape(draws, n).mean(axis=1),
        replicas,
        tuple(pseudo_values(samples, combine, name) for name in common),
    )


def _common(where: str, samples: Sequence[Sample], shared: Collection[str]) -> dict[str, int]:
    """Return the shared dimensions that the samples have, with the number of their members."""
    common = {}
    for name in SHAREABLE:
        sizes = [s.n_included if name == "unit" else s.n_stimuli for s in samples]
        if name in shared and any(sizes):
            if len(set(sizes)) > 1:
                found = f"{sizes} members of '{name}', which the replicas share"
                advice = "Leave a member out of all replicas or of none."
                raise ValueError(refusal(where, found, "as many in every replica", advice))
            common[name] = sizes[0]
    for name in shared:
        check_choice(where, "shared", name, SHAREABLE)
    return common


def _nested(
    samples: Sequence[Sample],
    combine: Combine | None,
    drawn: NDArray[np.int64],
    seed: int,
) -> Floats:
    """Return the statistic of every drawn replica, each with units and stimuli of its own."""
    values = np.empty(drawn.size)
    for index, sample in enumerate(samples):
        slots = np.flatnonzero(drawn == index)
        rngs = _own_streams(seed, index)
        step = max(1, BLOCK // (sample.n_included + sample.n_stimuli))
        for start in range(0, slots.size, step):
            block = slots[start : start + step]
            means = _weighted_means(sample, _weights(sample, block.size, rngs))
            values[block] = _statistic("hierarchical_bootstrap", combine, means)
    return values


def _crossed(
    samples: Sequence[Sample],
    combine: Combine | None,
    drawn: NDArray[np.int64],
    seed: int,
    common: Mapping[str, int],
) -> Floats:
    """Return the same where the members of `common` are drawn once a draw, for all replicas."""
    values = np.empty(drawn.shape)
    own = [_own_streams(seed, index) for index in range(len(samples))]
    streams = {name: np.random.default_rng([seed, 3 + SHAREABLE.index(name)]) for name in common}
    step = max(1, BLOCK // (len(samples) * max(s.n_included + s.n_stimuli for s in samples)))
    for start in range(0, len(drawn), step):
        block = drawn[start : start + step]
        once = {k: resampling_weights(streams[k], len(block), n) for k, n in common.items()}
        for index, sample in enumerate(samples):
            rows, places = np.nonzero(block == index)
            if rows.size:
                fixed = {name: weights[rows] for name, weights in once.items()}
                means = _weighted_means(sample, _weights(sample, rows.size, own[index], fixed))
                found = _statistic("hierarchical_bootstrap", combine, means)
                values[start + rows, places] = found
    return values


def pseudo_values(samples: Sequence[Sample], combine: Combine | None, name: str) -> Floats:
    r"""Return jackknife pseudo-values :math:`m\hat\theta - (m-1)\hat\theta_{(-j)}`, (m,).

    Member j of a shared dimension is left out of all replicas at once. For a plain mean they are
    the means of the members over replicas. One member alone gives the estimate itself.
    """
    total = np.zeros(1)
    for sample in samples:
        m = sample.n_included if name == "unit" else sample.n_stimuli
        full = {key: np.atleast_1d(value.mean()) for key, value in sample.values.items()}
        left_out = {key: _left_out(value, name, m) for key, value in sample.values.items()}
        estimate, without = (_statistic("pseudo_values", combine, one) for one in (full, left_out))
        total = total + m * estimate - (m - 1) * without
    return total / len(samples)


def _left_out(value: Floats, name: str, m: int) -> Floats:
    """Return the (m,) means of a variable without each member in turn."""
    table = value if value.ndim == 2 else value[:, None]
    line = np.broadcast_to(table.mean(axis=1 - SHAREABLE.index(name)), (m,))
    return (line.sum() - line) / (m - 1) if m > 1 else line


def _checked(where: str, samples: Sequence[Sample], combine: Combine | None) -> list[Sample]:
    if not isinstance(samples, Iterable) or isinstance(samples, Mapping | str):
        raise TypeError(refusal(where, f"a {type(samples).__name__}", "a list of Samples"))
    samples = list(samples)
    if not samples:
        raise ValueError(refusal(where, "no samples", "one a replica"))
    for sample in samples:
        if not isinstance(sample, Sample):
            raise TypeError(refusal(where, f"a {type(sample).__name__}", "a Sample a replica"))
    names = set(samples[0].values)
    for sample in samples:
        if set(sample.values) != names:
            found = f"variables {sorted(names)} and {sorted(sample.values)}"
            raise ValueError(refusal(where, found, "the same variables in every replica"))
    if combine is None and len(names) > 1:
        found, advice = f"variables {sorted(names)} and no combine", "Say how to combine them."
        raise ValueError(refusal(where, found, "one variable", advice))
    return samples


def _own_streams(seed: int, index: int) -> list[np.random.Generator]:
    """Return the streams of units and of stimuli of one replica."""
    return [np.random.default_rng([seed, axis, index]) for axis in (1, 2)]


def _weights(
    sample: Sample,
    n: int,
    rngs: Sequence[np.random.Generator],
    fixed: Mapping[str, Floats] = MappingProxyType({}),
) -> tuple[Floats, Floats | None]:
    """Return weights (n, members) of units and of stimuli, drawn unless they are `fixed`."""
    units = fixed.get("unit")
    stimuli = fixed.get("stimulus")
    if units is None:
        units = resampling_weights(rngs[0], n, sample.n_included)
    if stimuli is None and sample.n_stimuli:
        stimuli = resampling_weights(rngs[1], n, sample.n_stimuli)
    return units, stimuli


def _weighted_means(sample: Sample, weights: tuple[Floats, Floats | None]) -> dict[str, Floats]:
    units, stimuli = weights
    means = {}
    for name, value in sample.values.items():
        over_units = units @ value / sample.n_included
        if stimuli is not None and value.ndim == 2:
            over_units = np.einsum("ks,ks->k", over_units, stimuli) / sample.n_stimuli
        means[name] = over_units
    return means


def resampling_weights(rng: np.random.Generator, n: int, size: int) -> Floats:
    """Return (n, size) multinomial counts: how often each of `size` items was drawn."""
    picked = rng.integers(0, size, (n, size)) + size * np.arange(n)[:, None]
    return np.bincount(picked.ravel(), minlength=n * size).reshape(n, size).astype(np.float64)


def _statistic(where: str, combine: Combine | None, means: Mapping[str, Floats]) -> Floats:
    if combine is None:
        return next(iter(means.values()))
    expected = next(iter(means.values())).shape
    # A quotient that fails is reported below with what to do, not as a floating-point warning.
    with np.errstate(all="ignore"):
        value = np.asarray(combine(means), dtype=np.float64)
    if value.shape != expected:
        found = f"combine returning shape {value.shape}"
        advice = "It takes arrays with one mean a draw and must work on all draws at once."
        raise ValueError(refusal(where, found, f"shape {expected}", advice))
    if not np.isfinite(value).all():
        found = f"combine returning {int((~np.isfinite(value)).sum())} values NaN or infinite"
        advice = "A denominator may reach 0 in some draws: take the quotient unit by unit instead."
        raise ValueError(refusal(where, found, "finite values", advice))
    return value
