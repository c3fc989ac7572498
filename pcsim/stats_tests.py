"""Effect sizes and exact tests beside the bootstrap: small, closed and with ties handled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr

from pcsim.messages import check_array, check_choice, refusal

__all__ = [
    "Jonckheere",
    "McNemar",
    "cohen_dz",
    "holm",
    "jonckheere",
    "ks_similarity",
    "ks_similarity_histogram",
    "mcnemar_exact",
    "rank_biserial",
]

Floats = NDArray[np.float64]

# Up to this many values the null distribution of the trend is computed exactly.
EXACT_TREND = 60


def holm(p: Any) -> Floats:
    r"""Adjust p values by Holm's step-down rule, in the order given.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Parameters
    ----------
    p : (m,)
        p values from 0 to 1.

    Returns
    -------
    adjusted : (m,)

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    values = check_array("holm", "p", p, shape=("m",)).astype(np.float64)
    if values.size and (values.min() < 0.0 or values.max() > 1.0):
        found = f"p from {values.min():.6g} to {values.max():.6g}"
        raise ValueError(refusal("holm", found, "probabilities from 0 to 1"))
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def cohen_dz(x: Any, y: Any = 0.0) -> float:
    """Return the standardised paired difference: mean of x - y over its standard deviation.

    Parameters
    ----------
    x : (n,)
        One value a replica.
    y : (n,) or a number
        The paired values, or the value of no effect.

    Returns
    -------
    d_z
        0 if all differences are 0, infinite if they are all equal and not 0.

    Raises
    ------
    ValueError
        If there are fewer than 2 pairs.

    Examples
    --------
    >>> round(cohen_dz([3.0, 5.0, 4.0], [2.0, 2.0, 2.0]), 3)
    2.0
    """
    difference = _paired("cohen_dz", x, y)
    mean, spread = float(difference.mean()), float(difference.std(ddof=1))
    # Equal differences computed from unequal numbers have a spread of a few roundings.
    if spread <= 1e-14 * float(np.abs(difference).max(initial=0.0)):
        return 0.0 if mean == 0.0 else math.copysign(math.inf, mean)
    return mean / spread


def _paired(where: str, x: Any, y: Any) -> Floats:
    first = check_array(where, "x", x, shape=("n",)).astype(np.float64)
    second = check_array(where, "y", y).astype(np.float64)
    if second.ndim and second.shape != first.shape:
        found = f"{first.size} x and y of shape {second.shape}"
        raise ValueError(refusal(where, found, "pairs", "Pair them by replica."))
    if first.size < 2:
        raise ValueError(refusal(where, f"{first.size} pairs", "at least 2", "Add seeds."))
    return first - second


def rank_biserial(x: Any, y: Any = 0.0) -> float:
    """Return the matched-pairs rank-biserial correlation of x - y.

    The ranks of the positive differences less those of the negative ones, over all ranks of the
    absolute differences (Wilcoxon's); zero differences are left out. 1 if all are positive.

    Parameters
    ----------
    x : (n,)
    y : (n,) or a number

    Returns
    -------
    r
        From -1 to 1; 0 if all differences are zero.

    References
    ----------
    Kerby (2014), https://doi.org/10.2466/11.IT.3.1

    Examples
    --------
    >>> round(rank_biserial([1.0, 2.0, 3.0], [2.0, 0.0, 0.0]), 3)
    0.667
    """
    difference = _paired("rank_biserial", x, y)
    difference = difference[difference != 0.0]
    if difference.size == 0:
        return 0.0
    # Here, because scipy.stats alone takes most of a second to import in every worker.
    from scipy.stats import rankdata

    ranks = rankdata(np.abs(difference))
    return float((ranks * np.sign(difference)).sum() / ranks.sum())


