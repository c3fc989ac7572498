r"""Hierarchical bootstrap: replicas, then their units, then the stimuli they saw.

The unit of replication is the trained network (the replica). One bootstrap draw takes as many
replicas as there are, with replacement; inside each drawn replica it takes units and stimuli with
replacement, crossed: one set of stimulus weights holds for all units of that replica in that draw.
What is averaged is fixed beforehand (the inclusion rule); nothing here drops a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from pcsim.messages import check_array, check_choice, check_integer, check_number, refusal

__all__ = [
    "Bootstrap",
    "Sample",
    "bootstrap_p",
    "hierarchical_bootstrap",
    "interval",
    "resampling_weights",
]

Floats = NDArray[np.float64]
Combine = Callable[[Mapping[str, Floats]], Any]

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
        return Bootstrap(
            self.estimate - other.estimate,
            self.draws - other.draws,
            self.replicas - other.replicas,
        )


def hierarchical_bootstrap(
    samples: Sequence[Sample],
    combine: Combine | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Bootstrap:
    r"""Resample replicas, units inside replicas, and stimuli crossed with units.

    For a plain mean over R replicas of n units, independent at both levels, the variance of the
    draws is :math:`\frac{1}{R}(s^2_R + \overline{s^2_u / n})` with both variances taken as
    population variances.

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

    Returns
    -------
    bootstrap
        Estimate, draws and the value of each replica.

    Raises
    ------
    ValueError
        If there are no samples, their variables differ, or `combine` does not return finite values.

    References
    ----------
    Saravanan, Berman & Sober (2020), Neurons Behav Data Anal Theory 3(5).

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
    values = np.empty(draws * n)
    for index, sample in enumerate(samples):
        slots = np.flatnonzero(drawn == index)
        rngs = [np.random.default_rng([seed, axis, index]) for axis in (1, 2)]
        step = max(1, BLOCK // (sample.n_included + sample.n_stimuli))
        for start in range(0, slots.size, step):
            block = slots[start : start + step]
            means = _resampled_means(sample, block.size, rngs)
            values[block] = _statistic(where, combine, means)
    return Bootstrap(float(replicas.mean()), values.reshape(draws, n).mean(axis=1), replicas)


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


def _resampled_means(
    sample: Sample, n: int, rngs: Sequence[np.random.Generator]
) -> dict[str, Floats]:
    units = resampling_weights(rngs[0], n, sample.n_included)
    stimuli = resampling_weights(rngs[1], n, sample.n_stimuli) if sample.n_stimuli else None
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


def interval(
    draws: Any,
    estimate: float,
    *,
    level: float = 0.95,
    method: str = "percentile",
    jackknife: Any = None,
) -> tuple[float, float]:
    r"""Return a two-sided confidence interval from bootstrap draws.

    "percentile" takes the quantiles of the draws. "bca" shifts and stretches them by the median
    bias :math:`z_0` and the acceleration :math:`a` (a sixth of the skewness of the jackknife):

    .. math:: \alpha_i = \Phi\left(z_0 + \frac{z_0 + z_i}{1 - a(z_0 + z_i)}\right)

    Parameters
    ----------
    draws : (draws,)
    estimate
        The statistic of the data themselves.
    level
        Coverage, between 0 and 1.
    method
        "percentile" or "bca".
    jackknife : (n_replicas,), for "bca"
        The estimate with each replica left out: `Bootstrap.jackknife`.

    Returns
    -------
    low, high

    Raises
    ------
    ValueError
        If BCa lacks the jackknife or the estimate lies outside all draws.

    References
    ----------
    Efron (1987), https://doi.org/10.1080/01621459.1987.10478410

    Examples
    --------
    >>> draws = np.linspace(0.0, 1.0, 1001)
    >>> tuple(round(end, 3) for end in interval(draws, 0.5))
    (0.025, 0.975)
    """
    where = "interval"
    values = check_array(where, "draws", draws, shape=("draws",)).astype(np.float64)
    if values.size == 0:
        raise ValueError(refusal(where, "no draws", "at least one"))
    estimate = check_number(where, "estimate", estimate)
    level = check_number(where, "level", level, low=1e-6, high=1.0 - 1e-6)
    check_choice(where, "method", method, ("percentile", "bca"))
    tails = np.array([0.5 * (1.0 - level), 0.5 * (1.0 + level)])
    if method == "bca":
        tails = _bca_tails(where, values, estimate, tails, jackknife)
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def _bca_tails(where: str, draws: Floats, estimate: float, tails: Floats, jackknife: Any) -> Floats:
    if jackknife is None:
        advice = "Pass jackknife=bootstrap.jackknife, or method='percentile'."
        raise ValueError(refusal(where, "no jackknife", "one for 'bca'", advice))
    left_out = check_array(where, "jackknife", jackknife, shape=("n",)).astype(np.float64)
    if left_out.size < 2:
        found, expected = f"{left_out.size} jackknife values", "at least 2"
        raise ValueError(refusal(where, found, expected, "Use method='percentile'."))
    # Sums in another order differ in the last digits: such draws are ties, and count half.
    tie = np.abs(draws - estimate) <= 1e-12 * max(1.0, abs(estimate))
    below = float(np.mean(np.where(tie, 0.5, draws < estimate)))
    if not 0.0 < below < 1.0:
        found = f"the estimate {estimate:.6g} outside all draws"
        raise ValueError(refusal(where, found, "it among them", "Use method='percentile'."))
    deviation = left_out.mean() - left_out
    scale = float(np.abs(deviation).max())
    acceleration = 0.0
    if scale > 1e-12 * max(1.0, abs(estimate)):
        unit = deviation / scale
        acceleration = float((unit**3).sum() / (6.0 * (unit**2).sum() ** 1.5))
    z = ndtri(below) + ndtri(tails)
    shifted: Floats = ndtr(ndtri(below) + z / (1.0 - acceleration * z))
    return shifted


def bootstrap_p(draws: Any, null: float = 0.0) -> float:
    r"""Return the two-sided p value of `null` from bootstrap draws.

    .. math:: p = \min\left(1, 2\,\frac{1 + \min(\#\{d \le h_0\}, \#\{d \ge h_0\})}{B + 1}\right)

    The added 1 keeps p above zero: B draws cannot show less than 2 / (B + 1).

    Examples
    --------
    >>> bootstrap_p(np.arange(1.0, 100.0))
    0.02
    """
    values = check_array("bootstrap_p", "draws", draws, shape=("draws",))
    null = check_number("bootstrap_p", "null", null)
    if values.size == 0:
        raise ValueError(refusal("bootstrap_p", "no draws", "at least one"))
    fewer = min(int((values <= null).sum()), int((values >= null).sum()))
    return min(1.0, 2.0 * (1 + fewer) / (values.size + 1))