def ks_similarity(x: Any, y: Any) -> float:
    """Return 1 less the Kolmogorov-Smirnov distance of two samples, as Brain-Score does.

    1: the same distribution; 0: no overlap.

    References
    ----------
    Marques, Schrimpf & DiCarlo (2021), https://doi.org/10.1101/2021.03.01.433495

    Examples
    --------
    >>> ks_similarity([1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0])
    0.5
    """
    first = np.sort(_sample("ks_similarity", "x", x))
    second = np.sort(_sample("ks_similarity", "y", y))
    at = np.concatenate([first, second])
    shares = (np.searchsorted(s, at, side="right") / s.size for s in (first, second))
    return 1.0 - float(np.abs(np.subtract(*shares)).max())


def _sample(where: str, name: str, value: Any) -> Floats:
    array = check_array(where, name, value, shape=("n",)).astype(np.float64)
    if array.size == 0:
        raise ValueError(refusal(where, f"no {name}", "at least one value"))
    return array


def ks_similarity_histogram(x: Any, edges: Any, counts: Any) -> float:
    """Return 1 less the Kolmogorov-Smirnov distance of a sample to a published histogram.

    Only the edges are known of a histogram, so the distance is taken there: an upper bound of the
    similarity to the values behind it. The last bin holds its upper edge.

    Parameters
    ----------
    x : (n,)
    edges : (bins + 1,)
        Strictly increasing.
    counts : (bins,)

    Raises
    ------
    ValueError
        If the edges do not increase or there are no counts.

    Examples
    --------
    >>> ks_similarity_histogram([0.1, 0.3, 0.5, 0.9], [0.0, 0.2, 0.4, 1.0], [5, 5, 10])
    1.0
    """
    where = "ks_similarity_histogram"
    sample = np.sort(_sample(where, "x", x))
    edges = check_array(where, "edges", edges, shape=("m",)).astype(np.float64)
    counts = check_array(where, "counts", counts, shape=(edges.size - 1,)).astype(np.float64)
    if not (np.diff(edges) > 0).all() or counts.min(initial=0.0) < 0 or counts.sum() <= 0:
        found = f"edges {edges} with counts {counts}"
        raise ValueError(refusal(where, found, "increasing edges and counts of something"))
    reference = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    share = np.searchsorted(sample, edges, side="left") / sample.size
    share[-1] = np.searchsorted(sample, edges[-1], side="right") / sample.size
    return 1.0 - float(np.abs(share - reference).max())


class McNemar(NamedTuple):
    """How many pairs changed each way, and how likely so one-sided a change is by chance."""

    lost: int
    """True before, false after."""
    gained: int
    """False before, true after."""
    p: float
    """Two-sided exact p."""


def mcnemar_exact(before: Any, after: Any) -> McNemar:
    """Test whether a property of the same units is lost and gained equally often.

    Under the null the changed units fall either way with probability 1/2 (exact binomial).

    Parameters
    ----------
    before, after : (n,)
        Truth of the property for each unit, as booleans.

    Raises
    ------
    ValueError
        If they are not booleans of equal number.

    Examples
    --------
    >>> lost, gained, p = mcnemar_exact([True] * 6 + [False], [False] * 5 + [True] * 2)
    >>> lost, gained, round(p, 6)
    (5, 1, 0.21875)
    """
    pairs = [np.asarray(value) for value in (before, after)]
    if any(p.dtype.kind != "b" or p.ndim != 1 for p in pairs) or pairs[0].size != pairs[1].size:
        found = f"{pairs[0].dtype} {pairs[0].shape} and {pairs[1].dtype} {pairs[1].shape}"
        expected = "booleans of the same units"
        raise ValueError(refusal("mcnemar_exact", found, expected, "Compare with the criterion."))
    lost = int((pairs[0] & ~pairs[1]).sum())
    gained = int((~pairs[0] & pairs[1]).sum())
    p = min(1.0, 2.0 * float(bdtr(min(lost, gained), lost + gained, 0.5)))
    return McNemar(lost, gained, p)


class Jonckheere(NamedTuple):
    """The trend over ordered groups."""

    statistic: float
    """Pairs from different groups in increasing order; ties count half."""
    effect: float
    """From -1 (strictly falling) to 1 (strictly rising)."""
    p: float
    exact: bool
    """Whether `p` is exact or from the normal approximation with correction for ties."""


def jonckheere(groups: Sequence[Any], *, alternative: str = "increasing") -> Jonckheere:
    r"""Test for a trend over ordered groups (Jonckheere-Terpstra).

    .. math:: J = \sum_{i<j} \#\{(a, b): a \in G_i, b \in G_j, a < b\} + \tfrac12 \#\text{ties}

    Without ties and up to 60 values p is exact: J is a sum of independent Mann-Whitney counts of
    each group against all before it.

    Parameters
    ----------
    groups
        At least two, in order, each (n_i,).
    alternative
        "increasing", "decreasing" or "two-sided".

    Raises
    ------
    ValueError
        If there are fewer than two groups or one is empty.

    References
    ----------
    Jonckheere (1954), https://doi.org/10.1093/biomet/41.1-2.133

    Examples
    --------
    >>> result = jonckheere([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> result.statistic, round(result.p, 4), result.exact
    (12.0, 0.0111, True)
    """
    where = "jonckheere"
    check_choice(where, "alternative", alternative, ("increasing", "decreasing", "two-sided"))
    samples = [_sample(where, f"group {i}", group) for i, group in enumerate(groups)]
    if len(samples) < 2:
        raise ValueError(refusal(where, f"{len(samples)} groups", "at least 2"))
    statistic = 0.0
    for index, later in enumerate(samples):
        for earlier in samples[:index]:
            order = np.sign(later[:, None] - earlier)
            statistic += 0.5 * float((order + 1.0).sum())
    sizes = [sample.size for sample in samples]
    values = np.concatenate(samples)
    exact = values.size <= EXACT_TREND and np.unique(values).size == values.size
    tail = _exact_tail if exact else _normal_tail
    highest = 0.5 * (sum(sizes) ** 2 - sum(n**2 for n in sizes))
    up = tail(statistic, sizes, values)
    down = tail(highest - statistic, sizes, values)
    p = {"increasing": up, "decreasing": down, "two-sided": min(1.0, 2.0 * min(up, down))}
    effect = 2.0 * statistic / highest - 1.0
    return Jonckheere(statistic, effect, p[alternative], exact)


def _exact_tail(statistic: float, sizes: Sequence[int], values: Floats) -> float:
    """P(J >= statistic); the null distribution is symmetric, so one tail serves both sides."""
    weights: Floats = np.ones(1)
    before = sizes[0]
    for n in sizes[1:]:
        weights = np.asarray(np.convolve(weights, _mann_whitney(before, n)), dtype=np.float64)
        before += n
    return float(min(1.0, weights[round(statistic) :].sum()))


def _mann_whitney(m: int, n: int) -> Floats:
    """Probabilities of the counts 0..mn: the Gaussian binomial coefficient, normalised."""
    # prod_k (1 - q^(m+k)) / (1 - q^k); whole numbers below 2^63 as m + n stays under EXACT_TREND.
    count = np.ones(1, dtype=np.int64)
    for k in range(1, n + 1):
        grown = np.zeros(count.size + m + k, dtype=np.int64)
        grown[: count.size] = count
        grown[m + k :] -= count
        for power in range(k, grown.size):
            grown[power] += grown[power - k]
        count = grown[: m * k + 1]
    return count / float(count.sum())


def _normal_tail(statistic: float, sizes: Sequence[int], values: Floats) -> float:
    total = values.size
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    n = np.asarray(sizes, dtype=np.float64)
    mean = 0.25 * (total**2 - (n**2).sum())
    variance = _triple(total) - _triple(n).sum() - _triple(ties).sum()
    variance = variance / 72.0
    if total > 2:
        fall = ties * (ties - 1) * (ties - 2)
        variance += float((n * (n - 1) * (n - 2)).sum() * fall.sum()) / (
            36.0 * total * (total - 1) * (total - 2)
        )
    variance += float((n * (n - 1)).sum() * (ties * (ties - 1)).sum()) / (8.0 * total * (total - 1))
    if variance <= 0.0:
        return 1.0
    return float(ndtr((mean - statistic) / math.sqrt(variance)))


def _triple(n: Any) -> Any:
    return n * (n - 1.0) * (2.0 * n + 5.0)
